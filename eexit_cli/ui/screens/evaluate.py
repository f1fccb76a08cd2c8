"""The evaluation's screen: quality against speed, exit by exit, and the sweep's table."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from rich.markup import escape

from eexit_cli.core.types import RunResult
from eexit_cli.ui.catalogs import entries
from eexit_cli.ui.measures import label, written
from eexit_cli.ui.output import Output
from eexit_cli.ui.screens.evaluate_decoder import is_decoders, show_decoder_evaluation
from eexit_cli.ui.screens.speed import TIMED, is_none, speed_words, with_spread
from eexit_cli.ui.screens.words import criterion_words, facts, source_of_data
from eexit_cli.ui.tables import Column, Row, Sheet

_FULL_OF = {
    "latency_ms": "latency_full_ms",
    "throughput": "throughput_full",
    "flops_per_sample": "flops_full",
}
_LAYERS_OF_FULL = {"speedup_layers": 1.0, "saved_layers": 0.0, "cost_layers": 1.0}
_COUNTS = {
    *("num_layers", "samples", "batch_size"),
    *("latency_samples", "throughput_samples", "timing_repeats"),
}
_BY_EXIT = re.compile(r"(?:(?P<metric>\w+)_exit|exited_at)_(?P<layer>\d+)")
ROWS_PER_CRITERION = 10


def show_evaluation(output: Output, result: RunResult) -> None:
    """Print an evaluation's result in the form that the user asked for."""
    document = result.document
    if is_decoders(document):
        show_decoder_evaluation(output, result)
        return
    swept = bool(document["rows"])
    if output.for_people:
        _head(output, document)
        output.sheet(exits(document["metrics"]))
        if swept:
            output.sheet(quality(document))
            _say_speed(output, document)
    sheet = quality(document, apart=not output.rounds)
    if swept:
        sheet = sweep(document) if output.rounds else raw_sweep(document)
    if output.result(document, sheet, str(result.path)):
        if not swept:
            _say_speed(output, document)
        if swept and len(sheet.rows) < len(document["rows"]):
            total = len(document["rows"])
            output.hint(f"{len(sheet.rows)} of {total} settings; --format csv prints all.")
        output.hint(f"Run:  {result.path}")
        figure = "tradeoff" if swept else "exits"
        output.hint(f"Next: eexit plot {figure} --run {document['run_id']}")


def _say_speed(output: Output, document: Mapping[str, Any]) -> None:
    metrics, rows = document["metrics"], document["rows"]
    alike = [criterion_words(row) for row in rows if is_none("speedup_seconds", row)]
    if words := speed_words(metrics, alike):
        output.say(f"[dim]{escape(words)}[/]")


def quality(document: Mapping[str, Any], *, apart: bool = False) -> Sheet:
    """One row per figure: with early exit, and for the full model.

    Args:
        apart: the ends of intervals have rows of their own, as files and programs want them.
    """
    metrics: Mapping[str, Any] = document["metrics"]
    layers = {"mean_exit_layer": metrics.get("num_layers"), **_LAYERS_OF_FULL}
    rows = []
    for name, value in metrics.items():
        if name in _COUNTS or name.endswith("_full") or name in _FULL_OF.values():
            continue
        if _BY_EXIT.fullmatch(name) or (not apart and name.endswith(("_low", "_high"))):
            continue
        full = metrics.get(_FULL_OF.get(name, f"{name}_full"), layers.get(name))
        words = with_spread(name, metrics)
        rows.append({"metric": name, "early_exit": value, "full_model": full, "words": words})
    return Sheet(
        [
            Column("metric", "", text=lambda row: label(row["metric"])),
            Column(
                "early_exit",
                "Early exit",
                text=lambda row: row["words"],
                numeric=True,
                whole=True,
            ),
            _value("full_model", "Full model"),
        ],
        rows,
        title="Quality and speed",
    )


def sweep(document: Mapping[str, Any]) -> Sheet:
    """One row per setting that changes something, thinned so that people can read it."""
    groups: dict[tuple[Any, Any], list[dict[str, Any]]] = {}
    for row in document["rows"]:
        group = groups.setdefault((row["criterion"], row.get("confidence")), [])
        if not group or row["mean_exit_layer"] != group[-1]["mean_exit_layer"]:
            group.append(dict(row))
    rows = [row for group in groups.values() for row in _thinned(group)]
    settings = _settings()
    columns = [
        Column("criterion", "Exit criterion", text=criterion_words, whole=True),
        *(
            Column(key, _SHORT.get(key), numeric=True)
            for key in dict.fromkeys(key for row in rows for key in row)
            if key not in settings and key != "efficacy" and key not in TIMED
        ),
    ]
    if any(row.get("speedup_seconds") is not None for row in rows):
        columns.append(_SPEEDUP)
    return Sheet(columns, rows, title="Settings, from one pass over the data")


_SPEEDUP = Column(
    "speedup_seconds",
    "Speedup (seconds)",
    text=lambda row: with_spread("speedup_seconds", row),
    numeric=True,
)


def _settings() -> set[str]:
    """What rows say of their exit, which a column tells in words."""
    criteria = entries("exit criterion")
    names = [name for each in criteria for name in (*each.option_names(), *each.also_described)]
    return {"criterion", *names}


_SHORT = {
    "speedup_layers": "Speedup (L/mean)",
    "saved_layers": "Saved layers",
    "cost_layers": "Cost (mean/L)",
}


def _thinned(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """At most ``ROWS_PER_CRITERION`` rows, evenly spread, both ends kept."""
    if len(rows) <= ROWS_PER_CRITERION:
        return rows
    last = len(rows) - 1
    return [rows[i * last // (ROWS_PER_CRITERION - 1)] for i in range(ROWS_PER_CRITERION)]


def raw_sweep(document: Mapping[str, Any]) -> Sheet:
    """Every setting, each of its values in a column of its own, for programs."""
    rows = [dict(row) for row in document["rows"]]
    return Sheet([Column(key) for key in dict.fromkeys(k for row in rows for k in row)], rows)


def _value(key: str, heading: str) -> Column:
    def text(row: Row) -> str:
        return "" if row[key] is None else written(row["metric"], row[key])

    return Column(key, heading, text=text, numeric=True, whole=True)


def exits(metrics: Mapping[str, Any]) -> Sheet:
    """One row per exit: how good it would be alone, and the share of samples that left there."""
    found: dict[int, dict[str, Any]] = {}
    for name, value in metrics.items():
        if (match := _BY_EXIT.fullmatch(name)) is not None:
            row = found.setdefault(int(match["layer"]), {"exit": int(match["layer"])})
            row[match["metric"] or "left_here"] = value
    keys = list(dict.fromkeys(key for row in found.values() for key in row))
    columns = [Column(key, _EXIT_HEADINGS.get(key, label(key)), numeric=True) for key in keys]
    return Sheet(columns, [found[layer] for layer in sorted(found)], title="Exit by exit")


_EXIT_HEADINGS = {"exit": "Exit", "left_here": "Samples that left here"}


def _head(output: Output, document: Mapping[str, Any]) -> None:
    config, metrics = document["config"], document["metrics"]
    output.say()
    output.say(
        facts(
            {
                "model": config.get("model"),
                "data": source_of_data(config),
                "samples": f"{metrics['samples']:,}" if "samples" in metrics else None,
                "layers": metrics.get("num_layers"),
                "exit": criterion_words(config.get("exit")),
            }
        )
    )
    output.say()
