"""Lists: models, runs, recipes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from eexit_cli.ui.measures import written
from eexit_cli.ui.screens.words import criterion_words
from eexit_cli.ui.tables import Column, Row, Sheet

if TYPE_CHECKING:
    from eexit_cli.store.models import ModelSummary
    from eexit_cli.store.results import RunSummary


def recipes(found: Sequence[Any]) -> Sheet:
    """The attack catalog (``attacks.recipe.Recipe``)."""
    rows = [
        {
            "recipe": recipe.name,
            "description": recipe.description,
            "source": recipe.source,
            "needs": ", ".join(recipe.needs) or None,
        }
        for recipe in found
    ]
    columns = [
        Column("recipe", "Recipe", style="cyan", whole=True),
        Column("description", "What it does"),
        Column("source", "Source"),
    ]
    if any(row["needs"] for row in rows):
        columns.append(Column("needs", "Needs"))
    return Sheet(columns, rows)


def models(summaries: Sequence[ModelSummary]) -> Sheet:
    """What ``--model`` takes by name here (``store.models.ModelSummary``)."""
    rows = [model_facts(summary) for summary in summaries]
    return Sheet(
        [
            Column("name", "Model", style="cyan"),
            Column("kind"),
            Column("family"),
            Column("backbone"),
            Column("layers", numeric=True),
            Column("task", whole=True),
            Column("megabytes", "MB", numeric=True),
            Column("default_exit", text=lambda row: criterion_words(row["default_exit"])),
        ],
        rows,
    )


def model_facts(summary: ModelSummary) -> dict[str, Any]:
    """What is known of a model without loading it."""
    default = dict(summary.default_exit) or {"criterion": "full"}
    provenance = default.pop("provenance", None) or {}
    return {
        "name": summary.name,
        "kind": summary.kind,
        "family": summary.family,
        "backbone": summary.backbone,
        "layers": summary.layers,
        "labels": list(summary.labels),
        "task": summary.task,
        "megabytes": round(summary.megabytes, 1),
        "default_exit": default,
        **{f"default_{key}": value for key, value in provenance.items()},
        "path": None if summary.path is None else str(summary.path),
    }


def runs(summaries: Sequence[RunSummary]) -> Sheet:
    """Runs, the newest first (``store.results.RunSummary``)."""
    rows = [
        {
            "run": summary.id,
            "command": summary.command,
            "model": summary.config.get("model"),
            "created": summary.created,
            "status": summary.status,
            "result": _telling(summary.metrics),
        }
        for summary in reversed(summaries)
    ]
    return Sheet(
        [
            Column("run", "Run", style="cyan", whole=True),
            Column("status"),
            Column("result", "Result"),
        ],
        rows,
    )


def _telling(metrics: Mapping[str, Any]) -> str:
    """One figure that says most about a run."""
    if "certified" in metrics:
        if not metrics["certified"]:
            return "nothing certified"
        return f"threshold {written('threshold', metrics.get('threshold'))} certified"
    if "gain_removed" in metrics:
        return f"{written('gain_removed', metrics['gain_removed'])} removed"
    if "mean_exit_layer" in metrics:
        return f"mean exit {written('mean_exit_layer', metrics['mean_exit_layer'])}"
    last = [name for name in metrics if "_exit_" in name]
    return f"last exit {written(last[-1], metrics[last[-1]])}" if last else ""


def properties(pairs: Mapping[str, Any]) -> Sheet:
    """Name and value, one pair a row."""
    rows: list[Row] = [
        {"property": key, "value": value} for key, value in pairs.items() if value is not None
    ]
    name = Column("property", "", text=lambda row: row["property"].replace("_", " "), style="dim")
    text = Column("value", "", text=lambda row: _plain(row["property"], row["value"]))
    return Sheet([name, text], rows)


def _plain(name: str, value: Any) -> str:
    if isinstance(value, Mapping):
        return criterion_words(value)
    if isinstance(value, (list, tuple)):
        return ", ".join(map(str, value))
    return written(name.removeprefix("default_"), value)
