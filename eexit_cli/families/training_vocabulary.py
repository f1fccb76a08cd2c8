"""Before a training: can the model's vocabulary write what it is to read, and to write?"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from eexit_cli.core.seed import derive_seed
from eexit_cli.families.batches import texts_of
from eexit_cli.training.unknown import (
    WARN,
    changed,
    grow_embeddings,
    grown,
    listed,
    report,
    spelling,
)

if TYPE_CHECKING:
    from eexit_cli.core.protocols import Progress
    from eexit_cli.core.types import Examples
    from eexit_cli.models.t5.model import MultiExitT5

REPAIR = "Start from a --backbone whose vocabulary has them"


def tell_unknown(tokenizer: Any, training: Examples, progress: Progress) -> None:
    """Say how much of a classifier's texts is unknown to it.

    Raises:
        UsageError: so much that a training makes no sense.
    """
    texts, pairs = texts_of(training)
    line = report("texts", spelling(tokenizer, [*texts, *(pairs or ())]), REPAIR)
    if line is not None:
        progress.message(line)


def able_to_write(
    model: MultiExitT5, tokenizer: Any, training: Examples, seed: int, progress: Progress
) -> Any:
    """A decoder's tokenizer with the characters that it lacks, where that helps; the model fits it.

    Args:
        model: gets rows for new tokens.
        tokenizer: left as it is.
        training: the pairs.
        seed: of the new rows.
        progress: told which characters were added.

    Returns:
        The tokenizer to train with.
    """
    sources, targets = list(training.dataset["source"]), list(training.dataset["target"])
    if max(spelling(tokenizer, texts).unknown for texts in (sources, targets)) < WARN:
        return tokenizer
    larger = grown(tokenizer, sources, targets)
    if larger is None:
        return tokenizer
    new = sorted(larger.get_vocab().keys() - tokenizer.get_vocab().keys())
    generator = torch.Generator().manual_seed(derive_seed(seed, "new tokens"))
    grow_embeddings(model, len(larger), generator)
    progress.message(
        f"Vocabulary: {len(new)} characters of the training texts added ({listed(new)}), now "
        f"{len(larger)} tokens"
    )
    return larger


def tell_unwritable(tokenizer: Any, training: Examples, progress: Progress) -> None:
    """Say how much of a decoder's pairs its vocabulary cannot write.

    Raises:
        UsageError: so much that a training makes no sense.
    """
    for what, column in (("targets", "target"), ("sources", "source")):
        line = report(what, spelling(tokenizer, list(training.dataset[column])), REPAIR)
        if line is not None:
            progress.message(line)
    line = changed(tokenizer, list(training.dataset["target"]))
    if line is not None:
        progress.message(line)
