"""Quality of a decoder's outputs against run time, a line per confidence measure."""

from __future__ import annotations

from typing import TYPE_CHECKING

from eexit_cli.plots.figure import FigureSpec
from eexit_cli.plots.quality_lines import draw_against, frame, suits

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from pandas import DataFrame


def draw(frame: DataFrame, ax: Axes) -> None:
    """Quality over milliseconds per token, measured at the run's batch size, encoder included.

    Bars reach over the interval of each time; a run whose settings were timed once has none.
    """
    draw_against(frame, ax, "ms_per_token", ("ms_low", "ms_high"))
    batch, repeats = int(frame["batch_size"].iloc[0]), frame["repeats"].iloc[0]
    timed = "timed once" if repeats != repeats else f"bars: {int(repeats)} repeats"
    ax.set_xlabel(f"Run time, ms per token (batch {batch}; {timed})")
    ax.set_xlim(left=0)


FIGURE = FigureSpec(
    name="quality-time",
    summary="A decoder's quality against measured run time, a line per confidence measure",
    commands=("evaluate",),
    needs="an evaluation of a decoder with --sweep or several settings",
    make="eexit evaluate --model calm --sweep",
    suits=suits,
    frame=frame,
    draw=draw,
    panel_height=2.1,
    columns=1,
)
