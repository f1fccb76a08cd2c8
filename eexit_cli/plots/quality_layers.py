"""Quality of a decoder's outputs against mean decoder layers, a line per confidence measure."""

from __future__ import annotations

from typing import TYPE_CHECKING

from eexit_cli.plots.figure import FigureSpec
from eexit_cli.plots.quality_lines import draw_against, frame, suits

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from pandas import DataFrame


def draw(frame: DataFrame, ax: Axes) -> None:
    """Quality over the mean exit layer of all tokens; up to the full model at the right."""
    draw_against(frame, ax, "mean_exit_layer")
    ax.set_xlabel("Mean decoder layers per token")
    ax.set_xlim(right=frame["mean_exit_layer"].max() + 0.15)


FIGURE = FigureSpec(
    name="quality-layers",
    summary="A decoder's quality against mean decoder layers, a line per confidence measure",
    commands=("evaluate",),
    needs="an evaluation of a decoder with --sweep or several settings",
    make="eexit evaluate --model calm --sweep",
    suits=suits,
    frame=frame,
    draw=draw,
    panel_height=2.1,
    columns=1,
)
