"""The threshold that a tolerated risk leads to."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from eexit_cli.plots.calibration_points import (
    by_measure,
    draw_lines,
    log_delta_axis,
    suits,
    sweep_points,
    table,
)
from eexit_cli.plots.figure import FigureSpec, RunView

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from pandas import DataFrame


def suits_threshold(run: RunView) -> bool:
    """Calibrations whose thresholds are numbers."""
    return suits(run) and any(
        record.get("kind") == "sweep" and isinstance(record.get("threshold"), (int, float))
        for record in run.records
    )


def frame(runs: Sequence[RunView]) -> DataFrame:
    """One row per line and delta.

    Returns:
        ``series``, ``weaker``, ``x`` (delta), ``y`` (accepted threshold), ``low`` and ``high``
        (NaN), ``knob`` (what the threshold is called).
    """
    made = table(sweep_points(runs, "threshold", tested=False))
    knobs = {_knob(run) for run in by_measure(runs)}
    made["knob"] = knobs.pop() if len(knobs) == 1 else "threshold"
    return made


def _knob(run: RunView) -> str:
    if run.config.get("criterion") == "patience":
        return "patience"
    measure = run.config.get("confidence")
    return f"{measure} threshold" if measure else "threshold"


def draw(frame: DataFrame, ax: Axes) -> None:
    """Steps over delta: a threshold holds until a larger delta allows the next."""
    draw_lines(frame, ax, step=True)
    log_delta_axis(ax, frame)
    knob = str(frame["knob"].iloc[0])
    ax.set_ylabel(f"{knob[0].upper()}{knob[1:]}")


FIGURE = FigureSpec(
    name="calibration-threshold",
    summary="Accepted threshold against tolerated risk",
    commands=("calibrate",),
    needs="a calibration with numbers for thresholds",
    make="eexit calibrate --delta 0.1 --curves",
    suits=suits_threshold,
    frame=frame,
    draw=draw,
    panel_height=2.2,
    columns=1,
)
