"""Wall-clock time, measured so that ways of running can be compared on a noisy machine.

One stopwatch for every report. All ways run on the same items, in turn and several times over; a
speedup is a ratio within one repeat, whose ways met the machine in the same state, and what is
reported is the median of those ratios with an interval. A machine that gets slower slows all ways
down alike, and one slow repeat does not move the median. On a GPU the queue is drained before each
reading.

The interval is of the median over repeats, from their order alone: it reaches from the k-th
smallest to the k-th largest of R repeats, which hold the median with probability
1 - 2 P(Binomial(R, 1/2) < k) whatever the distribution, if repeats are independent (the sign
test's interval; Conover, 1999). k is the largest with at least 90 %: of 5 repeats the smallest and
the largest (94 %), of 8 the second ones (93 %). It says how far the figure moves when these items
are timed again, not how far it would move with other items.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

Item = TypeVar("Item")
Name = TypeVar("Name")
Seconds = NDArray[np.float64]
"""Of one way. Shape: [repeats, items]."""

NOT_TIMED = "Speed is not measured (--latency-samples 0)"
LEVEL = 0.9
LEAST_REPEATS = 5
"""Fewer have no interval at this level."""


def time_in_turn(
    ways: Mapping[Name, Callable[[Item], object]],
    items: Sequence[Item],
    *,
    repeats: int = LEAST_REPEATS,
    warm_up: int = 3,
    synchronize: Callable[[], None] | None = None,
    on_item: Callable[[], None] | None = None,
    clock: Callable[[], float] = time.perf_counter,
) -> dict[Name, Seconds]:
    """Seconds of each way on each item, several times over.

    Item by item all ways take their turn. Each second pass runs them in the opposite order of the
    one before, so that a steady drift of the machine's speed takes as much from one as from the
    other, and every two passes another way comes first.

    Args:
        ways: name -> function of one item.
        items: what each way is run on (samples, or batches).
        repeats: passes over all items.
        warm_up: items run first without counting.
        synchronize: drains the device's queue (``torch.cuda.synchronize``); None on a CPU.
        on_item: called after each item of each repeat, for a progress bar.
        clock: what is read.

    Returns:
        name -> seconds. Shape: [repeats, items].

    Raises:
        ValueError: fewer repeats than an interval needs.
    """
    if repeats < LEAST_REPEATS:
        raise ValueError(f"{repeats} repeats; an interval needs at least {LEAST_REPEATS}")
    drain = synchronize or (lambda: None)
    for item in items[:warm_up]:
        for way in ways.values():
            way(item)
    drain()
    names = list(ways)
    seconds = {name: np.zeros((repeats, len(items))) for name in names}
    for repeat in range(repeats):
        for index, item in enumerate(items):
            for name in order_of_turn(names, repeat * len(items) + index):
                start = clock()
                ways[name](item)
                drain()
                seconds[name][repeat, index] = clock() - start
            if on_item is not None:
                on_item()
    return seconds


def order_of_turn(names: Sequence[Name], turn: int) -> list[Name]:
    """Each second turn has the opposite order of the one before, every two another comes first."""
    pair, back = divmod(turn, 2)
    first = pair % len(names)
    order = [*names[first:], *names[:first]]
    return order[::-1] if back else order


@dataclass(frozen=True)
class Spread:
    """The median over repeats and its interval."""

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, values: ArrayLike) -> Spread:
        """Of one value per repeat. Shape: [repeats]."""
        ordered = np.sort(np.asarray(values, dtype=np.float64))
        cut = _cut(len(ordered))
        return cls(float(np.median(ordered)), float(ordered[cut]), float(ordered[-1 - cut]))

    def named(self, name: str, suffix: str = "") -> dict[str, float]:
        """``<name>``, ``<name>_low`` and ``<name>_high``, each with the suffix behind it."""
        return {
            f"{name}{suffix}": self.median,
            f"{name}_low{suffix}": self.low,
            f"{name}_high{suffix}": self.high,
        }


def _cut(repeats: int) -> int:
    """Values left out at either end: the most that leaves the interval its level."""
    tail, cut = 0.5**repeats, 0
    while 1 - 2 * (more := tail + math.comb(repeats, cut + 1) * 0.5**repeats) >= LEVEL:
        tail, cut = more, cut + 1
    return cut


def speedup(full: Seconds, live: Seconds) -> Spread:
    """How many times as long the full model takes, from each repeat's own ratio."""
    return Spread.of(full.sum(axis=1) / live.sum(axis=1))


def speed_figures(full: Seconds, live: Seconds, suffix: str = "") -> dict[str, float]:
    """Latency and speedup of items that are single samples.

    Returns:
        ``latency_ms`` and ``latency_full_ms`` (medians over repeats of the mean over items), and
        ``speedup_seconds`` with ``_low`` and ``_high``.
    """
    return {
        f"latency_ms{suffix}": 1000 * float(np.median(live.mean(axis=1))),
        f"latency_full_ms{suffix}": 1000 * float(np.median(full.mean(axis=1))),
        **speedup(full, live).named("speedup_seconds", suffix),
    }


def throughput_figures(full: Seconds, live: Seconds, inputs: int) -> dict[str, float]:
    """Inputs per second and speedup of items that are batches.

    Args:
        inputs: in all items together.

    Returns:
        ``throughput`` and ``throughput_full`` (inputs per second, medians over repeats), and
        ``speedup_throughput`` with ``_low`` and ``_high``.
    """
    return {
        "throughput": float(np.median(inputs / live.sum(axis=1))),
        "throughput_full": float(np.median(inputs / full.sum(axis=1))),
        **speedup(full, live).named("speedup_throughput"),
    }
