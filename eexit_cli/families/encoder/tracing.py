"""One full pass over a data set: the trace that answers every threshold."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch

from eexit_cli.core.progress import SilentProgress
from eexit_cli.core.types import Examples, TaskInfo, Trace
from eexit_cli.families.batches import (
    DEFAULT_BATCH_SIZE,
    batches_by_length,
    labels_of,
    texts_of,
    to_device,
)
from eexit_cli.families.class_names import trained_on_pairs
from eexit_cli.families.data import own_samples

if TYPE_CHECKING:
    from eexit_cli.core.protocols import Progress
    from eexit_cli.families.encoder.model import LoadedModel


@torch.inference_mode()
def record_trace(
    loaded: LoadedModel,
    examples: Examples,
    *,
    batch_size: int | None = None,
    progress: Progress | None = None,
    title: str = "Full pass",
) -> Trace:
    """Every exit's logits for every sample.

    Args:
        loaded: model and tokenizer.
        examples: the samples; their order is kept.
        batch_size: None is 32.
        progress: told about each batch, and about inputs cut at the model's limit.

    Returns:
        Logits in float32 (float64 for a float64 model) on the CPU.
    """
    progress = progress or SilentProgress()
    batcher = loaded.batcher()
    texts, pairs = texts_of(examples)
    # Characters order well enough, and cost nothing.
    sizes = [len(text) + (len(pairs[index]) if pairs else 0) for index, text in enumerate(texts)]
    lengths = torch.zeros(len(texts), dtype=torch.int64)
    logits: torch.Tensor | None = None
    with progress.task(title, total=len(texts)) as ticker:
        for rows in batches_by_length(sizes, batch_size or DEFAULT_BATCH_SIZE):
            batch = batcher(
                [texts[row] for row in rows], [pairs[row] for row in rows] if pairs else None
            )
            # Shape: [rows, exits, classes]
            output = loaded.model(**to_device(batch, loaded.device)).logits.cpu()
            output = output if output.dtype == torch.float64 else output.float()
            if logits is None:
                logits = output.new_zeros((len(texts), *output.shape[1:]))
            logits[rows] = output
            lengths[rows] = batch["attention_mask"].sum(dim=1)
            ticker.advance(len(rows))
    if batcher.truncated:
        progress.message(
            f"{batcher.truncated} of {len(texts)} inputs were cut at {loaded.max_length} tokens"
        )
    assert logits is not None
    labels = labels_of(examples)
    return Trace(
        logits=logits,
        labels=None if labels is None else torch.tensor(labels),
        lengths=lengths,
        ids=tuple(str(identifier) for identifier in examples.dataset["id"]),
    )


def task_of(config: Any, loaded: LoadedModel, progress: Progress | None = None) -> Any:
    """The configuration with the model's own task, or held-out data, where the user named none.

    Args:
        config: with the attributes of ``config.common.DataConfig``, and ``seed``.
        progress: told when data are held-out ones.

    Raises:
        UsageError, MissingArtifactError: as :func:`eexit_cli.families.data.own_samples`.
    """
    settings = loaded.model.config
    return own_samples(
        config, settings.training, settings.task, loaded.ref.name, progress or SilentProgress()
    )


def label_name(info_labels: Sequence[str], prediction: float) -> str:
    """A class's name, or the value itself where there are no classes."""
    if info_labels:
        return info_labels[int(prediction)]
    return f"{prediction:.4g}"


def model_label_names(loaded: LoadedModel) -> tuple[str, ...]:
    """Names of the model's classes, in the order of its outputs; empty for regression."""
    config = loaded.model.config
    if loaded.model.num_classes == 1:
        return ()
    return tuple(str(config.id2label[index]) for index in range(loaded.model.num_classes))


def check_fits(info: TaskInfo, loaded: LoadedModel, progress: Progress) -> None:
    """A task and a model that do not go together are a usage error.

    Args:
        progress: told where a model of pairs of texts gets single ones, or the other way round.
    """
    from eexit_cli.core.errors import UsageError

    if info.num_labels != loaded.model.num_classes:
        raise UsageError(
            f"Task '{info.name}' has {info.num_labels} classes, "
            f"model '{loaded.ref.name}' has {loaded.model.num_classes}",
            hint="Choose a task with the model's classes, or train one: eexit train --task "
            f"{info.name}",
        )
    pairs = trained_on_pairs(loaded.model.config)
    if pairs is not None and pairs != info.pair:
        words = {True: "pairs of texts", False: "single texts"}
        repair = "--text-pair-column names" if pairs else "leave --text-pair-column out for single"
        progress.message(
            f"Model '{loaded.ref.name}' was trained on {words[pairs]}; '{info.name}' is read as "
            f"{words[info.pair]} ({repair}{' the second' if pairs else ' texts'})"
        )
