"""``mlp``, FREE's ``meta``: d -> d, ReLU, -> 2."""

from __future__ import annotations

from torch import nn


class MlpClassifier(nn.Sequential):
    """Two affine maps with a ReLU between. Shape: [..., d_model] -> [..., 2]."""

    name = "mlp"

    def __init__(self, d_model: int) -> None:
        super().__init__(nn.Linear(d_model, d_model), nn.ReLU(), nn.Linear(d_model, 2))


def build(d_model: int) -> MlpClassifier:
    return MlpClassifier(d_model)
