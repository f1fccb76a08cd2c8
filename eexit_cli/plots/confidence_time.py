"""Time that the confidence takes after each decoder layer, for several K of top-k propagation."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from eexit_cli.plots.axis import layer_axis
from eexit_cli.plots.figure import PANEL, FigureSpec, RunView
from eexit_cli.plots.quality_lines import look, looks_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from pandas import DataFrame

_OF_LAYER = re.compile(r"confidence_ms_layer_(\d+)")


def suits(run: RunView) -> bool:
    """Evaluations of a decoder that ask for confidences at one threshold or at a few."""
    if run.config.get("sweep"):
        return False
    return any(_OF_LAYER.fullmatch(name) for row in _settings(run) for name in row)


def frame(runs: Sequence[RunView]) -> DataFrame:
    """One row per run, setting and layer that a confidence was asked after.

    Returns:
        ``panel`` (the threshold, and the run where there are several), ``series`` (measure and
        K), ``layer``, ``milliseconds`` per token that reached the layer with ``low`` and ``high``
        (NaN where it was timed once), ``num_layers``, ``look`` (the series' number, the same in
        every panel), ``longest`` (of all milliseconds).
    """
    import pandas as pd

    several = len(runs) > 1
    table = pd.DataFrame([row for run in runs for row in _rows(run, several)])
    table["look"] = looks_of(table["series"])
    table = table.astype(dict.fromkeys(("milliseconds", "low", "high"), float))
    table["longest"] = table[["milliseconds", "high"]].max().max()
    return table


def _settings(run: RunView) -> Sequence[Mapping[str, Any]]:
    """The rows, or the run's one setting with its figures."""
    exit_ = run.config.get("exit")
    if run.rows or not isinstance(exit_, Mapping):
        return run.rows
    return [{**exit_, **run.metrics}]


def _rows(run: RunView, several: bool) -> Iterator[dict[str, Any]]:
    settings = _settings(run)
    measures = {row.get("confidence") for row in settings if row.get("confidence")}
    for row in settings:
        threshold = f"threshold {row.get('threshold', 1.0):g}"
        for name, value in row.items():
            match = _OF_LAYER.fullmatch(name)
            if match is not None and value is not None:
                yield {
                    PANEL: f"{run.label}, {threshold}" if several else threshold,
                    "series": _series_name(row, len(measures) > 1),
                    "layer": int(match[1]),
                    "milliseconds": value,
                    "low": row.get(f"{name}_low"),
                    "high": row.get(f"{name}_high"),
                    "num_layers": int(run.metrics["num_layers"]),
                }


def _series_name(row: Mapping[str, Any], several: bool) -> str:
    top_k = row.get("top_k_propagation")
    measure = str(row["confidence"]).replace("_", " ")
    if row["confidence"] != "softmax":
        return measure
    tokens = f"K = {top_k}" if top_k else "all tokens"
    return f"{measure}, {tokens}" if several else tokens


def draw(frame: DataFrame, ax: Axes) -> None:
    """A line per K or measure over the layers; the last layer asks for no confidence.

    Bars reach over the interval of each time; a setting that was timed once has none.
    """
    for name, rows in frame.groupby("series", sort=False):
        ordered = rows.sort_values("layer")
        color = look(int(rows["look"].iloc[0]))["color"]
        ends = (ordered["low"], ordered["high"])
        ax.vlines(ordered["layer"], *ends, color=color, linewidth=0.7, zorder=1)
        ax.plot(
            ordered["layer"],
            ordered["milliseconds"],
            label=str(name),
            **look(int(rows["look"].iloc[0])),
        )
    # One scale for all panels: fixing only its foot in the first would freeze its top as well.
    ax.set_ylim(0, frame["longest"].iloc[0] * 1.05)
    ax.set_ylabel("Confidence, ms/token")
    ax.set_title(frame[PANEL].iloc[0])
    layer_axis(ax, int(frame["num_layers"].iloc[0]) - 1, label="Decoder layer")


FIGURE = FigureSpec(
    name="confidence-time",
    summary="Time for the confidence after each decoder layer, a line per K of top-k propagation",
    commands=("evaluate",),
    needs="an evaluation of a decoder with a confidence measure, without --sweep",
    make="eexit evaluate --model calm --threshold 0.9 --top-k-propagation none,10,20",
    suits=suits,
    frame=frame,
    draw=draw,
)
