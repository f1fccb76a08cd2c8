"""``linear``, DL2-CALM's ``vanilla_classifier``: d -> 2."""

from __future__ import annotations

from torch import nn


class LinearClassifier(nn.Sequential):
    """One affine map. Shape: [..., d_model] -> [..., 2]."""

    name = "linear"

    def __init__(self, d_model: int) -> None:
        super().__init__(nn.Linear(d_model, 2))


def build(d_model: int) -> LinearClassifier:
    return LinearClassifier(d_model)
