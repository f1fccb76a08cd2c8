"""From a measure's name and a model's classifiers to a measure on decoder tokens."""

from __future__ import annotations

from collections.abc import Mapping

from torch import nn

from eexit_cli.confidence import CLASSIFIERS, DECODER_MEASURES
from eexit_cli.core.decoding import DecoderMeasure
from eexit_cli.core.errors import UsageError


def build_classifier(name: str, d_model: int) -> nn.Module:
    """A new confidence classifier: states [batch, tokens, d_model] -> logits [batch, tokens, 2].

    Args:
        name: one of the catalog, or DL2-CALM's spelling of it (``transformer_MLP_64``).
        d_model: width of the decoder.

    Raises:
        UsageError: the name is unknown.
    """
    return CLASSIFIERS.load(name)(d_model)


def build_measure(
    name: str, classifiers: Mapping[str, nn.Module] | None = None, *, model: str | None = None
) -> DecoderMeasure:
    """A measure, ready for :meth:`MultiExitT5.decode`.

    Args:
        name: one of the catalog, or an accepted spelling of it.
        classifiers: the model's, by name.
        model: its name, for the error message.

    Raises:
        UsageError: the name is unknown, or the model lacks the classifier that it names.
    """
    canonical = DECODER_MEASURES.canonical(name)
    build = DECODER_MEASURES.load(canonical)
    if canonical not in CLASSIFIERS:
        return build()
    held = classifiers or {}
    if canonical not in held:
        who = f"Model '{model}'" if model else "The model"
        there = f"it has {', '.join(sorted(held))}" if held else "it has none"
        raise UsageError(
            f"{who} has no classifier '{canonical}' ({there})",
            hint=f"Train one: eexit train --confidence {canonical} --model {model or 'MODEL'}",
        )
    return build(held[canonical])
