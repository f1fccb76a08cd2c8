"""Testing many thresholds at once while the probability of any wrong rejection stays <= epsilon.

A procedure gets the p-values in order from cautious to eager and says which it rejects. Any
threshold among the rejected may then be used, whatever makes one choose it; here the most eager.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from eexit_cli.core.errors import UsageError

BoolArray = NDArray[np.bool_]

Reject = Callable[[NDArray[np.float64], float, int], BoolArray]
"""(p-values, epsilon, starting points) -> which are rejected, all of one length."""


@dataclass(frozen=True)
class Procedure:
    """A way to test many hypotheses at a familywise error rate of epsilon.

    Attributes:
        name: the catalog's name.
        rule: see :data:`Reject`.
        sequential: looks at p-values in order and stops at a failure, so thresholds after it need
            not be run.
        starts: uses the number of starting points.
    """

    name: str
    rule: Reject
    sequential: bool = False
    starts: bool = False

    def reject(self, p_values: ArrayLike, epsilon: float, *, starts: int = 1) -> BoolArray:
        """Which hypotheses are rejected. Shape: [thresholds], cautious to eager.

        Raises:
            UsageError: epsilon outside (0, 1), or fewer than 1 starting point.
        """
        values = np.asarray(p_values, dtype=np.float64)
        if not 0 < epsilon < 1:
            raise UsageError(f"epsilon {epsilon} is outside (0, 1)", hint="Give --epsilon 0.05")
        if starts < 1:
            raise UsageError(f"{starts} starting points", hint="Give --starts 1 or more")
        return self.rule(values, epsilon, starts)

    def level(self, epsilon: float, count: int, *, starts: int = 1) -> float:
        """The level that a first rejection needs among ``count`` hypotheses."""
        if self.sequential:
            return epsilon / min(starts, count) if self.starts else epsilon
        return epsilon / count


def last_rejected(rejected: BoolArray) -> int | None:
    """Index of the most eager rejected threshold; None when there is none."""
    indices = np.flatnonzero(rejected)
    return int(indices[-1]) if indices.size else None


def _fixed_sequence(p_values: NDArray[np.float64], epsilon: float, starts: int) -> BoolArray:
    """Go on while p <= epsilon; the first failure ends it."""
    return np.logical_and.accumulate(p_values <= epsilon)


def starting_points(count: int, starts: int) -> list[int]:
    """``starts`` equally spaced indices below ``count``, the first 0; at most ``count`` of them."""
    starts = min(starts, count)
    step = count // starts if starts else 0
    return [index * step for index in range(starts)]


def _fixed_sequence_starts(p_values: NDArray[np.float64], epsilon: float, starts: int) -> BoolArray:
    """A fixed sequence from each starting point at epsilon / starts; the union of their answers."""
    rejected = np.zeros(p_values.shape, dtype=bool)
    points = starting_points(len(p_values), starts)
    for point in points:
        passed = np.logical_and.accumulate(p_values[point:] <= epsilon / len(points))
        rejected[point:] |= passed
    return rejected


def _bonferroni(p_values: NDArray[np.float64], epsilon: float, starts: int) -> BoolArray:
    """p <= epsilon / m, each on its own."""
    return p_values <= epsilon / len(p_values)


def _holm(p_values: NDArray[np.float64], epsilon: float, starts: int) -> BoolArray:
    """Smallest first: the k-th smallest (from 0) at epsilon / (m - k), until one fails."""
    order = np.argsort(p_values, kind="stable")
    levels = epsilon / (len(p_values) - np.arange(len(p_values)))
    passed = np.logical_and.accumulate(p_values[order] <= levels)
    rejected = np.zeros(p_values.shape, dtype=bool)
    rejected[order] = passed
    return rejected


FIXED_SEQUENCE = Procedure("fixed-sequence", _fixed_sequence, sequential=True)
FIXED_SEQUENCE_STARTS = Procedure(
    "fixed-sequence-starts", _fixed_sequence_starts, sequential=True, starts=True
)
BONFERRONI = Procedure("bonferroni", _bonferroni)
HOLM = Procedure("holm", _holm)
