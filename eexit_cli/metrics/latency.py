"""Wall-clock time, measured so that two ways of running can be compared on a noisy machine.

The ways take turns sample by sample, so drift in the machine's speed hits both alike; on a GPU
the queue is drained before each reading.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import TypeVar

import numpy as np

Item = TypeVar("Item")


def time_in_turn(
    ways: Mapping[str, Callable[[Item], object]],
    items: Sequence[Item],
    *,
    warm_up: int = 3,
    repeats: int = 1,
    synchronize: Callable[[], None] | None = None,
    on_item: Callable[[], None] | None = None,
) -> dict[str, np.ndarray]:
    """Seconds per item for each way.

    Args:
        ways: name -> function of one item.
        items: what each way is run on (samples, or batches).
        warm_up: items run first without counting.
        repeats: the smallest of so many readings counts, per item and way.
        synchronize: drains the device's queue (``torch.cuda.synchronize``); None on a CPU.
        on_item: called after each item, for a progress bar.

    Returns:
        name -> seconds per item, Shape: [items].
    """
    drain = synchronize or (lambda: None)
    for item in items[:warm_up]:
        for way in ways.values():
            way(item)
    drain()
    seconds = {name: np.full(len(items), np.inf) for name in ways}
    for index, item in enumerate(items):
        # Who goes first changes from item to item: the second finds warmer caches.
        names = list(ways) if index % 2 == 0 else list(reversed(list(ways)))
        for _ in range(repeats):
            for name in names:
                start = time.perf_counter()
                ways[name](item)
                drain()
                seconds[name][index] = min(seconds[name][index], time.perf_counter() - start)
        if on_item is not None:
            on_item()
    return seconds
