"""Lists: models, runs, recipes."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from eexit_cli.core.digits import exact
from eexit_cli.ui.catalogs import names
from eexit_cli.ui.measures import written
from eexit_cli.ui.screens.words import criterion_words
from eexit_cli.ui.tables import Column, Row, Sheet

if TYPE_CHECKING:
    from eexit_cli.store.models import ModelSummary
    from eexit_cli.store.results import RunSummary

SHORTEST_ID = len("20261121-033015…-ab12")
"""An id with its time and its last part alone, which name it too (``ResultStore.open``)."""


def recipes(found: Sequence[Any], problems: Mapping[str, str] | None = None) -> Sheet:
    """The attack catalog (``attacks.recipe.Recipe``), with the models that each name attacks.

    Args:
        found: the recipes.
        problems: those of other packages that cannot be used, and why.
    """
    decoders = names("decoder recipe")
    rows = [
        {
            "recipe": recipe.name,
            "description": recipe.description,
            "models": "all" if recipe.name in decoders else "classifiers",
            "source": recipe.source,
            "needs": "; ".join(recipe.needs) or None,
            "missing": recipe.missing() if recipe.missing is not None else None,
        }
        for recipe in found
    ]
    nothing = dict.fromkeys(("models", "source", "needs", "missing"))
    for name, said in (problems or {}).items():
        rows.append({"recipe": name, "description": said, **nothing})
    columns = [
        Column("recipe", "Recipe", style="cyan", whole=True),
        Column("description", "What it does"),
        Column("models", "Models"),
        Column("source", "Source"),
    ]
    if any(row["needs"] for row in rows):
        columns.append(Column("needs", "Needs", text=_needs))
    return Sheet(columns, rows)


def _needs(row: Row) -> str:
    """What it needs, in a word each; how to get it stands below the table."""
    if not row["needs"]:
        return "nothing" if row["models"] else ""
    state = "missing here" if row["missing"] else "here"
    return f"{', '.join(_parts(row['missing'] or row['needs']))} ({state})"


def _parts(needs: str) -> dict[str, str]:
    """What it is called -> how to get it, of "vectors (pip install ...); a tagger (...)"."""
    return {name.strip(): how for name, how in re.findall(r"([^;(]+) \((.+?)\)(?=; |$)", needs)}


def how_to_get(sheet: Sheet) -> list[str]:
    """Lines for what the recipes of a list lack here."""
    lacking: dict[str, str] = {}
    for row in sheet.rows:
        lacking |= _parts(row["missing"] or "")
    return [f"{name}: {how}" for name, how in lacking.items()]


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
        "classifiers": list(summary.classifiers),
        "task": summary.task,
        "megabytes": round(summary.megabytes, 1),
        "runtime": summary.runtime,
        "default_exit": default,
        **{f"default_{key}": value for key, value in provenance.items()},
        "path": None if summary.path is None else str(summary.path),
    }


def calibrations(rows: Sequence[Row]) -> Sheet:
    """What a model keeps of its calibrations (``store.calibrations.StoredCalibration``)."""
    return Sheet(
        [
            Column("run_id", "Run", style="cyan", shortest=SHORTEST_ID),
            Column("state", "State", whole=True),
            Column("task", "Data"),
            Column("settings", "Exit", text=lambda row: criterion_words(row["settings"])),
            Column("certified", "Certified", text=lambda row: "yes" if row["certified"] else "no"),
            Column("delta", "delta", text=lambda row: exact(row["delta"]), numeric=True),
            Column("epsilon", "epsilon", text=lambda row: exact(row["epsilon"]), numeric=True),
            Column("consistency", "Consistency"),
            Column("samples", "Samples", numeric=True),
        ],
        rows,
        title="Calibrations, oldest first",
    )


def figures(found: Sequence[Any]) -> Sheet:
    """The figures (``plots.figure.FigureSpec``), and what makes a run for each."""
    return Sheet(
        [
            Column("figure", "Figure", style="cyan", whole=True),
            Column("shows", "Shows"),
            Column("reads", "Reads"),
            Column("made", "Such a run", text=lambda row: f"eexit {row['made']}"),
        ],
        [
            {
                "figure": figure.name,
                "shows": figure.summary,
                "reads": figure.needs,
                "made": figure.make.removeprefix("eexit "),
            }
            for figure in found
        ],
    )


def tasks(found: Sequence[Mapping[str, Any]]) -> Sheet:
    """The data sets (``data.catalogue.describe_tasks``)."""
    return Sheet(
        [
            Column("task", "Task", style="cyan", whole=True),
            Column("kind"),
            Column("metrics"),
            Column("source", "From"),
            Column("splits"),
        ],
        [
            {
                "task": row["task"],
                "kind": _kind(row),
                "metrics": ", ".join(row["metrics"]),
                "source": row["source"],
                "splits": _splits(row),
            }
            for row in found
        ],
    )


def _kind(row: Mapping[str, Any]) -> str:
    pair = " of pairs" if row["pair"] else ""
    return f"{len(row['classes'])} classes{pair}" if row["classes"] else f"{row['kind']}{pair}"


def _splits(row: Mapping[str, Any]) -> str:
    """With their sizes, where they are known."""
    return ", ".join(
        split if size is None else f"{split} {size:,}" for split, size in row["splits"].items()
    )


def runs(summaries: Sequence[RunSummary]) -> Sheet:
    """Runs, the newest first (``store.results.RunSummary``)."""
    rows = [
        {
            "run": summary.id,
            "command": summary.command,
            "model": summary.config.get("model"),
            "created": summary.created,
            "data": run_data(summary.config),
            "setting": run_setting(summary.config),
            "status": summary.status,
            "result": telling(summary.metrics),
        }
        for summary in reversed(summaries)
    ]
    return Sheet(
        [
            Column("run", "Run", style="cyan", shortest=SHORTEST_ID),
            Column(
                "model", "What", text=lambda row: f"{row['command']} {row['model'] or ''}".strip()
            ),
            Column("setting", "Of", text=_told_apart),
            Column("result", "Result", text=_outcome),
        ],
        rows,
    )


def _what(row: Row) -> str:
    return f"{row['command']} {row['model'] or ''}".strip()


def _told_apart(row: Row) -> str:
    return "; ".join(filter(None, (row["data"], row["setting"])))


def _outcome(row: Row) -> str:
    return str(row["result"] if row["status"] == "finished" else row["status"])


_DATA = ("losses", "data_file", "data", "task")
"""What a run read, the most telling first."""


def run_data(config: Mapping[str, Any]) -> str:
    """What a run read, and how much of it: "movie-reviews, 40"."""
    of = next((config[key] for key in _DATA if config.get(key)), None)
    if of is None:
        return ""
    limit = config.get("limit")
    return Path(str(of)).name + (f", {limit}" if limit else "")


def run_setting(config: Mapping[str, Any]) -> str:
    """What a run did with it: recipes, delta, the exit or the sweep, what was trained from what."""
    if config.get("transfer"):
        # The last part of an id names the run too.
        said = [f"replay of {_listed([str(run)[-4:] for run in config['transfer']])}"]
    else:
        said = [_listed(config.get("recipes") or config.get("recipe"))]
    if config.get("delta") is not None:
        said.append(f"delta {_listed(config['delta'])}")
        said.append(_listed(config.get("confidence") or config.get("criterion")))
    elif config.get("sweep"):
        said.append("sweep")
    elif isinstance(config.get("exit"), Mapping):
        said.append(criterion_words(config["exit"]))
    if config.get("backbone"):
        said.append(f"from {config['backbone']}")
    return "; ".join(filter(None, said))


def _listed(value: Any) -> str:
    values = value if isinstance(value, (list, tuple)) else [value]
    return ", ".join(exact(v) if isinstance(v, float) else str(v) for v in values if v is not None)


def telling(metrics: Mapping[str, Any]) -> str:
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
        {"property": key, "value": value}
        for key, value in pairs.items()
        if value is not None and value != []
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
