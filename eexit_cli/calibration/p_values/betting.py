"""Betting against H: mean > delta (Waudby-Smith and Ramdas, arXiv:2010.09686).

A gambler starts with 1 and, before each loss, stakes a share nu of his wealth on its being below
delta: K_t = prod_{i<=t} (1 - nu_i (L_i - delta)). If H holds the wealth is a nonnegative
supermartingale, so by Ville's inequality P(max_t K_t >= 1/p) <= p, whatever the bets, as long as
nu_i lies in [0, 1/(1 - delta)) and is chosen from L_1..L_{i-1} alone.

The bets are a universal portfolio: the stake starts out divided among ``SHARES`` gamblers who
each bet a constant nu, and is never moved. Seen as one gambler, his bet is the mean of theirs
weighted by their wealth so far: predictable, and adapting to the variance of the losses, as the
paper's plug-in bets do. Unlike those, it makes the p-value monotone in every loss and in delta,
which a bound by inversion needs.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from eexit_cli.calibration.p_values.base import FloatArray, PValue

SHARES = 16
"""Constant-bet gamblers among whom the stake is divided."""

_WEALTH_CAP = 1e300
"""A capped supermartingale is still one; without the cap, long runs of zeros overflow."""

_BLOCK_ELEMENTS = 250_000
"""Numbers held at once: blocks of samples are as long as this allows, which keeps the work
vectorised, few columns or many, and within the processor's cache."""


def bets(delta: float) -> tuple[FloatArray, FloatArray]:
    """The gamblers' constant bets and their parts of the stake.

    A bet nu = (1 - r) / (1 - delta) is the one that wins fastest when losses are 0 or 1 and their
    mean is r delta. The r are the middles of ``SHARES`` equal parts of (0, 1), so nu stays below
    1/(1 - delta). Stakes go as 1/r: the largest bets win when the variance is small, and when it
    is not they are lost early, which costs only a constant factor.

    Returns:
        nu and stakes (which sum to 1). Shape: [SHARES] each.
    """
    ratio = (np.arange(SHARES) + 0.5) / SHARES
    stakes = 1.0 / ratio
    return (1.0 - ratio) / (1.0 - delta), stakes / stakes.sum()


def columns(losses: FloatArray, delta: float) -> FloatArray:
    """min(1, 1 / max_t K_t) per column, betting on the rows in order.

    Shape: [samples, ...] -> [...].
    """
    samples, shape = losses.shape[0], losses.shape[1:]
    flat = losses.reshape(samples, -1)
    nu, stakes = bets(delta)
    # Shape: [SHARES, columns]
    wealth = np.repeat(stakes[:, None], flat.shape[1], axis=1)
    largest = np.ones(flat.shape[1])
    block = max(1, _BLOCK_ELEMENTS // max(1, SHARES * flat.shape[1]))
    with np.errstate(over="ignore", under="ignore"):
        for start in range(0, samples, block):
            excess = flat[start : start + block] - delta
            # Shape: [block, SHARES, columns]
            path = 1.0 - nu[None, :, None] * excess[:, None, :]
            path[0] *= wealth
            np.cumprod(path, axis=0, out=path)
            largest = np.maximum(largest, path.sum(axis=1).max(axis=0))
            wealth = np.minimum(path[-1], _WEALTH_CAP)
        return (1.0 / np.minimum(largest, _WEALTH_CAP)).reshape(shape)


def all_zero(n: int, delta: float) -> float:
    """The p-value of n zeros: every gambler wins every time."""
    nu, stakes = bets(delta)
    log_wealth = np.log(stakes) + n * np.log1p(nu * delta)
    return float(np.exp(-np.logaddexp.reduce(log_wealth)))


P_VALUE = PValue(
    name="betting",
    promise="holds for every n and every distribution; sharpest for small variance",
    valid=True,
    columns=columns,
    all_zero=all_zero,
)


def p_value(losses: ArrayLike, delta: float) -> float:
    """p-value of H: mean > delta. Losses in [0, 1], in the order of the bets. Shape: [samples]."""
    return P_VALUE.p_value(losses, delta)
