"""Where a decoder's tokens leave, by their position in the output."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from eexit_cli.plots.figure import PANEL, FigureSpec, RunView, with_setting

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from pandas import DataFrame

ENOUGH_SHARE, ENOUGH = 0.02, 5
"""A position that fewer outputs reach (share, number) is left out: it would be noise."""

MOST_NAMED = 8
"""Layers in the legend; of deeper models every second or third is named."""


def suits(run: RunView) -> bool:
    """Runs whose records say at which layer each token left."""
    if "num_layers" not in run.metrics or run.speculates:
        return False
    return bool(run.records) and "exit_layers" in run.records[0]


def frame(runs: Sequence[RunView]) -> DataFrame:
    """One row per run, position and layer.

    Returns:
        ``panel`` (the run and its setting), ``position`` (from 1), ``exit_layer`` (1..L),
        ``share`` (of the tokens at that position), ``tokens`` (there), ``num_layers``.
    """
    import pandas as pd

    return pd.DataFrame([row for run in runs for row in _rows(run)]).astype({"share": float})


def _rows(run: RunView) -> Iterator[dict[str, Any]]:
    layers, panel = int(run.metrics["num_layers"]), with_setting(run)
    outputs = [record["exit_layers"] for record in run.records]
    least = min(len(outputs), max(ENOUGH, ENOUGH_SHARE * len(outputs)))
    for position in range(max(map(len, outputs))):
        there = [output[position] for output in outputs if position < len(output)]
        if len(there) < least:
            return
        for layer in range(1, layers + 1):
            yield {
                PANEL: panel,
                "position": position + 1,
                "exit_layer": layer,
                "share": there.count(layer) / len(there),
                "tokens": len(there),
                "num_layers": layers,
            }


def draw(frame: DataFrame, ax: Axes) -> None:
    """Bars that are stacked from the first layer up, from dark (early) to light (late)."""
    from matplotlib import colormaps

    layers = int(frame["num_layers"].iloc[0])
    every = -(-layers // MOST_NAMED)
    shades = colormaps["viridis"]
    below = None
    for layer in range(1, layers + 1):
        rows = frame[frame["exit_layer"] == layer].sort_values("position")
        share = 100 * rows["share"].to_numpy()
        named = layer == layers or (layer - 1) % every == 0
        ax.bar(
            rows["position"],
            share,
            bottom=below,
            width=0.85,
            color=shades((layer - 1) / max(1, layers - 1)),
            label=f"layer {layer}" if named else "_",
        )
        below = share if below is None else below + share
    last = int(frame["position"].max())
    step = max(1, -(-last // 10))
    ax.set_xticks(range(1, last + 1, step))
    ax.set_xlim(0.4, last + 0.6)
    ax.set_ylim(0, 100)
    ax.set_yticks(range(0, 101, 25))
    ax.set_xlabel("Position in the output")
    ax.set_ylabel("Tokens that left (%)")
    ax.set_title(frame[PANEL].iloc[0])


FIGURE = FigureSpec(
    name="exits-position",
    summary="The layers at which a decoder's tokens leave, by their position in the output",
    commands=("evaluate",),
    needs="an evaluation of a decoder",
    make="eexit evaluate --model calm",
    suits=suits,
    frame=frame,
    draw=draw,
    columns=1,
)
