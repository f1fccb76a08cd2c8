"""The nine GLUE tasks (Wang et al., 2019, arXiv:1804.07461), from the hub or from TSV folders.

A task is one row: what the hub calls its columns, what the original TSV files call theirs. Class
ids are the hub's.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from eexit_cli.core.protocols import Progress
from eexit_cli.core.types import TaskInfo
from eexit_cli.data.glue_tsv import TsvLayout, read_tsv
from eexit_cli.data.hub import load_split
from eexit_cli.data.samples import Samples

REPOSITORY = "nyu-mll/glue"

HIDDEN_LABEL = -1
"""What the hub puts in place of a label that only the benchmark's server knows."""


@dataclass(frozen=True)
class GlueTask:
    """One GLUE task.

    Attributes:
        info: the task.
        texts: the hub's text columns.
        layout: the original TSV files.
        splits: split names of the hub.
        hidden: splits without public labels.
        renamed: what people say -> split name, where a task has two of a kind.
    """

    info: TaskInfo
    texts: tuple[str, ...]
    layout: TsvLayout
    splits: tuple[str, ...] = ("train", "validation", "test")
    hidden: tuple[str, ...] = ("test",)
    renamed: Mapping[str, str] = field(default_factory=dict)
    repository: str = REPOSITORY

    def read(self, split: str, *, data_dir: Path | None, progress: Progress) -> Samples:
        """The whole split, from ``data_dir`` if it is given, else from the hub or its cache."""
        if data_dir is not None:
            return read_tsv(self.info, self.layout, split, data_dir, progress)
        data = _from_hub(self.info.name, split, self.layout.folder)
        labels: list[int | float] = list(data["label"])
        samples = Samples(
            ids=[f"{self.info.name}-{split}-{number}" for number in data["idx"]],
            texts=list(data[self.texts[0]]),
            pairs=list(data[self.texts[1]]) if self.info.pair else None,
            labels=labels,
        )
        known = [row for row, label in enumerate(labels) if label != HIDDEN_LABEL]
        if not known:
            return samples.with_labels(None)
        if len(known) < len(labels):
            progress.message(
                f"{len(labels) - len(known)} of {len(labels)} samples have no label and are "
                "left out"
            )
        return samples.take(known)


def _from_hub(name: str, split: str, folder: str) -> Any:
    return load_split(
        name,
        REPOSITORY,
        name,
        split,
        instead=f"Name a folder of TSV files with --data-dir (such as glue_data/{folder})",
    )


def _task(
    name: str,
    label_names: tuple[str, ...],
    texts: tuple[str, ...],
    layout: TsvLayout,
    *,
    metrics: tuple[str, ...] = ("accuracy",),
) -> GlueTask:
    kind = "classification" if label_names else "regression"
    info = TaskInfo(name, kind, label_names, len(texts) == 2, metrics)  # type: ignore[arg-type]
    return GlueTask(info, texts, layout)


COLA = _task(
    "cola",
    ("unacceptable", "acceptable"),
    ("sentence",),
    TsvLayout("CoLA", ("sentence",), "label", headless=("source", "label", "mark", "sentence")),
    metrics=("matthews_correlation",),
)
SST2 = _task(
    "sst2",
    ("negative", "positive"),
    ("sentence",),
    TsvLayout("SST-2", ("sentence",), "label"),
)
MRPC = _task(
    "mrpc",
    ("not_equivalent", "equivalent"),
    ("sentence1", "sentence2"),
    TsvLayout(
        "MRPC",
        ("#1 String", "#2 String"),
        "Quality",
        files={
            "train": ("train.tsv", "msr_paraphrase_train.txt"),
            "validation": ("dev.tsv",),
            "test": ("test.tsv", "msr_paraphrase_test.txt"),
        },
    ),
    metrics=("accuracy", "f1"),
)
QQP = _task(
    "qqp",
    ("not_duplicate", "duplicate"),
    ("question1", "question2"),
    TsvLayout("QQP", ("question1", "question2"), "is_duplicate", broken_rows=True),
    metrics=("accuracy", "f1"),
)
STSB = _task(
    "stsb",
    (),
    ("sentence1", "sentence2"),
    TsvLayout("STS-B", ("sentence1", "sentence2"), "score"),
    metrics=("pearson", "spearman"),
)
MNLI = GlueTask(
    TaskInfo(
        "mnli",
        "classification",
        ("entailment", "neutral", "contradiction"),
        pair=True,
        extra={"evaluation_splits": ("validation_matched", "validation_mismatched")},
    ),
    ("premise", "hypothesis"),
    TsvLayout(
        "MNLI",
        ("sentence1", "sentence2"),
        "gold_label",
        files={
            "train": ("train.tsv",),
            "validation_matched": ("dev_matched.tsv",),
            "validation_mismatched": ("dev_mismatched.tsv",),
            "test_matched": ("test_matched.tsv",),
            "test_mismatched": ("test_mismatched.tsv",),
        },
        undecided="-",
    ),
    splits=(
        "train",
        "validation_matched",
        "validation_mismatched",
        "test_matched",
        "test_mismatched",
    ),
    hidden=("test", "test_matched", "test_mismatched"),
    renamed={"validation": "validation_matched", "test": "test_matched"},
)
QNLI = _task(
    "qnli",
    ("entailment", "not_entailment"),
    ("question", "sentence"),
    TsvLayout("QNLI", ("question", "sentence"), "label"),
)
RTE = _task(
    "rte",
    ("entailment", "not_entailment"),
    ("sentence1", "sentence2"),
    TsvLayout("RTE", ("sentence1", "sentence2"), "label"),
)
WNLI = _task(
    "wnli",
    ("not_entailment", "entailment"),
    ("sentence1", "sentence2"),
    TsvLayout("WNLI", ("sentence1", "sentence2"), "label"),
)
