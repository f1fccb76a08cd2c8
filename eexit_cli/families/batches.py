"""Texts, labels and batches of samples, for whatever reads them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from eexit_cli.core.errors import UsageError
from eexit_cli.core.types import Examples, TaskInfo
from eexit_cli.metrics.generation import References

if TYPE_CHECKING:
    from eexit_cli.core.protocols import Crew

DEFAULT_BATCH_SIZE = 32


def texts_of(examples: Examples) -> tuple[list[str], list[str] | None]:
    """Texts and, for pairs, second texts, in the order of the samples; sources of text pairs."""
    columns = examples.dataset.column_names
    if "source" in columns:
        return list(examples.dataset["source"]), None
    pairs = list(examples.dataset["text_pair"]) if "text_pair" in columns else None
    return list(examples.dataset["text"]), pairs


def labels_of(examples: Examples) -> list[int] | list[float] | None:
    """References in the order of the samples; None where the source has none."""
    if "label" not in examples.dataset.column_names:
        return None
    return list(examples.dataset["label"])


def batches_by_length(lengths: Sequence[int], batch_size: int) -> Iterator[list[int]]:
    """Indices in batches of similar length, longest first, so that padding is small."""
    order = sorted(range(len(lengths)), key=lambda index: -lengths[index])
    for start in range(0, len(order), batch_size):
        yield order[start : start + batch_size]


def to_device(batch: dict[str, Any], device: Any) -> dict[str, Any]:
    """The tensors of a batch on the device; given outputs stay what they are."""
    return {
        name: value.to(device) if hasattr(value, "to") else value for name, value in batch.items()
    }


def references_of(examples: Examples) -> list[References]:
    """The accepted answers of each sample."""
    if "references" in examples.dataset.column_names:
        return [list(answers) for answers in examples.dataset["references"]]
    return [[target] for target in examples.dataset["target"]]


def targets_of(examples: Examples) -> list[Any] | None:
    """What the outputs should be: labels, or of texts the accepted ones; None where unknown."""
    if examples.info.kind != "generation":
        return labels_of(examples)
    known = {"references", "target"} & set(examples.dataset.column_names)
    return references_of(examples) if known else None


def prefix_in(info: TaskInfo) -> str:
    """What stands before each source of a task of text generation."""
    return str(info.extra.get("source_prefix") or "")


def typed_in(texts: Sequence[str | tuple[str, str]]) -> Examples:
    """Texts, or pairs of texts, without a task around them, as samples.

    Raises:
        UsageError: there is none, one is empty, or some are pairs and others are not.
    """
    import datasets

    pairs = [text for text in texts if not isinstance(text, str)]
    if not texts or (pairs and len(pairs) < len(texts)):
        raise UsageError("Give texts, or pairs of texts", hint="At least one, and all of one kind")
    firsts = [text if isinstance(text, str) else text[0] for text in texts]
    if not all(text.strip() for text in firsts):
        raise UsageError("A text is empty", hint="Give at least one word")
    columns: dict[str, list[str]] = {"id": list(map(str, range(len(texts)))), "text": firsts}
    if pairs:
        columns["text_pair"] = [second for _, second in pairs]
    info = TaskInfo("texts", kind="classification", pair=bool(pairs))
    return Examples(info, "typed in", datasets.Dataset.from_dict(columns), len(texts))


SHARES = 4
"""Parts of a pass for each process of a crew: an early one that takes long keeps nobody waiting."""


def titled(title: str, crew: Crew | None) -> str:
    """Of a pass, with who does it."""
    return title if crew is None else f"{title}, {crew.side_by_side}"


def shares_of(batches: Sequence[Any], processes: int) -> list[range]:
    """A pass cut into consecutive parts for a crew, as places in its batches."""
    size = max(1, -(-len(batches) // (SHARES * processes)))
    return [range(first, min(first + size, len(batches))) for first in range(0, len(batches), size)]
