"""The tolerated risk against the risk that follows: below the diagonal, the promise is kept."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from eexit_cli.plots.calibration_points import (
    by_measure,
    delta_axis,
    draw_lines,
    on_test,
    suits,
    sweep_points,
    table,
)
from eexit_cli.plots.figure import FigureSpec, RunView

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from pandas import DataFrame


def frame(runs: Sequence[RunView]) -> DataFrame:
    """One row per line and delta; the risk is the test samples' where there are any.

    Returns:
        ``series``, ``weaker`` (its promise is), ``x`` (delta), ``y`` (mean loss), ``low`` and
        ``high`` (5 % and 95 % over repeated splits, NaN without), ``measured`` (what ``y`` is).
    """
    made = table(sweep_points(runs, "mean_loss"))
    tested = all(on_test(run) for run in by_measure(runs))
    kinds = {str(run.config.get("consistency")) for run in runs}
    words = {"textual": "dissimilarity", "risk": "excess risk"}
    what = words.get(kinds.pop(), "loss") if len(kinds) == 1 else "loss"
    made["measured"] = f"Mean {what}" + (", test" if tested else "")
    return made


def draw(frame: DataFrame, ax: Axes) -> None:
    """Lines over delta, and the diagonal that a kept promise stays below."""
    top = float(frame["x"].max())
    ax.fill_between([0, top], [0, top], [top, top], color="0.94", linewidth=0, zorder=0)
    ax.plot([0, top], [0, top], color="0.3", linewidth=0.8, linestyle=":", label="risk = δ")
    draw_lines(frame, ax)
    delta_axis(ax, frame)
    highest = max(float(frame["y"].max()), float(frame["high"].fillna(0).max()), 0.02)
    ax.set_ylim(0, min(top, highest * 1.15))
    ax.set_ylabel(str(frame["measured"].iloc[0]))


FIGURE = FigureSpec(
    name="calibration-risk",
    summary="Tolerated risk against realised risk, with the diagonal",
    commands=("calibrate",),
    needs="a calibration",
    make="eexit calibrate --delta 0.1 --curves",
    suits=suits,
    frame=frame,
    draw=draw,
    panel_height=2.2,
    columns=1,
)
