"""The exact binomial tail, for losses that are 0 or 1."""

from __future__ import annotations

from numpy.typing import ArrayLike

from eexit_cli.calibration.p_values.base import from_sums
from eexit_cli.calibration.p_values.hoeffding_bentkus import binomial_tail

P_VALUE = from_sums(
    "binomial", "holds for every n; exact for 0-1 losses", binomial_tail, binary_only=True
)


def p_value(losses: ArrayLike, delta: float) -> float:
    """P[Binomial(n, delta) <= number of ones]. Losses 0 or 1, Shape: [samples].

    Raises:
        UsageError: a loss that is neither.
    """
    return P_VALUE.p_value(losses, delta)
