"""The one stopwatch, and the one meter, with a model's device and a progress bar."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

import torch

from eexit_cli.core.errors import UsageError
from eexit_cli.metrics.counters import GPU, Meter, open_meter
from eexit_cli.metrics.energy import Energies, joules_in_turn
from eexit_cli.metrics.latency import Seconds, time_in_turn

if TYPE_CHECKING:
    from eexit_cli.config.energy import EnergyConfig
    from eexit_cli.core.family import Model
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
    drain = _drain(device)
    with progress.task(title, total=repeats * len(items)) as ticker:
        return time_in_turn(ways, items, repeats=repeats, synchronize=drain, on_item=ticker.advance)


def measure_ways(
    ways: Mapping[Name, Callable[[Item], object]],
    items: Sequence[Item],
    meter: Meter,
    *,
    device: torch.device,
    repeats: int,
    progress: Progress,
) -> Energies | None:
    """:func:`~eexit_cli.metrics.energy.joules_in_turn` on a model's device, under a bar.

    Returns:
        None where nothing can be measured; the meter says why.
    """
    if not meter.counters:
        return None
    with progress.task("Measuring energy", total=repeats * len(ways)) as ticker:
        return joules_in_turn(
            ways,
            items,
            meter,
            repeats=repeats,
            synchronize=_drain(device),
            on_pass=ticker.advance,
        )


def meter_of(device: torch.device) -> Meter:
    """The counters of this machine's processors, and of the GPU that a model is on."""
    if device.type == "cpu":
        return open_meter()
    if device.type == "cuda" and torch.version.hip is None:
        # torch sees the GPUs that CUDA_VISIBLE_DEVICES shows, in its order; the driver all of them.
        uuid = str(torch.cuda.get_device_properties(device).uuid)
        return open_meter(f"GPU-{uuid.removeprefix('GPU-')}")
    meter = open_meter()
    meter.lacking[GPU] = f"no counter of a device '{device.type}' is known but NVIDIA's"
    return meter


def _drain(device: torch.device) -> Callable[[], None] | None:
    return torch.cuda.synchronize if device.type == "cuda" else None


def check_energy(config: EnergyConfig) -> None:
    """Joules are of the samples that are timed one by one.

    Raises:
        UsageError: there is none.
    """
    if config.energy and config.latency_samples <= 0:
        raise UsageError(
            "--energy measures the samples that are timed, and --latency-samples 0 times none",
            hint="Give --latency-samples at least 1, or drop --energy",
        )


def meter_for(config: EnergyConfig, model: Model, progress: Progress) -> Meter | None:
    """The counters that joules are read from, None unless asked for; tells at once which part of
    the machine cannot be measured, and why."""
    if not config.energy:
        return None
    meter = meter_of(model.device)
    for part, why in meter.lacking.items():
        progress.message(f"Energy of the {part} is not measured: {why}")
    return meter


def energy_report(meter: Meter | None) -> dict[str, Any]:
    """What a document's report says of the counters; nothing unless they were asked for."""
    return {} if meter is None else {"energy": meter.told()}
