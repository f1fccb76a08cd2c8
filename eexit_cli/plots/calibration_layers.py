"""What a tolerated risk buys: mean exit layer against delta."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from eexit_cli.plots.calibration_points import (
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


def suits_layers(run: RunView) -> bool:
    """Calibrations that know the exit layers."""
    return suits(run) and any(
        record.get("kind") == "sweep" and record.get("mean_exit_layer") is not None
        for record in run.records
    )


def frame(runs: Sequence[RunView]) -> DataFrame:
    """One row per line and delta.

    Returns:
        ``series``, ``weaker``, ``x`` (delta), ``y`` (mean exit layer, of the test samples where
        there are any), ``low`` and ``high`` (5 % and 95 % over repeated splits), ``num_layers``.
    """
    return table(sweep_points(runs, "mean_exit_layer"))


def draw(frame: DataFrame, ax: Axes) -> None:
    """Lines over delta, and the full model's depth."""
    for layers in sorted(set(frame["num_layers"].dropna())):
        ax.axhline(layers, color="0.3", linewidth=0.8, linestyle="--", label="full model")
    draw_lines(frame, ax)
    log_delta_axis(ax, frame)
    ax.set_ylabel("Mean exit layer")
    top = max(float(frame["num_layers"].fillna(0).max()), float(frame["y"].max()))
    ax.set_ylim(top=top * 1.04)


FIGURE = FigureSpec(
    name="calibration-layers",
    summary="Mean exit layer against tolerated risk",
    commands=("calibrate",),
    needs="a calibration with exit layers",
    make="eexit calibrate --delta 0.1 --curves",
    suits=suits_layers,
    frame=frame,
    draw=draw,
    panel_height=2.2,
    columns=1,
)
