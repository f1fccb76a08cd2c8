"""Softmax entropy in nats (DeeBERT, arXiv:2004.12993): falls with certainty."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor


class Entropy:
    """H(softmax(z)) in nats, in [0, ln K]. Shape: [..., classes] -> [...]."""

    name = "entropy"
    rises = False

    def __call__(self, logits: Tensor) -> Tensor:
        import torch

        # entr(p) = -p ln p, and 0 where p underflows; rounding must not make the sum negative.
        return torch.special.entr(torch.softmax(logits, dim=-1)).sum(dim=-1).clamp_min(0.0)

    def bounds(self, classes: int) -> tuple[float, float]:
        return 0.0, math.log(classes)


MEASURE = Entropy()
