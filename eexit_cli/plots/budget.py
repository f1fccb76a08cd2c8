"""What queries buy: gain removed against the query budget."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from eexit_cli.plots.attack_rows import is_attack, look, numbered, records_by_recipe
from eexit_cli.plots.figure import PANEL, FigureSpec, RunView

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from pandas import DataFrame


def suits(run: RunView) -> bool:
    """Attack runs whose records say what each query brought, and that had a gain to remove."""
    return (
        is_attack(run)
        and run.metrics["mean_exit_layer_before"] < run.metrics["num_layers"]
        and all("progress" in record for record in run.records)
    )


def frame(runs: Sequence[RunView]) -> DataFrame:
    """One row per run, recipe and budget at which the line changes.

    Had the attack been stopped after so many queries and gradient passes per sample, this is the
    gain that its best texts so far would have removed.

    Returns:
        ``panel`` (the run), ``series`` (the recipe), ``budget`` (from 1), ``gain_removed``,
        ``number`` (of the recipe, for its look).
    """
    import pandas as pd

    return numbered(pd.DataFrame([row for run in runs for row in _rows(run)]))


def _rows(run: RunView) -> Iterator[dict[str, Any]]:
    num_layers = float(run.metrics["num_layers"])
    recipes = records_by_recipe(run)
    every = [step[0] for record in run.records for step in record["progress"]]
    last = max([int(run.config.get("query_budget") or 0), *every, 2])
    for recipe, records in recipes.items():
        saved = sum(num_layers - record["exit_layer_before"] for record in records)
        changes: dict[int, float] = {1: 0.0, last: 0.0}
        for record in records:
            layer = record["exit_layer_before"]
            for spent, reached in record["progress"]:
                changes[spent] = changes.get(spent, 0.0) + reached - layer
                layer = reached
        removed = 0.0
        for budget in sorted(changes):
            removed += changes[budget]
            yield {
                PANEL: run.label,
                "series": str(recipe or "attack"),
                "budget": budget,
                "gain_removed": removed / saved,
            }


def draw(frame: DataFrame, ax: Axes) -> None:
    """A stair per recipe over a log axis."""
    for series, rows in frame.groupby("series", sort=False):
        style: Mapping[str, Any] = {**look(int(rows["number"].iloc[0])), "marker": "None"}
        ax.plot(
            rows["budget"],
            100 * rows["gain_removed"],
            drawstyle="steps-post",
            label=str(series),
            **style,
        )
    last = int(frame["budget"].max())
    ax.set_xscale("log")
    ticks = [tick for tick in (1, 10, 100, 1000, 10_000, 100_000) if tick <= last]
    ax.set_xticks(ticks, [f"{tick:,}" for tick in ticks])
    ax.set_xticks([], minor=True)
    ax.set_xlim(1, last)
    ax.axhline(0, color="0.6", linewidth=0.6)
    ax.set_title(str(frame[PANEL].iloc[0]))
    ax.set_xlabel("Queries + gradients")
    ax.set_ylabel("Gain removed (%)")


FIGURE = FigureSpec(
    name="budget",
    summary="Gain removed against the query budget",
    commands=("attack",),
    needs="an attack run that had a gain to remove",
    make="eexit attack --model deebert --recipe all --query-budget 1000",
    suits=suits,
    frame=frame,
    draw=draw,
    panel_height=2.2,
)
