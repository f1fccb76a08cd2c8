"""The smaller of Hoeffding's (Chernoff-KL) and Bentkus' bound (arXiv:2101.02703, 2110.01052)."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import bdtr, rel_entr

from eexit_cli.calibration.p_values.base import FloatArray, from_sums

ROUNDING = 1e-9
"""Subtracted from a sum before its ceiling: without it, 0.1 + 0.2 + 0.7 would count as 2."""


def binomial_tail(total: FloatArray, n: int, delta: float) -> FloatArray:
    """P[Binomial(n, delta) <= ceil(total)], elementwise; ``total`` in [0, n]."""
    successes = np.clip(np.ceil(total - ROUNDING), 0, n)
    return np.asarray(bdtr(successes, n, delta), dtype=np.float64)


def from_sum(total: FloatArray, n: int, delta: float) -> FloatArray:
    """min(exp(-n h(min(mean, delta), delta)), e P[Binomial(n, delta) <= ceil(sum)], 1).

    h(a, b) = a ln(a/b) + (1-a) ln((1-a)/(1-b)), and h(0, b) = -ln(1-b).
    """
    mean = np.minimum(total / n, delta)
    # rel_entr(a, b) is a ln(a/b) with 0 ln 0 = 0.
    divergence = rel_entr(mean, delta) + rel_entr(1.0 - mean, 1.0 - delta)
    hoeffding = np.exp(-n * divergence)
    bentkus = np.e * binomial_tail(total, n, delta)
    return np.minimum(1.0, np.minimum(hoeffding, bentkus))


P_VALUE = from_sums("hoeffding-bentkus", "holds for every n and every distribution", from_sum)


def p_value(losses: ArrayLike, delta: float) -> float:
    """p-value of H: mean > delta. Losses in [0, 1], Shape: [samples]."""
    return P_VALUE.p_value(losses, delta)
