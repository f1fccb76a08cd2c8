"""Softmax entropy in nats (DeeBERT, arXiv:2004.12993): falls with certainty."""

from __future__ import annotations

import math

import torch
from torch import Tensor


class Entropy:
    """H(softmax(z)) in nats, in [0, ln K]. Shape: [..., classes] -> [...]."""

    name = "entropy"
    rises = False

    def __call__(self, logits: Tensor) -> Tensor:
        log_p = torch.log_softmax(logits, dim=-1)
        # p log p is 0 where p underflows, not 0 * -inf; rounding must not make it negative.
        terms = torch.where(torch.isneginf(log_p), torch.zeros_like(log_p), log_p.exp() * log_p)
        return (-terms.sum(dim=-1)).clamp_min(0.0)

    def bounds(self, classes: int) -> tuple[float, float]:
        return 0.0, math.log(classes)


MEASURE = Entropy()
