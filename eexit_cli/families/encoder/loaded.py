"""A classifier in memory: its tokenizer, its device, and the trace that answers every exit."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from eexit_cli.config.runtime import TORCH
from eexit_cli.core.answers import Exit
from eexit_cli.core.progress import SilentProgress
from eexit_cli.core.types import Examples, Trace
from eexit_cli.families.batches import (
    DEFAULT_BATCH_SIZE,
    batches_by_length,
    labels_of,
    shares_of,
    texts_of,
    titled,
    to_device,
    typed_in,
)
from eexit_cli.families.class_names import names_in
from eexit_cli.families.exported import runtime_of
from eexit_cli.models.batching import TextBatcher
from eexit_cli.models.encoder.model import MultiExitClassifier
from eexit_cli.store.models import ModelRef

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from eexit_cli.core.protocols import Crew, Progress


TextBatch = tuple[list[str], list[str] | None]
"""Texts, and the second ones of pairs."""


@dataclass(frozen=True)
class BatchPass:
    """Every exit's say to a batch.

    Attributes:
        logits: Shape: [rows, exits, classes].
        lengths: tokens of each input. Shape: [rows].
        truncated: inputs cut at the model's limit.
    """

    logits: torch.Tensor
    lengths: torch.Tensor
    truncated: int


@dataclass(frozen=True)
class LoadedModel:
    """A classifier with its tokenizer, on its device.

    Attributes:
        ref: what ``--model`` meant.
        folder: where its files lie.
        model: in eval mode, on the device.
        tokenizer: a fast tokenizer.
        device, dtype: of the weights and activations.
        max_length: tokens per input, special tokens included.
        crew: does the passes over many samples; None does them here.
        runtimes: what runs it; exits that name none are run by the first.
        runner: what runs an exit, from :func:`~eexit_cli.families.encoder.runtimes.runner`; None is
            ``model``.
    """

    ref: ModelRef
    folder: Path
    model: MultiExitClassifier
    tokenizer: PreTrainedTokenizerBase
    device: torch.device
    dtype: torch.dtype
    max_length: int
    crew: Crew | None = None
    runtimes: tuple[str, ...] = (TORCH,)
    runner: Callable[[Exit], Any] | None = None

    @property
    def name(self) -> str:
        return self.ref.name

    @property
    def num_layers(self) -> int:
        """L: exit layers count from 1 to this."""
        return self.model.num_exits

    @property
    def num_classes(self) -> int:
        """K; 1 for regression."""
        return self.model.num_classes

    @property
    def label_names(self) -> tuple[str, ...]:
        """One per class, as in the model's configuration; empty for regression."""
        return names_in(self.model.config)

    @property
    def exit_defaults(self) -> dict[str, Any]:
        """The exit used when the user gives none."""
        return dict(self.model.config.exit_defaults)

    @property
    def trained_on(self) -> str | None:
        """The task that it was trained on, where known."""
        task: str | None = self.model.config.task
        return task

    def runtime_of(self, exit: Exit) -> str:
        """What runs an exit."""
        return runtime_of(exit, self.runtimes)

    def running(self, exit: Exit) -> Any:
        """The classifier that runs an exit."""
        return self.model if self.runner is None else self.runner(exit)

    def batcher(self) -> TextBatcher:
        """A new tokenising batcher, whose count of cut inputs starts at 0."""
        return TextBatcher(self.tokenizer, self.max_length)

    def _passes(
        self, batches: Sequence[TextBatch], runtime: str
    ) -> Iterator[tuple[int, BatchPass]]:
        """Of each batch, by its place, in any order."""
        if self.crew is None:
            yield from enumerate(self._pass(batch, runtime) for batch in batches)
            return
        shares = shares_of(batches, self.crew.size)
        parts = [(runtime, [batches[at] for at in share]) for share in shares]
        counts = [sum(len(texts) for texts, _ in part) for _, part in parts]
        for index, found in self.crew.do(parts, counts):
            yield from zip(shares[index], found, strict=True)

    def share(self, part: tuple[str, Sequence[TextBatch]]) -> list[BatchPass]:
        """See :class:`eexit_cli.core.family.Model`."""
        runtime, batches = part
        return [self._pass(batch, runtime) for batch in batches]

    @torch.inference_mode()
    def _pass(self, texts: TextBatch, runtime: str) -> BatchPass:
        batcher = self.batcher()
        batch = batcher(*texts)
        model = self.running(Exit.of({"runtime": runtime}, None))
        # Shape: [rows, exits, classes]
        logits = model(**to_device(batch, self.device)).logits.cpu()
        logits = logits if logits.dtype == torch.float64 else logits.float()
        return BatchPass(logits, batch["attention_mask"].sum(dim=1), batcher.truncated)

    def trace(
        self,
        examples: Examples | Sequence[str | tuple[str, str]],
        *,
        batch_size: int | None = None,
        progress: Progress | None = None,
        title: str = "Full pass",
        runtime: str | None = None,
    ) -> Trace:
        """Every exit's logits for every sample: the trace that answers every threshold.

        Args:
            examples: the samples, or texts or pairs of texts; their order is kept.
            batch_size: None is 32.
            progress: told about each batch, and about inputs cut at the model's limit.
            runtime: what runs it; None is the first of ``runtimes``.

        Returns:
            Logits in float32 (float64 for a float64 model) on the CPU.
        """
        progress = progress or SilentProgress()
        if not isinstance(examples, Examples):
            examples = typed_in(examples)
        texts, pairs = texts_of(examples)
        # Characters order well enough, and cost nothing.
        sizes = [len(text) + (len(pairs[at]) if pairs else 0) for at, text in enumerate(texts)]
        rows = list(batches_by_length(sizes, batch_size or DEFAULT_BATCH_SIZE))
        batches = [
            ([texts[row] for row in batch], [pairs[row] for row in batch] if pairs else None)
            for batch in rows
        ]
        lengths = torch.zeros(len(texts), dtype=torch.int64)
        logits: torch.Tensor | None = None
        truncated = 0
        with progress.task(titled(title, self.crew), total=len(texts)) as ticker:
            for at, found in self._passes(batches, runtime or self.runtimes[0]):
                if logits is None:
                    logits = found.logits.new_zeros((len(texts), *found.logits.shape[1:]))
                logits[rows[at]] = found.logits
                lengths[rows[at]] = found.lengths
                truncated += found.truncated
                ticker.advance(len(rows[at]))
        if truncated:
            progress.message(
                f"{truncated} of {len(texts)} inputs were cut at {self.max_length} tokens"
            )
        assert logits is not None
        labels = labels_of(examples)
        return Trace(
            logits=logits,
            labels=None if labels is None else torch.tensor(labels),
            lengths=lengths,
            ids=tuple(str(identifier) for identifier in examples.dataset["id"]),
        )
