"""Conformal risk control (arXiv:2208.02814): a promise about the expectation, not the probability.

It accepts a threshold when (n mean + 1) / (n + 1) <= delta. Then, if losses rise with eagerness,
the risk averaged over calibration sets is at most delta; any one calibration may exceed it, with
no bound on how often. epsilon plays no part. Written as a p-value, the answer is 0 or 1.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from eexit_cli.calibration.p_values.base import FloatArray, from_sums


def from_sum(total: FloatArray, n: int, delta: float) -> FloatArray:
    """0 where (sum + 1) / (n + 1) <= delta, else 1."""
    return np.where((total + 1.0) / (n + 1) <= delta, 0.0, 1.0)


P_VALUE = from_sums(
    "conformal", "on average over calibration sets only; ignores epsilon", from_sum, valid=False
)


def p_value(losses: ArrayLike, delta: float) -> float:
    """0 (accepted) or 1. Losses in [0, 1], Shape: [samples]."""
    return P_VALUE.p_value(losses, delta)
