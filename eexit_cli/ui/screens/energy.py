"""Measured energy as people read it, and why there is none."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.markup import escape

from eexit_cli.core.digits import fixed_down, fixed_up
from eexit_cli.ui.measures import joule_digits, written
from eexit_cli.ui.output import Output

RATIOS = ("joules_share", "joules_growth")
SPREAD = ("joules_per_sample", "joules_per_token", *RATIOS)
"""Figures with an interval over repeats."""

PARTS = tuple(f"{part}_joules_per_sample" for part in ("processor", "memory", "gpu"))

PAIRED = (
    *("joules_per_sample", "joules_per_sample_full", "joules_share"),
    *("joules_per_token", *PARTS),
)
"""What an attack has before and after."""

SINGLE = (*PAIRED, "joules_per_token_full", "joules_growth", "idle_watts")

ENERGY = {*SINGLE, *(f"{name}_{end}" for name in SPREAD for end in ("low", "high"))}
"""What ``--energy`` adds to a row of an evaluation."""


def has_energy(figures: Mapping[str, Any], when: str = "") -> bool:
    """Were joules measured?"""
    return figures.get(f"joules_per_sample{when}") is not None


def ends_in_words(name: str, figures: Mapping[str, Any], when: str) -> str:
    """ " [8.10, 8.40]", in the digits of the figure itself and rounded outwards; empty without."""
    value, low, high = (figures.get(f"{name}{end}{when}") for end in ("", "_low", "_high"))
    if value is None or low is None or high is None:
        return ""
    scale, places = (100, 1) if name == "joules_share" else (1, 2)
    if name not in RATIOS:
        scale, places, _ = joule_digits(value)
    # Rounded first, so that 1.2 is not taken for a little less.
    low, high = (round(scale * end, places + 4) for end in (low, high))
    return f" [{fixed_down(low, places)}, {fixed_up(high, places)}]"


def say_energy(output: Output, document: Mapping[str, Any]) -> None:
    """What was measured and how, and what was not and why; nothing unless it was asked for."""
    told = (document.get("report") or {}).get("energy")
    if told is None:
        return
    metrics, lines = document["metrics"], []
    if told["counters"]:
        lines.append(
            f"Energy: joules above idle ({written('idle_watts', metrics.get('idle_watts'))}, "
            f"measured for {told['idle_seconds']:g} s), counted by {', '.join(told['counters'])}, "
            f"in turns of at least {told['least_seconds']:g} s; in brackets the interval over "
            "repeats. Other processes on this machine count too."
        )
    lines += [f"Energy of the {part}: not measured, {why}" for part, why in told["lacking"].items()]
    for line in lines:
        output.say(f"[dim]{escape(line)}[/]")
