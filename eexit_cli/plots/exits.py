"""How many samples leave at each layer, and how good the answers there are."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from eexit_cli.plots.attack_rows import counted, exit_layers, records_by_recipe
from eexit_cli.plots.axis import layer_axis, metric_label
from eexit_cli.plots.figure import PANEL, FigureSpec, RunView, with_setting
from eexit_cli.plots.slowdown import WHEN

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from pandas import DataFrame

NAN = float("nan")
ENOUGH = 5
"""Fewer samples than this at an exit of an attack run say nothing about its accuracy."""


def suits(run: RunView) -> bool:
    """Runs whose records say at which layer each sample left."""
    if run.config.get("transfer"):
        return False
    name = "exit_layer_before" if run.command == "attack" else "exit_layer"
    return "num_layers" in run.metrics and bool(run.records) and name in run.records[0]


def frame(runs: Sequence[RunView]) -> DataFrame:
    """One row per panel and exit layer; an attack run has a panel before and one after.

    Returns:
        ``panel``, ``exit_layer`` (1..L), ``share`` (of the samples, or of an attacked decoder's
        tokens), ``quality`` (NaN where it is not known or nothing left there), ``quality_label``
        (what ``quality`` is, in words), ``num_layers``, ``counted`` (Samples or Tokens).
    """
    import pandas as pd

    rows = [row for run in runs for row in _READERS[run.command](run)]
    return pd.DataFrame(rows).astype({"share": float, "quality": float})


def _evaluated(run: RunView) -> Iterator[dict[str, Any]]:
    """Each exit judged on all samples, whoever leaves there."""
    layers, panel = [int(record["exit_layer"]) for record in run.records], with_setting(run)
    first = next((name for name in run.metrics if name.endswith("_exit_1")), "")
    metric = first.removesuffix("_exit_1")
    label, scale = metric_label(metric)
    label = label.removesuffix(" (%)") if scale > 1 else f"{label} × 100"
    for layer in range(1, int(run.metrics["num_layers"]) + 1):
        quality = run.metrics.get(f"{metric}_exit_{layer}")
        yield {
            PANEL: panel,
            "exit_layer": layer,
            "share": layers.count(layer) / len(layers),
            "quality": NAN if quality is None else quality,
            "quality_label": f"{label} of the exit, all samples",
            "num_layers": int(run.metrics["num_layers"]),
            "counted": "Samples",
        }


def _attacked(run: RunView) -> Iterator[dict[str, Any]]:
    """The answers that were given: each exit judged on the samples that left there."""
    for recipe, records in records_by_recipe(run).items():
        for when in WHEN:
            panel = f"{run.label}, {when} {recipe or 'the attack'}"
            layers = exit_layers(records, when)
            for layer in range(1, int(run.metrics["num_layers"]) + 1):
                right = [
                    record[f"prediction_{when}"] == record["label"]
                    for record in records
                    if record[f"exit_layer_{when}"] == layer and record.get("label") is not None
                ]
                yield {
                    PANEL: panel,
                    "exit_layer": layer,
                    "share": layers.count(layer) / len(layers),
                    "quality": sum(right) / len(right) if len(right) >= ENOUGH else NAN,
                    "quality_label": f"Accuracy of those samples (where {ENOUGH} or more)",
                    "num_layers": int(run.metrics["num_layers"]),
                    "counted": counted(run),
                }


_READERS = {"evaluate": _evaluated, "attack": _attacked}


def draw(frame: DataFrame, ax: Axes) -> None:
    """Bars: share of the samples. Line: how good the exit is. One axis, both in percent."""
    words = f"{frame['counted'].iloc[0]} that leave"
    ax.bar(frame["exit_layer"], 100 * frame["share"], width=0.7, color="C0", label=words)
    known = frame.dropna(subset=["quality"])
    if len(known):
        ax.plot(
            known["exit_layer"],
            100 * known["quality"],
            color="C1",
            marker="o",
            markeredgecolor="black",
            markeredgewidth=0.4,
            label=str(known["quality_label"].iloc[0]),
        )
    ax.set_title(frame[PANEL].iloc[0])
    ax.set_ylim(min(0.0, 100 * known["quality"].min() if len(known) else 0.0), 103)
    ax.set_yticks(range(0, 101, 25))
    ax.set_ylabel("Percent")
    layer_axis(ax, int(frame["num_layers"].iloc[0]))


FIGURE = FigureSpec(
    name="exits",
    summary="How many samples leave at each layer, and the accuracy there",
    commands=("evaluate", "attack"),
    needs="an evaluation or an attack run with records",
    make="eexit evaluate --model deebert",
    suits=suits,
    frame=frame,
    draw=draw,
)
