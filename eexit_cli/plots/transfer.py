"""Which attacks carry over: gain removed on each victim by inputs made on another."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import PurePath
from typing import TYPE_CHECKING

import matplotlib
from matplotlib.patches import Rectangle

from eexit_cli.plots.figure import FigureSpec, RunView

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from pandas import DataFrame


def suits(run: RunView) -> bool:
    """Runs that replay attacks."""
    return bool(run.config.get("transfer")) and any(
        row.get("gain_removed") is not None for row in run.rows
    )


def frame(runs: Sequence[RunView]) -> DataFrame:
    """One row per cell: who made the inputs, and who gets them.

    Returns:
        ``made_on`` (model and recipe), ``victim`` (model, and its defence where it has one),
        ``gain_removed`` (NaN where the victim saves nothing on clean inputs).
    """
    import pandas as pd

    rows = []
    for run in runs:
        several = len({row["recipe"] for row in run.rows}) > 1
        for row in run.rows:
            victim = _short(row["victim"])
            if row.get("defence", "none") != "none":
                victim = f"{victim}, {_defence(row)}"
            made_on = _short(row["source"]) + (f": {row['recipe']}" if several else "")
            rows.append({"made_on": made_on, "victim": victim, "gain_removed": row["gain_removed"]})
    table = pd.DataFrame(rows).drop_duplicates(["made_on", "victim"], keep="last")
    return table.astype({"gain_removed": float}).reset_index(drop=True)


def _short(name: str) -> str:
    return PurePath(str(name)).name


def _defence(row: Mapping[str, object]) -> str:
    if row["defence"] == "patience":
        return f"patience {row['patience']}"
    return str(row["defence"])


def draw(frame: DataFrame, ax: Axes) -> None:
    """A cell per pair: the darker, the more is removed; the number in percent."""
    makers, victims = (list(dict.fromkeys(frame[name])) for name in ("made_on", "victim"))
    # Victims with defences are many and their names long: they go down the page.
    cells = frame.pivot(index="victim", columns="made_on", values="gain_removed")
    cells = 100 * cells.loc[victims, makers]
    shade = matplotlib.colormaps["Blues"]
    for row in range(len(victims)):
        for column in range(len(makers)):
            value = float(cells.iloc[row, column])
            color = "0.93" if value != value else shade(min(max(value / 100, 0.0), 1.0))
            corner = (column - 0.5, row - 0.5)
            ax.add_patch(Rectangle(corner, 1, 1, facecolor=color, edgecolor="white"))
            ax.text(
                column,
                row,
                "–" if value != value else f"{value:.0f}",
                ha="center",
                va="center",
                fontsize=7,
                color="white" if value > 60 else "black",
            )
    ax.set_xlim(-0.5, len(makers) - 0.5)
    ax.set_ylim(len(victims) - 0.5, -0.5)
    ax.set_xticks(range(len(makers)), makers, rotation=90 if len(makers) > 2 else 0)
    ax.set_yticks(range(len(victims)), victims)
    ax.tick_params(length=0)
    ax.grid(False)
    ax.spines[:].set_visible(False)
    ax.set_xlabel("Inputs made on")
    ax.set_ylabel("Victim")
    ax.set_title("Gain removed (%)")


FIGURE = FigureSpec(
    name="transfer",
    summary="Gain removed on each victim by inputs that an attack made on another",
    commands=("attack",),
    needs="a replay of an attack's inputs",
    make="eexit attack --transfer latest --model deebert,pabee",
    suits=suits,
    frame=frame,
    draw=draw,
    panel_height=3.6,
    columns=1,
    alike=False,
)
