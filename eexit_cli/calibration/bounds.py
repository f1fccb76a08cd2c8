"""What a p-value implies: an upper confidence bound, and the samples that a claim needs."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import ArrayLike, NDArray

from eexit_cli.calibration.losses import check_delta
from eexit_cli.calibration.p_values.base import PValue

_BISECTIONS = 40
_MOST_SAMPLES = 10**12


def upper_bound(p_value: PValue, losses: ArrayLike, epsilon: float) -> float:
    """The smallest delta that is rejected at level epsilon: the mean is below it with
    probability at least 1 - epsilon (for valid p-values).

    Found by bisection, since every p-value here falls as delta rises, and rounded outwards (to
    1e-12). 1 when nothing below 1 is rejected.

    Args:
        losses: in [0, 1]. Shape: [samples].
        epsilon: in (0, 1).
    """
    check_delta(epsilon, "epsilon")
    vector = np.asarray(losses, dtype=np.float64)
    p_value.p_value(vector, 0.5)
    column = vector[:, None]
    low, high = 0.0, 1.0
    for _ in range(_BISECTIONS):
        middle = (low + high) / 2
        if float(p_value.columns(column, middle)[0]) <= epsilon:
            high = middle
        else:
            low = middle
    return high


def samples_needed(p_value: PValue, delta: float, epsilon: float) -> int | None:
    """The n below which nothing can be rejected, even if every loss were 0.

    For Hoeffding that is the smallest n with delta >= sqrt(ln(1/epsilon) / (2n)).

    Returns:
        None when even 10^12 samples would not do.
    """
    check_delta(delta)
    check_delta(epsilon, "epsilon")
    return _smallest(lambda n: p_value.all_zero(n, delta) <= epsilon)


def samples_needed_at(
    p_value: PValue, losses: NDArray[np.float64], delta: float, epsilon: float, *, most: int = 10**6
) -> int | None:
    """About how many samples like these would be needed to reject H: mean > delta.

    An extrapolation, not a promise: the given losses, repeated. None when the mean is not below
    delta, or when ``most`` samples would not do.

    Args:
        losses: Shape: [samples].
    """
    if losses.mean() >= delta:
        return None

    def enough(n: int) -> bool:
        # np.resize repeats the losses in their order up to n.
        return float(p_value.columns(np.resize(losses, n)[:, None], delta)[0]) <= epsilon

    return _smallest(enough, most=most)


def _smallest(enough: Callable[[int], bool], *, most: int = _MOST_SAMPLES) -> int | None:
    """Smallest n with ``enough(n)``, by doubling and bisection."""
    high = 1
    while not enough(high):
        if high >= most:
            return None
        high = min(2 * high, most)
    low = high // 2
    while high - low > 1:
        middle = (low + high) // 2
        if enough(middle):
            high = middle
        else:
            low = middle
    return high
