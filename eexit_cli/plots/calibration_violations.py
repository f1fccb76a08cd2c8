"""How often the promise is broken: repeated splits whose test risk is above the tolerated one."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from eexit_cli.plots.calibration_points import (
    NAIVE,
    by_measure,
    draw_lines,
    log_delta_axis,
    near_splits,
    series_of,
    suits_splits,
    table,
)
from eexit_cli.plots.figure import FigureSpec, RunView

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from pandas import DataFrame


def frame(runs: Sequence[RunView]) -> DataFrame:
    """One row per line and delta, for splits of about the run's own n.

    Returns:
        ``series``, ``weaker``, ``x`` (delta), ``y`` (percent of the splits whose mean test loss is
        above delta; the test part's own noise is in it), ``low`` and ``high`` (NaN),
        ``epsilon``.
    """
    runs = by_measure(runs)
    return table(row for run in runs for row in _points(run, len(runs) > 1))


def _points(run: RunView, several: bool) -> Iterator[dict[str, Any]]:
    own = str(run.config["p_value"])
    for p_value in (own,) if several or own == NAIVE else (own, NAIVE):
        for record in near_splits(run, p_value):
            yield {
                "series": series_of(run, p_value, several),
                "weaker": p_value != own,
                "x": record["delta"],
                "y": 100 * record["violations"],
                "low": None,
                "high": None,
                "epsilon": float(run.metrics["epsilon"]),
            }


def draw(frame: DataFrame, ax: Axes) -> None:
    """Lines over delta, and epsilon, the share that is allowed."""
    for epsilon in sorted(set(frame["epsilon"])):
        ax.axhline(100 * epsilon, color="0.3", linewidth=0.8, linestyle=":", label="ε")
    draw_lines(frame, ax)
    log_delta_axis(ax, frame)
    ax.set_ylim(-2, max(20.0, 1.1 * float(frame["y"].max())))
    ax.set_ylabel("Violations (%)")


FIGURE = FigureSpec(
    name="calibration-violations",
    summary="How often the tolerated risk is exceeded, over repeated splits",
    commands=("calibrate",),
    needs="a calibration with --curves",
    make="eexit calibrate --delta 0.1 --curves",
    suits=suits_splits,
    frame=frame,
    draw=draw,
    panel_height=2.2,
    columns=1,
)
