"""The uncalibrated choice: believe the sample's mean. No promise at all."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from eexit_cli.calibration.p_values.base import FloatArray, from_sums


def from_sum(total: FloatArray, n: int, delta: float) -> FloatArray:
    """0 where the mean is at most delta, else 1."""
    return np.where(total / n <= delta, 0.0, 1.0)


P_VALUE = from_sums("naive", "none: believes the sample's mean", from_sum, valid=False)


def p_value(losses: ArrayLike, delta: float) -> float:
    """0 (accepted) or 1. Losses in [0, 1], Shape: [samples]."""
    return P_VALUE.p_value(losses, delta)
