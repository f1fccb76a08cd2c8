"""Maximum softmax probability: rises with certainty."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor


class MaxProb:
    """max softmax(z), in [1/K, 1]. Shape: [..., classes] -> [...]."""

    name = "max-prob"
    rises = True

    def __call__(self, logits: Tensor) -> Tensor:
        return logits.softmax(dim=-1).amax(dim=-1).clamp(0.0, 1.0)

    def bounds(self, classes: int) -> tuple[float, float]:
        return 1.0 / classes, 1.0


MEASURE = MaxProb()
