"""What an attack does to the exits: where samples leave before and after it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from eexit_cli.plots.attack_rows import (
    counted,
    exit_layers,
    is_attack,
    records_by_recipe,
    rows_by_recipe,
)
from eexit_cli.plots.axis import layer_axis
from eexit_cli.plots.figure import PANEL, FigureSpec, RunView

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from pandas import DataFrame

WHEN = ("before", "after")


def frame(runs: Sequence[RunView]) -> DataFrame:
    """One row per recipe, before or after, and exit layer.

    Returns:
        ``panel``, ``when`` (before, after), ``exit_layer`` (1..L), ``share`` (of the samples, or
        of a decoder's tokens), ``counted`` (Samples or Tokens), ``mean_exit_layer``,
        ``gain_removed`` (the run's own figure; NaN where no layer was saved), ``num_layers``.
    """
    import pandas as pd

    table = pd.DataFrame([row for run in runs for row in _rows(run)])
    return table.astype({"share": float, "mean_exit_layer": float, "gain_removed": float})


def _rows(run: RunView) -> Iterator[dict[str, Any]]:
    measured = rows_by_recipe(run)
    num_layers = int(run.metrics["num_layers"])
    for recipe, records in records_by_recipe(run).items():
        figures: Mapping[str, Any] = measured.get(recipe, run.metrics)
        for when in WHEN:
            layers = exit_layers(records, when)
            for layer in range(1, num_layers + 1):
                yield {
                    PANEL: f"{run.label}, {recipe}" if recipe else run.label,
                    "when": when,
                    "exit_layer": layer,
                    "share": layers.count(layer) / len(layers),
                    "counted": counted(run),
                    "mean_exit_layer": sum(layers) / len(layers),
                    "gain_removed": figures.get("gain_removed"),
                    "num_layers": num_layers,
                }


def draw(frame: DataFrame, ax: Axes) -> None:
    """Bars per exit layer, before beside after, a line at each mean."""
    bar = 0.4
    means = {}
    for position, when in enumerate(WHEN):
        rows = frame[frame["when"] == when]
        means[when] = float(rows["mean_exit_layer"].iloc[0])
        ax.bar(
            rows["exit_layer"] + (position - 0.5) * bar,
            100 * rows["share"],
            width=bar,
            color=f"C{position}",
            label=f"{when} the attack",
        )
        _mark_mean(ax, means[when], color=f"C{position}")
    ax.plot([], [], color="0.3", marker="v", label="mean")
    gain = frame["gain_removed"].iloc[0]
    removed = "no gain to remove" if gain != gain else f"{100 * gain:.0f} % of gain removed"
    layers = f"{means['before']:.2f} → {means['after']:.2f} layers,"
    # Where the panel is narrow the line may break between the two, not inside them.
    figures = " ".join(part.replace(" ", "\N{NO-BREAK SPACE}") for part in (layers, removed))
    ax.set_title(f"{frame[PANEL].iloc[0]}\n{figures}")
    ax.margins(y=0.14)
    layer_axis(ax, int(frame["num_layers"].iloc[0]))
    ax.set_ylabel(f"{frame['counted'].iloc[0]} (%)")


def _mark_mean(ax: Axes, mean: float, *, color: str) -> None:
    """A triangle above the bars and a line down from it, behind them."""
    ax.axvline(mean, ymax=0.95, color=color, linewidth=1.0, zorder=0.9)
    above = ax.get_xaxis_transform()
    ax.plot([mean], [0.95], transform=above, color=color, marker="v", markersize=5, zorder=4)


FIGURE = FigureSpec(
    name="slowdown",
    summary="Where samples leave before and after an attack",
    commands=("attack",),
    needs="an attack run",
    make="eexit attack --model deebert",
    suits=is_attack,
    frame=frame,
    draw=draw,
)
