"""Values that cross from one room to another."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    import pandas
    from torch import Tensor

RAW_TEXT = "raw_text"

TaskKind = Literal["classification", "regression", "generation"]


@dataclass(frozen=True)
class Decision:
    """Where each sample of a batch left, and with what answer.

    Attributes:
        exit_layers: layers executed per sample, 1..L. Shape: [batch], int64.
        logits: the answering logits. Shape: [batch, classes].
    """

    exit_layers: Tensor
    logits: Tensor

    @property
    def predictions(self) -> Tensor:
        """Class index per sample, or the value itself for one output. Shape: [batch]."""
        if self.logits.shape[-1] == 1:
            return self.logits.squeeze(-1)
        return self.logits.argmax(dim=-1)


@dataclass(frozen=True)
class Trace:
    """Every exit's logits for every sample of a data set: one full pass.

    Attributes:
        logits: Shape: [samples, exits, classes], on the CPU.
        labels: class indices (int64) or values (float) per sample; None where unknown.
            Shape: [samples].
        lengths: tokens per sample, special tokens included. Shape: [samples], int64.
        ids: the samples' ids, in the same order.
    """

    logits: Tensor
    labels: Tensor | None
    lengths: Tensor
    ids: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def num_exits(self) -> int:
        return int(self.logits.shape[1])


@dataclass(frozen=True)
class TaskInfo:
    """What a task is, apart from its data.

    Attributes:
        name: the catalog's name, or the file's for a user's own data.
        kind: classification, regression or generation.
        label_names: one per class, index = class id; empty for regression and generation.
        pair: samples have a second text.
        metrics: names of the metrics that the field reports for this task, the first one leads.
        extra: what only some tasks have: ``source_prefix``, put before every source text
            (generation); ``prompt_template``, around it for a decoder-only model;
            ``evaluation_splits``; ``raw_text``, where samples are pieces of one text, whose tokens
            are known before they are read.
    """

    name: str
    kind: TaskKind
    label_names: tuple[str, ...] = ()
    pair: bool = False
    metrics: tuple[str, ...] = ("accuracy",)
    extra: dict[str, Any] = field(default_factory=dict)

    @property
    def num_labels(self) -> int:
        return len(self.label_names) if self.kind == "classification" else 1

    @property
    def raw_text(self) -> bool:
        """Is every token to be predicted, and nothing to be written?"""
        return bool(self.extra.get(RAW_TEXT))


@dataclass(frozen=True)
class Examples:
    """Samples of one split in canonical columns.

    Attributes:
        info: the task.
        split: train, validation, test, or a file's name.
        dataset: a ``datasets.Dataset`` with ``id`` (str, unique), ``text`` (str), ``text_pair``
            (str, only for pairs) and ``label`` (int class id or float; absent when the source has
            no labels). For generation ``id``, ``source`` (str, with the task's prefix), ``target``
            (str) and, where samples have several accepted answers, ``references`` (list of str).
            Pieces of raw text have ``tokens`` (list of int), and their text for a target.
        total: samples in the split before a limit.
        training_rows: how many of the split trained the model that they are for, and what became of
            those (``families.seen_rows``); ``unknown`` where nothing says.
    """

    info: TaskInfo
    split: str
    dataset: Any
    total: int
    training_rows: Mapping[str, int] | str = "unknown"

    def __len__(self) -> int:
        return len(self.dataset)


@dataclass(frozen=True)
class RunResult:
    """What a pipeline hands back: the run's document, as written, and its folder.

    Attributes:
        document: the content of ``all_results.json``.
        path: ``results/<run id>``.
    """

    document: dict[str, Any]
    path: Path

    @property
    def metrics(self) -> dict[str, Any]:
        """The flat figures of the chosen setting."""
        return dict(self.document["metrics"])

    @property
    def rows(self) -> pandas.DataFrame:
        """The table of the run, a row per setting or recipe; the metrics where there is one."""
        import pandas

        return pandas.DataFrame(self.document["rows"] or [self.document["metrics"]])

    def records(self) -> Iterator[dict[str, Any]]:
        """The per-sample records, as they were appended to ``records.jsonl``."""
        records = self.path / "records.jsonl"
        if records.exists():
            with records.open(encoding="utf-8") as lines:
                yield from map(json.loads, lines)
