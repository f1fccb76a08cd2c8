"""What self-speculation's drafts are worth, by the layer that they come from."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from eexit_cli.plots.axis import layer_axis
from eexit_cli.plots.figure import PANEL, FigureSpec, RunView
from eexit_cli.plots.quality_lines import look, looks_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from pandas import DataFrame

FIGURES: Mapping[str, tuple[str, float]] = {
    "acceptance_rate": ("Drafted tokens accepted, %", 100.0),
    "tokens_per_verification": ("Tokens per verification", 1.0),
    "speedup_seconds": ("Speedup in seconds, batch 1", 1.0),
}
"""A panel each: what is drawn, its label and scale."""


def suits(run: RunView) -> bool:
    """Evaluations of self-speculation, of one layer's drafts or of several layers'."""
    return any("acceptance_rate" in row for row in _settings(run))


def _settings(run: RunView) -> Sequence[Mapping[str, Any]]:
    """The rows, or the run's one setting with its figures."""
    exit_ = run.config.get("exit")
    if run.rows or not isinstance(exit_, Mapping):
        return run.rows
    return [{**exit_, **run.metrics}]


def frame(runs: Sequence[RunView]) -> DataFrame:
    """One row per run, setting and figure.

    Returns:
        ``panel`` (the figure), ``series`` (the longest draft, and the run where there are several),
        ``layer``, ``value``, ``low`` and ``high`` (NaN but for measured seconds), ``num_layers``,
        ``look`` (the series' number, the same in every panel).
    """
    import pandas as pd

    several = len(runs) > 1
    table = pd.DataFrame([row for run in runs for row in _rows(run, several)])
    table["look"] = looks_of(table["series"])
    return table.astype(dict.fromkeys(("value", "low", "high"), float))


def _rows(run: RunView, several: bool) -> Iterator[dict[str, Any]]:
    for name, (label, scale) in FIGURES.items():
        for row in _settings(run):
            if "exit_layer" not in row or row.get(name) is None:
                continue
            words = [f"{row['draft_tokens']} drafted"]
            if row.get("draft_threshold"):
                words.append(f"above {row['draft_threshold']:g}")
            if several:
                words.insert(0, run.label)
            ends = {end: row.get(f"{name}_{end}") for end in ("low", "high")}
            yield {
                PANEL: label,
                "series": ", ".join(words),
                "layer": int(row["exit_layer"]),
                "value": scale * row[name],
                **{end: None if value is None else scale * value for end, value in ends.items()},
                "num_layers": int(run.metrics["num_layers"]),
            }


def draw(frame: DataFrame, ax: Axes) -> None:
    """A line per draft length over the layers that draft; a grey line where nothing is gained.

    Bars reach over the interval of measured seconds.
    """
    label = str(frame[PANEL].iloc[0])
    for name, rows in frame.groupby("series", sort=False):
        ordered = rows.sort_values("layer")
        looks = look(int(rows["look"].iloc[0]))
        ends = (ordered["low"], ordered["high"])
        ax.vlines(ordered["layer"], *ends, color=looks["color"], linewidth=0.7, zorder=1)
        ax.plot(ordered["layer"], ordered["value"], label=str(name), **looks)
    if label != FIGURES["acceptance_rate"][0]:
        ax.axhline(1.0, color="0.6", linewidth=0.8, zorder=1)
    ax.set_ylim(bottom=0)
    ax.set_ylabel(label)
    layer_axis(ax, int(frame["num_layers"].iloc[0]) - 1, label="Layer that drafts")


FIGURE = FigureSpec(
    name="acceptance",
    summary="What self-speculation's drafts are worth, by the layer that they come from",
    commands=("evaluate",),
    needs="an evaluation with --self-speculative",
    make="eexit evaluate --model layerskip --self-speculative --sweep",
    suits=suits,
    frame=frame,
    draw=draw,
    columns=1,
    alike=False,
)
