"""Classifiers that look at one state at a time (``linear``, ``mlp``) as decoder measures."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from eexit_cli.confidence.classifiers.folding import Affine, FoldedOnce, affine, difference
from eexit_cli.core.decoding import LayerView, Needs


class PointwiseMeasure:
    """softmax(classifier(state))[1].

    Args:
        classifier: linear layers with ReLU between them, the last with two outputs.
    """

    needs: Needs = "state"

    def __init__(self, classifier: nn.Sequential) -> None:
        self.name = str(classifier.name)
        linears = [layer for layer in classifier if isinstance(layer, nn.Linear)]
        self._folded: FoldedOnce[list[Affine]] = FoldedOnce(
            classifier,
            lambda: [*(affine(layer) for layer in linears[:-1]), difference(linears[-1])],
        )

    def session(
        self, *, slots: int, num_layers: int, max_tokens: int, like: Tensor
    ) -> PointwiseSession:
        return PointwiseSession(self._folded())


class PointwiseSession:
    """Remembers nothing of earlier tokens."""

    def __init__(self, maps: list[Affine]) -> None:
        self._hidden = maps[:-1]
        self._last = maps[-1]

    def confidence(self, view: LayerView) -> Tensor:
        hidden = view.state
        assert hidden is not None
        for layer in self._hidden:
            hidden = layer(hidden).relu_()
        return torch.sigmoid_(self._last(hidden)).squeeze(-1)

    def compact(self, slots: Tensor) -> None:
        return None

    def shift(self, offset: int) -> None:
        return None


def build(classifier: nn.Sequential) -> PointwiseMeasure:
    return PointwiseMeasure(classifier)
