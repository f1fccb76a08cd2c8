"""Softmax response (CALM, arXiv:2207.07061) on decoder tokens: p1 - p2 over the vocabulary."""

from __future__ import annotations

from torch import Tensor

from eexit_cli.confidence.margin import MEASURE as MARGIN
from eexit_cli.core.decoding import LayerView, Needs


class SoftmaxResponse:
    """The top-2 margin as a decoder measure; it remembers nothing, so it is its own session.

    Under top-k propagation the logits are those of the K kept tokens, and the softmax runs over
    them alone.
    """

    name = "softmax"
    needs: Needs = "logits"

    def session(
        self, *, slots: int, num_layers: int, max_tokens: int, like: Tensor
    ) -> SoftmaxResponse:
        return self

    def confidence(self, view: LayerView) -> Tensor:
        assert view.logits is not None
        return MARGIN(view.logits)

    def compact(self, slots: Tensor) -> None:
        return None

    def shift(self, offset: int) -> None:
        return None


def build() -> SoftmaxResponse:
    return SoftmaxResponse()
