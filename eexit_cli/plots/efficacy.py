"""How soon samples leave, before and after each attack: the curve whose area is the efficacy."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from eexit_cli.plots.attack_rows import (
    UNATTACKED,
    counted,
    exit_layers,
    is_attack,
    look,
    numbered,
    records_by_recipe,
)
from eexit_cli.plots.figure import PANEL, FigureSpec, RunView

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from pandas import DataFrame

BEFORE = "no attack"


def frame(runs: Sequence[RunView]) -> DataFrame:
    """One row per run, line and layer.

    Returns:
        ``panel`` (the run), ``series`` (``no attack``, or the recipe), ``depth`` (layer / L, from
        0), ``left`` (share of the samples, or of a decoder's tokens, that have left by then),
        ``counted`` (Samples or Tokens), ``efficacy`` (area under the line, by the trapezoid
        rule), ``number`` (of the recipe, for its look).
    """
    import pandas as pd

    table = pd.DataFrame([row for run in runs for row in _rows(run)])
    return numbered(table, besides=BEFORE)


def _rows(run: RunView) -> Iterator[dict[str, Any]]:
    num_layers = int(run.metrics["num_layers"])
    recipes = records_by_recipe(run)
    first = next(iter(recipes.values()))
    lines = {BEFORE: exit_layers(first, "before")}
    for recipe, records in recipes.items():
        lines[str(recipe or "attack")] = exit_layers(records, "after")
    for series, layers in lines.items():
        left = [
            sum(layer <= depth for layer in layers) / len(layers) for depth in range(num_layers + 1)
        ]
        area = sum((a + b) / 2 for a, b in pairwise(left)) / num_layers
        for depth, share in enumerate(left):
            yield {
                PANEL: run.label,
                "series": series,
                "depth": depth / num_layers,
                "left": share,
                "counted": counted(run),
                "efficacy": area,
            }


def draw(frame: DataFrame, ax: Axes) -> None:
    """A line per recipe; the clean one is broad and grey."""
    for series, rows in frame.groupby("series", sort=False):
        style = UNATTACKED if series == BEFORE else look(int(rows["number"].iloc[0]))
        # All lines end in the corner, where the axes would cut their markers.
        ax.plot(rows["depth"], 100 * rows["left"], label=str(series), clip_on=False, **style)
    ax.set_title(str(frame[PANEL].iloc[0]))
    ax.set_xlabel("Layers used (share of L)")
    ax.set_ylabel(f"{frame['counted'].iloc[0]} that have left (%)")
    ax.set_xlim(0, 1)
    ax.set_xticks([0, 0.25, 0.5, 0.75, 1], ["0", "¼", "½", "¾", "1"])
    ax.set_ylim(0, 103)


FIGURE = FigureSpec(
    name="efficacy",
    summary="How soon samples leave, before and after each attack (area: efficacy)",
    commands=("attack",),
    needs="an attack run",
    make="eexit attack --model deebert --recipe all",
    suits=is_attack,
    frame=frame,
    draw=draw,
    panel_height=2.2,
)
