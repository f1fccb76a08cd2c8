"""Which attacks carry over: gain removed on each victim by inputs made on another."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import matplotlib
from matplotlib.patches import Rectangle

from eexit_cli.core.labels import maker_labels, run_of, victim_labels
from eexit_cli.plots.figure import PANEL, FigureSpec, RunView

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from pandas import DataFrame


_BESIDE = 16
"""Letters of the makers' names that fit beside each other where victims' names are long."""


def suits(run: RunView) -> bool:
    """Runs that replay attacks."""
    return bool(run.config.get("transfer")) and any(
        row.get("gain_removed") is not None for row in run.rows
    )


def frame(runs: Sequence[RunView]) -> DataFrame:
    """One row per cell: who made the inputs, and who gets them.

    A cell that is there twice (the same run, recipe, victim and exit) is the last one's.

    Returns:
        ``panel`` (the axes' title: classifiers and decoders share none), ``made_on`` (model and
        recipe, and what else tells attack runs apart), ``victim`` (model, its exit where it is
        there with several, and its defence where it has one), ``gain_removed`` (NaN where the
        victim saves nothing on clean inputs).
    """
    import pandas as pd

    documents = [run.document for run in runs]
    makers, victims = maker_labels(documents), victim_labels(documents)
    recipes: dict[str, set[str]] = {}
    for run in runs:
        recipes.setdefault(_family(run), set()).update(row["recipe"] for row in run.rows)
    titles = _titles(set(recipes))
    rows = []
    for run, labels in zip(runs, victims, strict=True):
        several = len(recipes[_family(run)]) > 1
        for row in run.rows:
            victim = labels[row["victim"]]
            if row.get("defence", "none") != "none":
                victim = f"{victim}, {_defence(row)}"
            made_on = makers[run_of(row), row["recipe"]] + (f": {row['recipe']}" if several else "")
            rows.append(
                {
                    PANEL: titles[_family(run)],
                    "made_on": made_on,
                    "victim": victim,
                    "gain_removed": row["gain_removed"],
                }
            )
    table = pd.DataFrame(rows).drop_duplicates([PANEL, "made_on", "victim"], keep="last")
    return table.astype({"gain_removed": float}).reset_index(drop=True)


def _family(run: RunView) -> str:
    # Replays of before decoders could be replayed do not say.
    return str(run.config.get("family", "encoder"))


def _titles(families: set[str]) -> dict[str, str]:
    if len(families) == 1:
        return dict.fromkeys(families, "Gain removed (%)")
    return {
        "encoder": "Classifiers:\ngain removed (%)",
        "decoder": "Decoders:\ngain removed (%)",
    }


def _defence(row: Mapping[str, object]) -> str:
    if row["defence"] == "patience":
        return f"patience {row['patience']}"
    return str(row["defence"])


def draw(frame: DataFrame, ax: Axes) -> None:
    """A cell per pair: the darker, the more is removed; the number in percent.

    A dash where there was nothing to remove, nothing where nobody replayed the pair.
    """
    makers, victims = (list(dict.fromkeys(frame[name])) for name in ("made_on", "victim"))
    # Victims with defences are many and their names long: they go down the page.
    cells = frame.pivot(index="victim", columns="made_on", values="gain_removed")
    cells = 100 * cells.loc[victims, makers]
    replayed = set(zip(frame["victim"], frame["made_on"], strict=True))
    shade = matplotlib.colormaps["Blues"]
    for row in range(len(victims)):
        for column in range(len(makers)):
            if (victims[row], makers[column]) not in replayed:
                continue
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
    upright = len(makers) > 2 or sum(map(len, makers)) > _BESIDE
    ax.set_xticks(range(len(makers)), makers, rotation=90 if upright else 0)
    ax.set_yticks(range(len(victims)), victims)
    ax.tick_params(length=0)
    ax.grid(False)
    ax.spines[:].set_visible(False)
    ax.set_xlabel("Inputs made on")
    ax.set_ylabel("Victim")
    ax.set_title(str(frame[PANEL].iloc[0]))


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
    names_models=True,
)
