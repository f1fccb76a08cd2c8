"""The one stopwatch, with a model's device and a progress bar."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, TypeVar

import torch

from eexit_cli.metrics.latency import Seconds, time_in_turn

if TYPE_CHECKING:
    from eexit_cli.core.protocols import Progress

Item = TypeVar("Item")
Name = TypeVar("Name")

FULL = -1
"""The full model's name among ways that are named by their number."""


def time_ways(
    ways: Mapping[Name, Callable[[Item], object]],
    items: Sequence[Item],
    *,
    device: torch.device,
    repeats: int,
    progress: Progress,
    title: str,
) -> dict[Name, Seconds]:
    """:func:`~eexit_cli.metrics.latency.time_in_turn` on a model's device, under a bar.

    Returns:
        name -> seconds. Shape: [repeats, items].
    """
    drain = torch.cuda.synchronize if device.type == "cuda" else None
    with progress.task(title, total=repeats * len(items)) as ticker:
        return time_in_turn(ways, items, repeats=repeats, synchronize=drain, on_item=ticker.advance)
