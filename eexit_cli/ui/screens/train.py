"""The training's screen: what every exit reached, and what to do with the model."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from typing import Any

from eexit_cli.core.types import RunResult
from eexit_cli.ui.measures import label, written
from eexit_cli.ui.output import Output
from eexit_cli.ui.screens.evaluate import by_exit
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
                    "classifiers": config.get("confidence"),
                    "pooling": config.get("pooling"),
                    "time": written("seconds", metrics.get("seconds")),
                }
            )
        )
    trained = document["rows"] and "confidence" in document["rows"][0]
    sheet = classifiers(document["rows"]) if trained else exits(metrics)
    if output.result(document, sheet, str(config.get("output") or result.path)):
        output.hint(f"Run:   {result.path}")
        if config.get("output"):
            output.hint(f"Model: {config['output']}")
            output.hint(f"Next:  {_evaluation(config)}")


def _evaluation(config: Mapping[str, Any]) -> str:
    """A command that works as printed: the model knows its data, but not a folder of them."""
    words = ["eexit", "evaluate", "--model", str(config["output"]), "--sweep"]
    if config.get("data_dir"):
        words += ["--data-dir", str(config["data_dir"])]
    return shlex.join(words)


def exits(metrics: Mapping[str, Any]) -> Sheet:
    """One row per exit, one column per validation metric."""
    rows = by_exit(metrics)
    keys = list(dict.fromkeys(key for row in rows for key in row if key != "exit"))
    columns = [
        Column("exit", "Exit", numeric=True),
        *(Column(key, f"{label(key)} (validation)", numeric=True) for key in keys),
    ]
    return Sheet(columns, rows, title="Every exit")


def classifiers(rows: Sequence[Mapping[str, Any]]) -> Sheet:
    """One row per confidence classifier, its AUROC at each layer."""
    layers = [name.rpartition("_")[2] for name in rows[0] if name.startswith("auroc_exit_")]
    columns = [
        Column("confidence", "Classifier"),
        *(Column(f"auroc_exit_{layer}", f"Layer {layer}", numeric=True) for layer in layers),
    ]
    title = "AUROC (validation): does the layer say what the last one says?"
    return Sheet(columns, [dict(row) for row in rows], title=title)
