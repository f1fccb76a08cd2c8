"""The effect of the sample size: what more calibration samples save."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from eexit_cli.plots.calibration_points import (
    always_answered,
    by_measure,
    log_delta_axis,
    table,
)
from eexit_cli.plots.figure import PANEL, FigureSpec, RunView

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from pandas import DataFrame

WHOSE = "whose"
"""The column that says which of several runs a panel stands for, where it has no title."""

MARKERS = ("o", "s", "^", "D", "v", "P", "X")


def suits_sizes(run: RunView) -> bool:
    """Calibrations with repeated splits, at some size and delta all with an answer."""
    return any(record.get("kind") == "split" and always_answered(record) for record in run.records)


def frame(runs: Sequence[RunView]) -> DataFrame:
    """One row per sample size and delta; several runs have a panel each.

    Returns:
        ``panel``, ``n``, ``x`` (delta), ``y`` (median over repeated splits of the mean exit layer,
        or of the mean loss where layers are unknown), ``low`` and ``high`` (5 % and 95 %),
        ``measured`` (what ``y`` is), ``num_layers``.
    """
    runs = by_measure(runs)
    made = table(row for run in runs for row in _points(run))
    return made if len(runs) > 1 else made.drop(columns=PANEL)


def _points(run: RunView) -> Iterator[dict[str, Any]]:
    splits = [
        record
        for record in run.records
        if record.get("kind") == "split"
        and record["p_value"] == run.config["p_value"]
        and always_answered(record)
    ]
    value = "mean_exit_layer"
    if any(record[value] is None for record in splits):
        value = "mean_loss"
    words = {"mean_exit_layer": "Mean exit layer", "mean_loss": "Mean loss"}
    for record in splits:
        yield {
            PANEL: run.label,
            "n": int(record["n"]),
            "x": record["delta"],
            "y": record[value],
            "low": record[f"{value}_low"],
            "high": record[f"{value}_high"],
            "measured": words[value],
            "num_layers": run.metrics.get("num_layers"),
        }


def draw(frame: DataFrame, ax: Axes) -> None:
    """A line with its band per sample size, light to dark, named in the panel itself."""
    from matplotlib import colormaps

    sizes = sorted(set(frame["n"]))
    shades = colormaps["viridis_r"]
    lines = []
    for place, n in enumerate(sizes):
        rows = frame[frame["n"] == n]
        color = shades(0.15 + 0.8 * place / max(1, len(sizes) - 1))
        ax.fill_between(rows["x"], rows["low"], rows["high"], color=color, alpha=0.15, linewidth=0)
        lines += ax.plot(rows["x"], rows["y"], color=color, marker=MARKERS[place % len(MARKERS)])
    # In the panel itself: these lines mean nothing in the others.
    ax.legend(
        lines,
        [f"n = {n:.0f}" for n in sizes],
        fontsize=6.5,
        loc="best",
        handlelength=0.7,
        # Six sizes leave no place without a line: it shines through.
        frameon=True,
        framealpha=0.7,
        edgecolor="none",
        borderpad=0.1,
    )
    log_delta_axis(ax, frame)
    ax.set_ylabel(str(frame["measured"].iloc[0]))
    for whose in {PANEL, WHOSE} & set(frame):
        ax.set_title(str(frame[whose].iloc[0]))


FIGURE = FigureSpec(
    name="calibration-samples",
    summary="What more calibration samples save, over repeated splits",
    commands=("calibrate",),
    needs="a calibration with --curves",
    make="eexit calibrate --delta 0.1 --curves",
    suits=suits_sizes,
    frame=frame,
    draw=draw,
    panel_height=2.2,
    columns=2,
)
