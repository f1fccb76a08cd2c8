"""What queries buy: gain removed against the query budget."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from eexit_cli.plots.attack_rows import is_attack, look, numbered, records_by_recipe
from eexit_cli.plots.axis import inches_across
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
    gain that its best texts so far would have removed. What a recipe learned once for all samples
    comes first: each pays its share. A decoder's outputs weigh as many tokens as
    they have, as in the run's own figures; of the outputs on the way the records say no lengths,
    so those weigh what the last one does, and the line ends at the run's figure.

    Returns:
        ``panel`` (the run), ``series`` (the recipe), ``budget`` (from 1), ``gain_removed``,
        ``limit`` (the run's budget; NaN where it had none), ``number`` (of the recipe, for its
        look).
    """
    import pandas as pd

    table = pd.DataFrame([row for run in runs for row in _rows(run)])
    return numbered(table.astype({"limit": float}))


def _rows(run: RunView) -> Iterator[dict[str, Any]]:
    num_layers = float(run.metrics["num_layers"])
    limit = run.config.get("query_budget")
    every = [step[0] for record in run.records for step in record["progress"]]
    shares = _learning(run)
    last = max([int(limit or 0), max(every) + max(shares.values(), default=0), 2])
    for recipe, records in records_by_recipe(run).items():
        # Sums over the best texts so far: of tokens (or samples), and of their layers.
        total = float(sum(record.get("tokens_before", 1) for record in records))
        layers = sum(r["exit_layer_before"] * r.get("tokens_before", 1) for r in records)
        before = layers / total
        changes: dict[int, list[float]] = {1: [0.0, 0.0], last: [0.0, 0.0]}
        for record in records:
            for spent, tokens, depth in _steps(record):
                # The input itself, the first query, needs nothing learned.
                share = shares.get(recipe, 0) if spent > 1 else 0
                change = changes.setdefault(spent + share, [0.0, 0.0])
                change[0] += tokens
                change[1] += depth
        for budget in sorted(changes):
            total += changes[budget][0]
            layers += changes[budget][1]
            yield {
                PANEL: run.label,
                "series": str(recipe or "attack"),
                "budget": budget,
                "gain_removed": (layers / total - before) / (num_layers - before),
                "limit": limit,
            }


def _learning(run: RunView) -> dict[Any, int]:
    """Recipe -> queries and gradient passes that it learned with, per sample."""
    return {
        row["recipe"]: math.ceil(
            (row["search_queries"] + row["search_gradient_passes"]) / row["samples"]
        )
        for row in run.document.get("rows", ())
        if row.get("search_queries") is not None
    }


def _steps(record: Mapping[str, Any]) -> Iterator[tuple[int, float, float]]:
    """What each better text was found after, and the tokens and layers that it adds."""
    layer, tokens = record["exit_layer_before"], record.get("tokens_before", 1)
    for number, (spent, reached) in enumerate(record["progress"], start=1):
        changed = reached != record["exit_layer_before"] or number == len(record["progress"])
        longer = record.get("tokens_after", 1) if changed else tokens
        yield spent, longer - tokens, reached * longer - layer * tokens
        layer, tokens = reached, longer


def draw(frame: DataFrame, ax: Axes) -> None:
    """A stair per recipe over a log axis, which ends at the run's budget."""
    for series, rows in frame.groupby("series", sort=False):
        style: Mapping[str, Any] = {**look(int(rows["number"].iloc[0])), "marker": "None"}
        ax.plot(
            rows["budget"],
            100 * rows["gain_removed"],
            drawstyle="steps-post",
            label=str(series),
            **style,
        )
    # A step at the very end would lie on the border.
    last = 1.12 * float(frame["budget"].max())
    ax.set_xscale("log")
    ticks = _ticks(last, inches_across(ax))
    ax.set_xticks(ticks, [f"{tick:,}" for tick in ticks])
    ax.set_xticks([], minor=True)
    ax.set_xlim(1, last)
    limit = frame["limit"].max()
    if limit == limit:
        ax.axvline(float(limit), color="0.6", linewidth=0.6, linestyle=":")
    ax.axhline(0, color="0.6", linewidth=0.6)
    ax.set_title(str(frame[PANEL].iloc[0]))
    ax.set_xlabel("Queries + gradients")
    ax.set_ylabel("Gain removed (%)")


def _ticks(last: float, inches: float) -> list[int]:
    """Powers of ten; where there is room also 2 and 5 times each."""
    closest = math.log10(2) / math.log10(last) * inches
    places = (1, 2, 5) if closest > 0.06 + 0.06 * len(f"{last:.0f}") else (1,)
    return [k * 10**power for power in range(7) for k in places if k * 10**power <= last]


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
