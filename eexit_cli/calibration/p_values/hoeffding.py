"""Hoeffding's inequality (1963); what CALM (arXiv:2207.07061) uses."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from eexit_cli.calibration.p_values.base import FloatArray, from_sums


def from_sum(total: FloatArray, n: int, delta: float) -> FloatArray:
    """exp(-2 n (delta - mean)_+^2), elementwise."""
    below = np.maximum(delta - total / n, 0.0)
    return np.exp(-2.0 * n * below**2)


P_VALUE = from_sums("hoeffding", "holds for every n and every distribution", from_sum)


def p_value(losses: ArrayLike, delta: float) -> float:
    """p-value of H: mean > delta. Losses in [0, 1], Shape: [samples]."""
    return P_VALUE.p_value(losses, delta)
