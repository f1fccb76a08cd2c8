"""p-values along the sequence of thresholds, and where each test stopped."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from eexit_cli.plots.calibration_points import (
    EPSILON,
    MARKERS,
    by_measure,
    series_of,
    shown_p_values,
    suits_p_values,
    table,
)
from eexit_cli.plots.figure import FigureSpec, RunView

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from pandas import DataFrame

FLOOR = 1e-6
"""Smaller p-values are drawn here: they are all far below any epsilon."""


def frame(runs: Sequence[RunView]) -> DataFrame:
    """One row per line and threshold that was tested, in order from cautious to eager.

    Returns:
        ``series``, ``x`` (place in the sequence), ``y`` (p-value), ``name`` (the threshold),
        ``accepted`` (is this the line's accepted threshold?), ``failed`` (its first failure?),
        ``epsilon``.
    """
    runs = by_measure(runs)
    return table((row for run in runs for row in _points(run, len(runs) > 1)), ("x", "y"))


def _points(run: RunView, several: bool) -> Iterator[dict[str, Any]]:
    epsilon = float(run.metrics["epsilon"])
    for p_value in shown_p_values(run, several):
        if p_value == "naive":
            continue  # 0 or 1, which is no p-value to look at
        records = [
            record
            for record in run.records
            if record.get("kind") == "p-value" and record["p_value"] == p_value
        ]
        failures = [record["index"] for record in records if record["p"] > epsilon]
        stop = min(failures, default=None)
        # What never fails is accepted to its end.
        last = max((record["index"] for record in records), default=0)
        accepted = last if stop is None else stop - 1
        for record in records:
            threshold = record["threshold"]
            yield {
                "series": series_of(run, p_value, several),
                "x": record["index"],
                "y": record["p"],
                "name": _short(threshold),
                "accepted": record["index"] == accepted,
                "failed": record["index"] == stop,
                "epsilon": epsilon,
            }


def _short(threshold: float | str) -> str:
    """A threshold below a tick: two digits, or as much of a name as is needed to tell it."""
    if not isinstance(threshold, str):
        return f"{threshold:.2g}"
    return threshold if len(threshold) <= 9 else f"{threshold[:8]}…"


def draw(frame: DataFrame, ax: Axes) -> None:
    """A line per p-value on a log scale, epsilon, a ring at what was accepted, a cross where it
    stopped; what lies behind the cross was never asked and is pale."""
    ax.axhline(frame["epsilon"].iloc[0], label="ε", **EPSILON)
    for number, (series, rows) in enumerate(frame.groupby("series", sort=False)):
        color, marker = f"C{number}", MARKERS[number % len(MARKERS)]
        y = rows["y"].clip(lower=FLOOR)
        stops = rows.index[rows["failed"]]
        asked = rows.index <= stops[0] if len(stops) else rows.index == rows.index
        ax.plot(rows["x"], y, color=color, linewidth=0.7, alpha=0.35)
        ax.plot(
            rows["x"][asked], y[asked], color=color, marker=marker, markersize=2.5,
            label=str(series),
        )  # fmt: skip
        for kept, mark, size in (("accepted", "o", 7), ("failed", "x", 6)):
            place = rows[kept].to_numpy(dtype=bool)
            ax.plot(
                rows["x"][place], y[place], linestyle="none", marker=mark, markersize=size,
                markerfacecolor="none", markeredgecolor=color, markeredgewidth=1.2,
            )  # fmt: skip
    for kept, mark, words in (("accepted", "o", "accepted"), ("failed", "x", "first failure")):
        if not frame[kept].any():
            continue
        ax.plot(
            [], [], linestyle="none", marker=mark, markersize=5, markerfacecolor="none",
            markeredgecolor="0.3", label=words,
        )  # fmt: skip
    ax.set_yscale("log")
    ax.set_yticks([FLOOR, 1e-4, 1e-2, 1], ["10⁻⁶", "10⁻⁴", "0.01", "1"])
    ax.set_yticks([], minor=True)
    ax.set_ylim(FLOOR / 1.8, 2.5)
    # Said here: a wide tick pushes the label to the panel on the left.
    ax.set_ylabel("max(p-value, 10⁻⁶)")
    alike = bool((frame.groupby("x")["name"].nunique() == 1).all())
    # Measures with thresholds of their own have only the place in the sequence in common.
    said = frame["name"] if alike else frame["x"].map("{:.0f}".format)
    names = dict(zip(frame["x"], said, strict=True))
    last = _last_shown(frame)
    # Before the first p-value that can be told from 0 there is nothing to see.
    first = max(min(names), float(frame["x"][frame["y"] > FLOOR].min()) - 2)
    ax.set_xlim(first - 0.5, last + 0.5)
    shown = [place for place in sorted(names) if first <= place <= last]
    shown = shown[:: max(1, math.ceil(len(shown) / _room(ax, list(names.values()))))]
    ax.set_xticks(shown, [names[place] for place in shown])
    # Which threshold it is stands at the other figures; a narrow panel has no room for it.
    ax.set_xlabel(f"Threshold{'' if alike else ' no.'} (→\N{NO-BREAK SPACE}eager)")


def _room(ax: Axes, names: Sequence[str]) -> int:
    """How many names fit below the axes, in letters of 7 points."""
    inches = ax.bbox.width / ax.figure.dpi * 0.9
    return max(2, int(inches / (0.058 * max(map(len, names)) + 0.08)))


def _last_shown(frame: DataFrame) -> float:
    """A little behind the last stop: further p-values are all 1. Who never stops is shown whole."""
    end = float(frame["x"].max())
    if not frame.groupby("series")["failed"].any().all():
        return end
    return min(end, float(frame["x"][frame["failed"]].max()) + 2)


FIGURE = FigureSpec(
    name="calibration-p-values",
    summary="p-values along the sequence of thresholds, and where each test stopped",
    commands=("calibrate",),
    needs="a calibration",
    make="eexit calibrate --delta 0.1",
    suits=suits_p_values,
    frame=frame,
    draw=draw,
    panel_height=2.2,
    columns=1,
)
