"""All panels of a calibration on one page."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from eexit_cli.plots import calibration_samples
from eexit_cli.plots.calibration_lines import LAYERS, RISK, THRESHOLD, VIOLATIONS
from eexit_cli.plots.calibration_p_values import FIGURE as P_VALUES
from eexit_cli.plots.calibration_points import by_measure, suits
from eexit_cli.plots.figure import PANEL, FigureSpec, RunView

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from pandas import DataFrame

_PANELS = {
    spec.name: spec
    for spec in (RISK, LAYERS, THRESHOLD, P_VALUES, calibration_samples.FIGURE, VIOLATIONS)
}


def frame(runs: Sequence[RunView]) -> DataFrame:
    """The frames of all figures that can be drawn from these runs, one below the other.

    Returns:
        ``panel`` (the figure's name), and the columns of that figure, NaN elsewhere.
    """
    import pandas as pd

    runs = by_measure(runs)
    parts = []
    for name, spec in _PANELS.items():
        fitting = [run for run in runs if spec.suits(run)]
        if name == calibration_samples.FIGURE.name:
            # It has a panel per run: here the first stands for all.
            fitting = fitting[:1]
        if fitting:
            part = spec.frame(fitting)
            if len(runs) > 1 and name == calibration_samples.FIGURE.name:
                part[calibration_samples.WHOSE] = fitting[0].label
            part[PANEL] = name
            parts.append(part)
    return pd.concat(parts, ignore_index=True)


def draw(frame: DataFrame, ax: Axes) -> None:
    """What the figure of that name draws."""
    name = str(frame[PANEL].iloc[0])
    # pd.concat made the other figures' columns part of this one, and flags to objects.
    rows = frame.drop(columns=PANEL).dropna(axis="columns", how="all").infer_objects()
    for column in ("low", "high", "num_layers"):
        if column not in rows:
            rows[column] = float("nan")
    _PANELS[name].draw(rows, ax)


FIGURE = FigureSpec(
    name="calibration",
    summary="A calibration on one page: risk, depth, threshold, p-values, sample size, violations",
    commands=("calibrate",),
    needs="a calibration",
    make="eexit calibrate --delta 0.1 --curves",
    suits=suits,
    frame=frame,
    draw=draw,
    panel_height=1.75,
    alike=False,
)
