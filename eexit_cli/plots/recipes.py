"""The slowdown table as a figure: gain removed by each recipe, with its interval."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from eexit_cli.plots.attack_rows import is_attack, rows_by_recipe
from eexit_cli.plots.figure import PANEL, FigureSpec, RunView

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from pandas import DataFrame

NAN = float("nan")


def suits(run: RunView) -> bool:
    """Attack runs of several recipes that had a gain to remove."""
    gains = [row.get("gain_removed") for row in rows_by_recipe(run).values()]
    return is_attack(run) and len(gains) > 1 and any(gain is not None for gain in gains)


def frame(runs: Sequence[RunView]) -> DataFrame:
    """One row per run and recipe, the strongest first.

    Returns:
        ``panel`` (the run), ``recipe``, ``gain_removed``, ``low`` and ``high`` (its bootstrap
        interval; NaN where the run has none), ``after`` (mean exit layer after the attack),
        ``before``, ``samples``, ``level`` of the interval.
    """
    import pandas as pd

    table = pd.DataFrame(
        [
            {
                PANEL: run.label,
                "recipe": str(recipe or "attack"),
                "gain_removed": row["gain_removed"],
                "low": row.get("gain_removed_low"),
                "high": row.get("gain_removed_high"),
                "before": row["mean_exit_layer_before"],
                "after": row["mean_exit_layer_after"],
                "samples": row["samples"],
                "level": row.get("interval_level"),
            }
            for run in runs
            for recipe, row in rows_by_recipe(run).items()
            if row["gain_removed"] is not None
        ]
    )
    numbers = ["gain_removed", "low", "high", "before", "after", "level"]
    table = table.astype(dict.fromkeys(numbers, float))
    order = {label: number for number, label in enumerate(dict.fromkeys(table[PANEL]))}
    place = table[PANEL].map(order)
    return (
        table.assign(place=place)
        .sort_values(["place", "gain_removed"], ascending=[True, False], kind="stable")
        .drop(columns="place")
        .reset_index(drop=True)
    )


def draw(frame: DataFrame, ax: Axes) -> None:
    """A point per recipe with its interval, and the mean exit layer beside its name."""
    places = range(len(frame))
    gain = 100 * frame["gain_removed"]
    low, high = (100 * frame[end].fillna(frame["gain_removed"]) for end in ("low", "high"))
    level = frame["level"].iloc[0]
    words = "gain removed" if level != level else f"gain removed, {100 * level:.0f} % interval"
    ax.hlines(places, low, high, color="C0", linewidth=1.4)
    ax.plot(gain, places, color="C0", marker="o", linestyle="none", label=words)
    ax.axvline(0, color="0.6", linewidth=0.6)
    names = [
        f"{recipe} ({after:.2f})"
        for recipe, after in zip(frame["recipe"], frame["after"], strict=True)
    ]
    ax.set_yticks(places, names)
    ax.set_ylim(len(frame) - 0.4, -0.6)
    ax.set_xlim(min(0.0, float(low.min())) - 4, max(100.0, float(high.max())) + 4)
    ax.grid(True, axis="x")
    ax.grid(False, axis="y")
    ax.set_xlabel("Gain removed (%)")
    ax.set_ylabel("Recipe (mean exit layer)")
    before, samples = float(frame["before"].iloc[0]), int(frame["samples"].iloc[0])
    ax.set_title(f"{frame[PANEL].iloc[0]}\nfrom {before:.2f} layers, {samples} samples")


FIGURE = FigureSpec(
    name="recipes",
    summary="Gain removed by each recipe, with its interval",
    commands=("attack",),
    needs="an attack run of several recipes that had a gain to remove",
    make="eexit attack --model deebert --recipe all",
    suits=suits,
    frame=frame,
    draw=draw,
    panel_height=2.4,
    columns=1,
    alike=False,
)
