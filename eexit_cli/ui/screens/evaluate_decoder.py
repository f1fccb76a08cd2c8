"""A decoder's evaluation: layer by layer, early exit against the full model, a row per setting."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from rich.markup import escape

from eexit_cli.core.digits import exact
from eexit_cli.core.types import RunResult
from eexit_cli.ui.measures import label, written
from eexit_cli.ui.output import Output
from eexit_cli.ui.screens.speed import SPEEDUPS, is_none, speed_words, with_spread
from eexit_cli.ui.screens.words import criterion_words, facts, source_of_data
from eexit_cli.ui.tables import Column, Row, Sheet

ROWS_PER_MEASURE = 10

_DEPTH = ("mean_exit_layer", "speedup_layers", "saved_layers", "cost_layers", "efficacy")
_FULL_DEPTH = {"speedup_layers": 1.0, "saved_layers": 0.0, "cost_layers": 1.0}
_SPEED = (
    *("adapted_threshold", "agreement", "layers_run_per_token"),
    *("tokens_per_second", "throughput", "speedup_throughput"),
    *("tokens_per_second_single", "latency_ms", "speedup_seconds"),
    *("flops_per_token", "flops_per_sample"),
)
_TIMES = (
    *("encoder_seconds", "decoder_seconds", "filling_seconds", "confidence_seconds"),
    *("head_seconds", "other_seconds", "seconds"),
)
_FULL_OF = {"latency_ms": "latency_full_ms", "flops_per_sample": "flops_full"}
_OF_LAYER = re.compile(r"(exited_at|decoder_ms_layer|confidence_ms_layer)_(\d+)")


def is_decoders(document: Mapping[str, Any]) -> bool:
    """Is this the evaluation of a decoder?"""
    return "tokens" in document["metrics"]


def show_decoder_evaluation(output: Output, result: RunResult) -> None:
    """Print a decoder's evaluation in the form that the user asked for."""
    document = result.document
    several = bool(document["rows"])
    swept = bool(document["config"].get("sweep"))
    if output.for_people:
        _head(output, document)
        if swept or not several:
            output.sheet(layers(document["metrics"]))
            if several:
                output.sheet(quality(document))
    sheet = quality(document, apart=not output.rounds)
    if several:
        sheet = settings(document) if output.rounds else raw(document)
    if output.result(document, sheet, str(result.path)):
        _say_speed(output, document, sheet.rows if several else ())
        if several and len(sheet.rows) < len(document["rows"]):
            total = len(document["rows"])
            output.hint(f"{len(sheet.rows)} of {total} settings; --format csv prints all.")
        output.hint(f"Run:  {result.path}")
        output.hint(f"Next: eexit plot {_figure(document)} --run {document['run_id']}")


def task_metrics(metrics: Mapping[str, Any]) -> list[str]:
    """The names of the task's metrics, the leading one first: those before the depth's."""
    names = list(metrics)
    return names[: names.index(_DEPTH[0])]


def layers(metrics: Mapping[str, Any]) -> Sheet:
    """One row per decoder layer: tokens that left there, time per token that reached it."""
    found: dict[int, dict[str, Any]] = {}
    for name, value in metrics.items():
        if (match := _OF_LAYER.fullmatch(name)) is not None:
            layer = int(match[2])
            found.setdefault(layer, {"layer": layer})[match[1]] = value
    total = metrics["tokens"]
    rows = [
        {
            "layer": layer,
            "exited_at": row["exited_at"],
            "share": row["exited_at"] / total,
            "decoder_ms": row.get("decoder_ms_layer"),
            "confidence_ms": row.get("confidence_ms_layer"),
        }
        for layer, row in sorted(found.items())
    ]
    return Sheet(
        [
            Column("layer", "Layer", numeric=True),
            Column("exited_at", "Tokens that left here", numeric=True),
            Column("share", "Share", numeric=True, text=lambda row: f"{100 * row['share']:.1f} %"),
            Column("decoder_ms", "Layer, ms per token", numeric=True),
            Column("confidence_ms", "Confidence, ms per token", numeric=True),
        ],
        rows,
        title="Layer by layer",
    )


def _say_speed(output: Output, document: Mapping[str, Any], rows: Sequence[Row]) -> None:
    """What the intervals are of; of several settings those that are as fast as the full model."""
    metrics = document["metrics"]
    shown = ("speedup_throughput",) if rows and not document["config"].get("sweep") else SPEEDUPS
    alike = [
        _short(row)
        for row in rows
        if row["criterion"] != "full" and is_none("speedup_throughput", row)
    ]
    if words := speed_words(metrics, alike, names=shown):
        output.say(f"[dim]{escape(words)}[/]")
    elif "tokens_per_second" in metrics:
        output.say("[dim]Tokens per second: of one pass, which compares with no other.[/]")


def quality(document: Mapping[str, Any], *, apart: bool = False) -> Sheet:
    """One row per figure: with early exit, and for the full model.

    Args:
        apart: the ends of intervals have rows of their own, as files and programs want them.
    """
    metrics: Mapping[str, Any] = document["metrics"]
    full_depth = {"mean_exit_layer": metrics.get("num_layers"), **_FULL_DEPTH}
    rows = []
    names = [*task_metrics(metrics), *_DEPTH, *_SPEED, *_TIMES]
    if apart:
        names = [each for name in names for each in (name, f"{name}_low", f"{name}_high")]
    for name in names:
        if name not in metrics:
            continue
        full = metrics.get(_FULL_OF.get(name, f"{name}_full"), full_depth.get(name))
        words = with_spread(name, metrics)
        rows.append(
            {"metric": name, "early_exit": metrics[name], "full_model": full, "words": words}
        )
    return Sheet(
        [
            Column("metric", "", text=lambda row: _named(row["metric"], metrics)),
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


def settings(document: Mapping[str, Any]) -> Sheet:
    """One row per setting, in few columns; a sweep is thinned so that people can read it."""
    groups: dict[tuple[Any, ...], list[Row]] = {}
    for row in document["rows"]:
        key = (row["criterion"], row.get("confidence"), row.get("top_k_propagation"))
        groups.setdefault(key, []).append(row)
    rows = [row for group in groups.values() for row in _thinned(group)]
    leading = _leading_metric(document["rows"][0])
    # Long names of many measures leave no room for it in 80 columns.
    swept = bool(document["config"].get("sweep"))
    confidence = [] if swept else [Column("confidence_seconds", "Conf. time", numeric=True)]
    return Sheet(
        [
            Column("criterion", "Exit", text=_short, whole=True),
            Column(leading, numeric=True),
            Column("mean_exit_layer", "Mean layer", numeric=True),
            Column("agreement", "As full model", numeric=True),
            Column("tokens_per_second", "Tokens /s", numeric=True, text=_rate),
            *(
                Column(
                    "speedup_throughput",
                    "Speedup",
                    text=lambda row: with_spread("speedup_throughput", row),
                    numeric=True,
                )
                for _ in rows[:1]
                if rows[0].get("speedup_throughput") is not None
            ),
            *confidence,
        ],
        rows,
        title="Settings",
    )


def raw(document: Mapping[str, Any]) -> Sheet:
    """Every setting with all that was measured, each in a column of its own, for programs."""
    rows = document["rows"]
    return Sheet([Column(key) for key in dict.fromkeys(k for row in rows for k in row)], rows)


def _leading_metric(row: Row) -> str:
    return next(name for name in task_metrics(row) if name not in _SETTINGS)


_SETTINGS = {
    *("criterion", "confidence", "threshold", "static_layer", "min_layer", "top_k_propagation"),
    *("decay", "decay_temperature", "decay_length", "shallow_layer"),
    *("threshold_start", "adaptive", "adaptive_zeta", "adaptive_refits"),
}


def _short(row: Row) -> str:
    """A setting in few words: a table has a row for each."""
    if row["criterion"] != "threshold":
        return _SHORT.get(row["criterion"], criterion_words)(row)
    words = f"{row['confidence']} > {exact(row['threshold'])}"
    return f"{words}, top {row['top_k_propagation']}" if row.get("top_k_propagation") else words


_SHORT: dict[str, Callable[[Row], str]] = {
    "full": lambda row: "full model",
    "static": lambda row: f"layer {row['static_layer']}",
    "shallow-deep": lambda row: (
        f"layer {row['shallow_layer']} if {row['confidence']} > {exact(row['threshold'])}"
    ),
}


def _rate(row: Row) -> str:
    return f"{row['tokens_per_second']:,.0f}"


def _named(name: str, metrics: Mapping[str, Any]) -> str:
    if name in ("tokens_per_second", "throughput", "speedup_throughput"):
        return f"{label(name)}, batch {metrics['batch_size']:g}"
    return label(name)


def _value(key: str, heading: str) -> Column:
    def text(row: Row) -> str:
        return "" if row[key] is None else written(row["metric"], row[key])

    return Column(key, heading, text=text, numeric=True, whole=True)


def _thinned(rows: list[Row]) -> list[Row]:
    """At most ``ROWS_PER_MEASURE`` rows, evenly spread, both ends kept."""
    if len(rows) <= ROWS_PER_MEASURE:
        return rows
    last = len(rows) - 1
    return [rows[i * last // (ROWS_PER_MEASURE - 1)] for i in range(ROWS_PER_MEASURE)]


def _figure(document: Mapping[str, Any]) -> str:
    if document["config"].get("sweep"):
        return "quality-layers"
    if len({row.get("top_k_propagation") for row in document["rows"]}) > 1:
        return "confidence-time"
    return "exits-position"


def _head(output: Output, document: Mapping[str, Any]) -> None:
    config, metrics = document["config"], document["metrics"]
    several = bool(document["rows"]) and not config.get("sweep")
    cut, unfinished = metrics.get("truncated"), metrics.get("unfinished")
    output.say()
    output.say(
        facts(
            {
                "model": config.get("model"),
                "data": source_of_data(config),
                "samples": f"{metrics['samples']:,}",
                "inputs cut": f"{cut:,}" if cut else None,
                "outputs cut": f"{unfinished:,}" if unfinished else None,
                "layers": metrics["num_layers"],
                "exit": None if several else criterion_words(config.get("exit")),
            }
        )
    )
    output.say()
