"""Measured speed as people read it: a median with its interval, and no verdict finer than that."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from eexit_cli.ui.measures import label, written
from eexit_cli.ui.screens.energy import SPREAD, ends_in_words

Figures = Mapping[str, Any]

SPEEDUPS = ("speedup_seconds", "speedup_throughput")

_MOST_NAMED = 5

TIMED = {
    *("latency_ms", "latency_full_ms", "throughput", "throughput_full", *SPEEDUPS),
    *("tokens_per_second_single", "tokens_per_second_single_full"),
    *("latency_samples", "throughput_samples", "timing_repeats", "batch_size"),
    *(f"{name}_{end}" for name in SPEEDUPS for end in ("low", "high")),
}
"""What a timing adds to a row."""


def with_spread(name: str, figures: Figures, when: str = "") -> str:
    """A speedup as "1.56x [1.40, 1.70]", joules likewise; else, or without an interval, the figure
    alone.

    Args:
        name: of the figure.
        figures: a row, or the metrics.
        when: ``_before``, ``_after`` or nothing, which ends the names.
    """
    words = written(name, figures.get(f"{name}{when}"))
    if name in SPREAD:
        return words + ends_in_words(name, figures, when)
    ends = _interval(name, figures, when) if name in SPEEDUPS else None
    return words if ends is None else f"{words} [{ends[0]:.2f}, {ends[1]:.2f}]"


def _interval(name: str, figures: Figures, when: str) -> tuple[float, float] | None:
    """As it is printed: rounded outwards."""
    low, high = (figures.get(f"{name}_{end}{when}") for end in ("low", "high"))
    if low is None or high is None:
        return None
    # Rounded first, so that 1.2 is not taken for a little less.
    return math.floor(round(100 * low, 6)) / 100, math.ceil(round(100 * high, 6)) / 100


def is_none(name: str, figures: Figures, when: str = "") -> bool:
    """Was no difference to the full model measured: is 1 within the interval?"""
    ends = _interval(name, figures, when)
    return ends is not None and ends[0] <= 1 <= ends[1]


def speed_words(
    figures: Figures, alike: Sequence[str] = (), *, names: Sequence[str] = SPEEDUPS
) -> str:
    """What the intervals are, and where no difference was measured; empty without a speedup.

    Args:
        figures: one timing's; all rows of a document are timed alike.
        alike: what showed no difference; by default those of ``names`` without ``when``.
        names: the speedups that are shown.
    """
    shown = [name for name in figures if name.startswith(tuple(names))]
    if not any(figures[name] is not None for name in shown):
        return ""
    repeats = figures.get("timing_repeats")
    if repeats is None:
        return "Speed was timed once and has no interval."
    what = f"Speed: median of {repeats:g} repeats on {figures['latency_samples']:g} samples"
    if "speedup_throughput" in names and "throughput_samples" in figures:
        what += f" one by one, {figures['throughput_samples']:g} in batches"
    what += ", in turn with the full model; in brackets the interval over repeats."
    same = list(alike) or [label(name) for name in names if is_none(name, figures)]
    if len(same) > _MOST_NAMED:
        what += f" No difference to the full model was measured for {len(same)} settings."
    elif same:
        what += f" No difference to the full model was measured: {'; '.join(same)}."
    return what
