"""What a decoder, a confidence measure on its tokens and a threshold agree on."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, Protocol

if TYPE_CHECKING:
    from torch import Tensor, nn

Needs = Literal["logits", "state", "residuals"]
"""What a measure reads: the exit's logits, its final-normed state, or two layers' raw states."""


@dataclass(slots=True)
class LayerView:
    """One decoder layer's result for the tokens that are still running.

    Attributes:
        layer: layers executed so far, 1..L.
        position: the tokens' place in the caches, from 0.
        rows: cache slot of each row; None when the rows are all slots, in order.
            Shape: [rows], int64.
        residual: the layer's output as the next layer reads it. Shape: [rows, d].
        previous: the same of the layer before (the embedding for layer 1). Shape: [rows, d].
        state: the layer's output under the decoder's final norm; None unless asked for.
            Shape: [rows, d].
        logits: of the vocabulary, or of the K tokens kept by top-k propagation; None unless asked
            for. Shape: [rows, tokens].
        first: the earliest place that any of the rows still sees.
        hidden: added to the scores of the places from ``first`` to ``position``, very negative
            where a slot's own output had not begun; None when all see all of them.
            Shape: [slots, position + 1 - first].
    """

    layer: int
    position: int
    rows: Tensor | None
    residual: Tensor
    previous: Tensor
    state: Tensor | None = None
    logits: Tensor | None = None
    first: int = 0
    hidden: Tensor | None = None


class MeasureSession(Protocol):
    """A measure at work on one batch, with whatever it remembers of earlier tokens."""

    def confidence(self, view: LayerView) -> Tensor:
        """In [0, 1], rising with certainty. Shape: [rows]."""
        ...

    def compact(self, slots: Tensor) -> None:
        """Keep these cache slots, renumbered in this order. Shape: [slots], int64."""
        ...

    def shift(self, offset: int) -> None:
        """Forget the first ``offset`` places; what follows moves to the front."""
        ...


class DecoderMeasure(Protocol):
    """A confidence measure on decoder tokens."""

    name: str
    needs: Needs

    def session(
        self, *, slots: int, num_layers: int, max_tokens: int, like: Tensor
    ) -> MeasureSession:
        """Start on a batch.

        Args:
            slots: rows of the batch.
            num_layers: L.
            max_tokens: places that the caches have.
            like: a tensor with the states' dtype and device.
        """
        ...


class LeaveRule(Protocol):
    """The comparison of a confidence with a threshold."""

    def leave(self, confidence: Tensor, position: int | Tensor) -> Tensor:
        """True where the token leaves.

        Args:
            confidence: Shape: [rows].
            position: the tokens' place in their outputs, from 0; one number when all share it.
                Shape: [rows], int64.

        Returns:
            Shape: [rows], bool.
        """
        ...

    def describe(self) -> dict[str, Any]:
        """Settings, as they are written to ``all_results.json``."""
        ...


ClassifierFactory = Callable[[str, int], "nn.Module"]
"""(name of the classifier, width of the decoder) -> a new confidence classifier."""

Classifiers = Mapping[str, "nn.Module"]
"""Confidence classifiers by name, as a model holds them."""
