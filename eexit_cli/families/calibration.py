"""The numbers that a calibration tries, whatever the family."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from eexit_cli.calibration.thresholds import check_grid
from eexit_cli.config.calibrate import CalibrateConfig
from eexit_cli.config.field import values_of
from eexit_cli.core.answers import Knob
from eexit_cli.core.criterion import Scale
from eexit_cli.core.errors import UsageError


def knob(
    config: CalibrateConfig,
    scale: Scale,
    settings: Callable[[float], dict[str, Any]],
    *,
    criterion: str,
    measure: str | None = None,
) -> Knob:
    """A knob at the user's own values, checked, or at those of the default grid.

    Args:
        scale: the range of the number.
        settings: the exit at a value.

    Raises:
        UsageError: values out of range or order, or without the full model.
    """
    asked = config.thresholds
    values = check_grid(asked, scale) if asked else scale.values
    return Knob(scale.knob, criterion, measure, values, tuple(map(settings, values)))


def measures_of(config: CalibrateConfig) -> tuple[str, ...]:
    """The measures that ``--confidence`` names; empty where it is left out."""
    return tuple(values_of(config, "confidence"))


def distinct(names: Sequence[str]) -> list[str]:
    """The names as they are.

    Raises:
        UsageError: one stands there twice, perhaps in another spelling.
    """
    for name in names:
        if names.count(name) > 1:
            raise UsageError(f"--confidence names '{name}' twice", hint="Give each measure once")
    return list(names)
