"""Joules, where a command is asked for them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from eexit_cli.core.errors import UsageError
from eexit_cli.families.stopwatch import meter_of

if TYPE_CHECKING:
    from eexit_cli.config.energy import EnergyConfig
    from eexit_cli.core.family import Model
    from eexit_cli.core.protocols import Progress
    from eexit_cli.metrics.counters import Meter


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
