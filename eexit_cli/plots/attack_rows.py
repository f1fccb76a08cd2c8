"""What the figures of attacks share: records by recipe, and a line's look."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from eexit_cli.plots.figure import RunView

if TYPE_CHECKING:
    from pandas import DataFrame

COLOURS = 6
"""Of the style, its black left out: that looks like no attack."""
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "<", ">", "p", "*", "h", "d")
DASHES = ("-", "--", ":", "-.", (0, (5, 1, 1, 1, 1, 1)))

UNATTACKED: dict[str, Any] = {"color": "0.65", "linewidth": 3.0, "marker": "None", "zorder": 1.5}
"""The look of a line before any attack: broad and grey, behind the others."""


def is_attack(run: RunView) -> bool:
    """A run that attacked samples, and did not replay another's inputs."""
    return (
        "mean_exit_layer_after" in run.metrics
        and not run.config.get("transfer")
        and bool(run.records)
    )


def records_by_recipe(run: RunView) -> dict[str | None, list[dict[str, Any]]]:
    """An attack run's records; a run of several recipes says in each record which one made it."""
    recipes: dict[str | None, list[dict[str, Any]]] = {}
    for record in run.records:
        recipes.setdefault(record.get("recipe", run.config.get("recipe")), []).append(record)
    return recipes


def exit_layers(records: Sequence[Mapping[str, Any]], when: str) -> list[float]:
    """Where every sample left, or every token of a decoder's outputs; ``when``: before or after."""
    return [
        float(layer)
        for record in records
        for layer in record.get(f"token_layers_{when}", [record[f"exit_layer_{when}"]])
    ]


def counted(run: RunView) -> str:
    """What :func:`exit_layers` lists: ``Samples``, or ``Tokens`` of a decoder's outputs."""
    return "Tokens" if any("token_layers_after" in record for record in run.records) else "Samples"


def rows_by_recipe(run: RunView) -> dict[str | None, Mapping[str, Any]]:
    """The run's figures of each recipe that ran."""
    return {row.get("recipe"): row for row in run.rows if "status" not in row}


def numbered(table: DataFrame, *, besides: str | None = None) -> DataFrame:
    """The table with a ``number`` per ``series``, so that it looks alike in every panel.

    Args:
        besides: a series that has a look of its own.
    """
    names = [name for name in dict.fromkeys(table["series"]) if name != besides]
    return table.assign(number=table["series"].map({n: i for i, n in enumerate(names)}))


def look(number: int) -> dict[str, Any]:
    """Colour, marker and dashes of the n-th line.

    Thirteen lines, as many as there are recipes, differ in their markers, and thirty in colour and
    dashes together. Neighbours differ in both, so that lines over each other show through.
    """
    return {
        "color": f"C{number % COLOURS}",
        "marker": MARKERS[number % len(MARKERS)],
        "linestyle": DASHES[number % len(DASHES)],
    }
