"""The smaller of Hoeffding's (Chernoff-KL) and Bentkus' bound (arXiv:2101.02703, 2110.01052)."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import betaincc, rel_entr, xlog1py

from eexit_cli.calibration.p_values.base import FloatArray, from_sums

ROUNDING = 1e-9
"""Subtracted from a sum before its ceiling: without it, 0.1 + 0.2 + 0.7 would count as 2."""


def binomial_tail(total: FloatArray, n: int, delta: float) -> FloatArray:
    """P[Binomial(n, delta) <= ceil(total)], elementwise; ``total`` in [0, n].

    As the incomplete beta function, which takes n as a float: SciPy's ``bdtr`` counts in 32 bits.
    """
    successes = np.clip(np.ceil(total - ROUNDING), 0, n)
    failures = np.maximum(n - successes, 1.0)
    tail = betaincc(successes + 1.0, failures, delta)
    return np.asarray(np.where(successes == n, 1.0, tail), dtype=np.float64)


def from_sum(total: FloatArray, n: int, delta: float) -> FloatArray:
    """min(exp(-n h(min(mean, delta), delta)), e P[Binomial(n, delta) <= ceil(sum)], 1).

    h(a, b) = a ln(a/b) + (1-a) ln((1-a)/(1-b)), and h(0, b) = -ln(1-b).
    """
    mean = np.minimum(total / n, delta)
    # rel_entr(a, b) is a ln(a/b) with 0 ln 0 = 0. 1 - delta would round away a small delta, and n
    # may be large enough to show it.
    rest = xlog1py(1.0 - mean, -mean) - (1.0 - mean) * np.log1p(-delta)
    divergence = rel_entr(mean, delta) + rest
    hoeffding = np.exp(-n * divergence)
    bentkus = np.e * binomial_tail(total, n, delta)
    return np.minimum(1.0, np.minimum(hoeffding, bentkus))


P_VALUE = from_sums("hoeffding-bentkus", "holds for every n and every distribution", from_sum)


def p_value(losses: ArrayLike, delta: float) -> float:
    """p-value of H: mean > delta. Losses in [0, 1], Shape: [samples]."""
    return P_VALUE.p_value(losses, delta)
