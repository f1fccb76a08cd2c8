"""How sure a table's figures are: bootstrap intervals, paired tests, Holm's correction.

Samples are resampled whole, so before and after, or two attacks on the same samples, stay paired.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from eexit_cli.core.seed import derive_seed

LEVEL = 0.95
RESAMPLES = 2000
FLIPS = 20_000
"""Random sign flips where the differences are no whole numbers."""

Statistic = Callable[..., NDArray[np.float64]]
"""Columns, each of Shape: [resamples, samples], to one value per resample. Shape: [resamples]."""


def bootstrap_interval(
    statistic: Statistic,
    *columns: ArrayLike,
    seed: int,
    level: float = LEVEL,
    resamples: int = RESAMPLES,
) -> tuple[float, float] | None:
    """Percentile bootstrap interval of a statistic of paired columns (Efron, 1979).

    Args:
        statistic: works on resampled columns at once, along the last axis.
        columns: one value per sample each, in the same order. Shape: [samples].
        seed: the same one gives the same interval.
        level: of confidence, in (0, 1).
        resamples: how many times the samples are drawn anew.

    Returns:
        Lower and upper end; None where there is no sample, or the statistic is undefined (NaN) for
        every draw. Draws for which it is undefined are left out.
    """
    data = [np.asarray(column, dtype=np.float64) for column in columns]
    count = len(data[0])
    if not count:
        return None
    rng = np.random.default_rng(derive_seed(seed, "bootstrap"))
    # Shape: [resamples, samples]
    rows = rng.integers(0, count, (resamples, count))
    values = statistic(*(column[rows] for column in data))
    values = values[np.isfinite(values)]
    if not len(values):
        return None
    low, high = np.quantile(values, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def sign_flip_test(differences: ArrayLike, *, seed: int) -> float:
    """Two-sided p-value of "these paired differences have no direction".

    The permutation test of Fisher and Pitman: under the hypothesis each difference could as well
    have had the other sign, and the p-value is the share of all sign patterns whose sum is at
    least as far from 0. Whole numbers (exit layers) are counted exactly, by convolution; for
    others random patterns are drawn, and the observed one counts as one of them.

    Args:
        differences: one per sample. Shape: [samples].
        seed: of the random patterns.

    Returns:
        In (0, 1]; 1 where no difference differs from 0.
    """
    values = np.asarray(differences, dtype=np.float64)
    values = values[values != 0]
    if not len(values):
        return 1.0
    if np.array_equal(values, np.round(values)):
        return _exact(np.abs(values).astype(np.int64), abs(int(values.sum())))
    rng = np.random.default_rng(derive_seed(seed, "sign flips"))
    # In parts, so that thousands of samples need no gigabyte.
    observed, extreme = abs(values.sum()), 0
    step = max(1, 2_000_000 // len(values))
    for start in range(0, FLIPS, step):
        signs = rng.choice((-1.0, 1.0), (min(step, FLIPS - start), len(values)))
        extreme += int((np.abs(signs @ values) >= observed * (1 - 1e-12)).sum())
    return (1 + extreme) / (1 + FLIPS)


def _exact(sizes: NDArray[np.int64], observed: int) -> float:
    """Share of sign patterns with \\|sum\\| >= observed, from the distribution of the sum."""
    total = int(sizes.sum())
    # Entry i is the probability that the sum so far is i - total.
    chance = np.zeros(2 * total + 1)
    chance[total] = 1.0
    for size in sizes:
        # np.roll wraps nothing around: no sum so far lies within size of an end.
        chance = (np.roll(chance, size) + np.roll(chance, -size)) / 2
    sums = np.abs(np.arange(-total, total + 1))
    return float(min(1.0, chance[sums >= observed].sum()))


def holm(p_values: Sequence[float]) -> list[float]:
    """p-values corrected for having asked several questions (Holm, 1979).

    Args:
        p_values: of all tests.

    Returns:
        In the same order, each at least as large: rejecting those up to alpha keeps the chance of
        any false rejection at alpha.
    """
    count = len(p_values)
    corrected = [0.0] * count
    highest = 0.0
    for rank, index in enumerate(sorted(range(count), key=lambda i: p_values[i])):
        highest = max(highest, min(1.0, (count - rank) * p_values[index]))
        corrected[index] = highest
    return corrected
