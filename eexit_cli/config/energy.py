"""The option of commands that can measure joules."""

from __future__ import annotations

from dataclasses import dataclass

from eexit_cli.config.common import TimingConfig
from eexit_cli.config.field import RUN, opt


@dataclass(frozen=True, kw_only=True)
class EnergyConfig(TimingConfig):
    """How speed is measured, and whether joules are."""

    energy: bool = opt(
        False,
        "Measure joules too, of the samples timed one by one, where this machine has counters.",
        RUN,
    )
