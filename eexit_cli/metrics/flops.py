"""Floating-point operations of an encoder that leaves early, from its shape.

A multiplication and an addition count as two. Matrix products alone are counted, as the
profilers do; embeddings look up and norms and activations are below one per cent.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray


@dataclass(frozen=True)
class EncoderShape:
    """What the count depends on.

    Attributes:
        hidden: width of the layers.
        intermediate: width inside the feed-forward block.
        classes: outputs of each exit.
        embedding: width of the word embeddings where it differs (ALBERT, ELECTRA), else None.
    """

    hidden: int
    intermediate: int
    classes: int
    embedding: int | None = None

    @classmethod
    def of(cls, config: Any, classes: int) -> EncoderShape:
        """Read off a transformers configuration (DistilBERT names its widths differently)."""
        intermediate = getattr(config, "intermediate_size", None) or config.hidden_dim
        embedding = getattr(config, "embedding_size", None)
        if embedding == config.hidden_size and config.model_type != "albert":
            embedding = None
        return cls(config.hidden_size, intermediate, classes, embedding)

    def entry(self, tokens: NDArray[np.float64]) -> NDArray[np.float64]:
        """The projection of narrow embeddings, once per sample."""
        return 2 * tokens * (self.embedding or 0) * self.hidden

    def layer(self, tokens: NDArray[np.float64]) -> NDArray[np.float64]:
        """One layer: four hidden x hidden maps, two feed-forward maps, scores and their sum."""
        linear = 4 * self.hidden**2 + 2 * self.hidden * self.intermediate
        return 2 * (tokens * linear + 2 * tokens**2 * self.hidden)

    @property
    def head(self) -> float:
        """One exit: pooler and classifier on one vector."""
        return 2.0 * (self.hidden**2 + self.hidden * self.classes)


def encoder_flops(
    shape: EncoderShape, tokens: ArrayLike, exit_layers: ArrayLike, *, every_head: bool = True
) -> NDArray[np.float64]:
    """Operations per sample.

    Args:
        shape: the encoder's.
        tokens: tokens per sample, padding apart. Shape: [samples].
        exit_layers: layers executed per sample. Shape: [samples].
        every_head: one head per executed layer (early exit); False counts the last one only
            (the full model, which asks no other exit).

    Returns:
        Shape: [samples].
    """
    length = np.asarray(tokens, dtype=np.float64)
    layers = np.asarray(exit_layers, dtype=np.float64)
    heads = layers if every_head else np.ones_like(layers)
    return shape.entry(length) + layers * shape.layer(length) + heads * shape.head
