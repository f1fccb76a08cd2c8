"""The training's screen: what every exit reached, and what to do with the model."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from eexit_cli.core.types import RunResult
from eexit_cli.ui.measures import label, written
from eexit_cli.ui.output import Output
from eexit_cli.ui.screens.words import facts
from eexit_cli.ui.tables import Column, Sheet


def show_training(output: Output, result: RunResult) -> None:
    """Print a training's result in the form that the user asked for."""
    document = result.document
    config, metrics = document["config"], document["metrics"]
    if output.for_people:
        output.say()
        output.say(
            facts(
                {
                    "model": config.get("model"),
                    "backbone": config.get("backbone"),
                    "task": config.get("data_file") or config.get("task"),
                    "strategy": config.get("strategy"),
                    "pooling": config.get("pooling"),
                    "time": written("seconds", metrics.get("seconds")),
                }
            )
        )
    if output.result(document, exits(metrics), str(config.get("output") or result.path)):
        output.hint(f"Run:   {result.path}")
        if config.get("output"):
            output.hint(f"Model: {config['output']}")
            output.hint(f"Next:  eexit evaluate --model {config['output']} --sweep")


def exits(metrics: Mapping[str, Any]) -> Sheet:
    """One row per exit, one column per validation metric."""
    found: dict[int, dict[str, Any]] = {}
    for name, value in metrics.items():
        base, _, layer = name.rpartition("_exit_")
        if base and layer.isdigit():
            found.setdefault(int(layer), {"exit": int(layer)})[base] = value
    keys = list(dict.fromkeys(key for row in found.values() for key in row if key != "exit"))
    columns = [
        Column("exit", "Exit", numeric=True),
        *(Column(key, f"{label(key)} (validation)", numeric=True) for key in keys),
    ]
    return Sheet(columns, [found[layer] for layer in sorted(found)], title="Every exit")
