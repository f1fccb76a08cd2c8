"""The normal approximation: right for large n only, so a comparison and not a guarantee."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import ndtr

from eexit_cli.calibration.p_values.base import FloatArray, PValue


def columns(losses: FloatArray, delta: float) -> FloatArray:
    """Phi((mean - delta) sqrt(n) / s), s the sample's standard deviation (n - 1 below).

    With one sample s is unknown and nothing is rejected; with s = 0 the approximation is a point
    mass, which is how it goes wrong on samples that happen to be constant.

    Shape: [samples, ...] -> [...].
    """
    n = losses.shape[0]
    mean = losses.mean(axis=0)
    if n == 1:
        return np.ones_like(mean)
    error = losses.std(axis=0, ddof=1) / np.sqrt(n)
    constant = error == 0
    score = (mean - delta) / np.where(constant, 1.0, error)
    return np.where(constant, np.where(mean < delta, 0.0, 1.0), ndtr(score))


def all_zero(n: int, delta: float) -> float:
    return 1.0 if n == 1 else 0.0


P_VALUE = PValue(
    name="clt",
    promise="approximate: no guarantee at finite n",
    valid=False,
    columns=columns,
    all_zero=all_zero,
)


def p_value(losses: ArrayLike, delta: float) -> float:
    """Approximate p-value of H: mean > delta. Losses in [0, 1], Shape: [samples]."""
    return P_VALUE.p_value(losses, delta)
