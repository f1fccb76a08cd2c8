"""The evaluation's screen: exit by exit, early exit against the full model, a row per setting.

What a document holds decides what is shown: one whose model wrote texts counts its tokens.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from rich.markup import escape

from eexit_cli.core.digits import exact
from eexit_cli.core.labels import run_by
from eexit_cli.core.types import RunResult
from eexit_cli.ui.measures import label
from eexit_cli.ui.output import Output
from eexit_cli.ui.screens.energy import ENERGY, SINGLE, has_energy, say_energy
from eexit_cli.ui.screens.speed import SPEEDUPS, TIMED, is_none, speed_words, with_spread
from eexit_cli.ui.screens.words import criterion_words, facts, source_of_data, value_column
from eexit_cli.ui.tables import Column, Row, Sheet, sheet_of

ROWS_PER_CRITERION = 10

_DEPTH = ("mean_exit_layer", "speedup_layers", "saved_layers", "cost_layers", "efficacy")
_OF_TOKENS = (
    *("adapted_threshold", "agreement", "layers_run_per_token"),
    *("acceptance_rate", "tokens_per_verification"),
    *("tokens_per_second", "throughput", "speedup_throughput"),
    *("tokens_per_second_single", "latency_ms", "speedup_seconds"),
    *(name for name in SINGLE if not name.endswith("_full")),
    *("flops_per_token", "flops_per_sample"),
    *("encoder_seconds", "decoder_seconds", "filling_seconds", "confidence_seconds"),
    *("head_seconds", "other_seconds", "seconds"),
)
_COUNTS = {
    *("num_layers", "samples", "batch_size", "latency_full_ms"),
    *("latency_samples", "throughput_samples", "timing_repeats"),
}
_FULL_OF = {"latency_ms": "latency_full_ms", "flops_per_sample": "flops_full"}
_OF_EXIT = re.compile(r"(?:(\w+)_(?:exit|layer)|exited_at)_(\d+)")
_SETTINGS = {
    *("criterion", "confidence", "threshold", "patience", "voting", "voting_exponent"),
    *("regression_tolerance", "static_layer", "min_layer", "top_k_propagation"),
    *("decay", "decay_temperature", "decay_length", "shallow_layer"),
    *("exit_layer", "draft_tokens", "draft_threshold"),
    *("threshold_start", "adaptive", "adaptive_zeta", "adaptive_refits"),
    "runtime",
}


def _decodes(document: Mapping[str, Any]) -> bool:
    """Did the model write texts, token by token?"""
    return "tokens" in document["metrics"]


def show_evaluation(output: Output, result: RunResult) -> None:
    """Print an evaluation's result in the form that the user asked for."""
    document = result.document
    decodes, several = _decodes(document), bool(document["rows"])
    sheet = quality(document, apart=not output.rounds)
    if several:
        sheet = settings(document) if output.rounds else sheet_of(document["rows"])
    if output.for_people:
        _head(output, document)
        # Settings that were listed one by one stand for themselves.
        if not several or document["config"].get("sweep"):
            if not document["config"].get("self_speculative"):  # every token uses all layers
                output.sheet((layers if decodes else exits)(document["metrics"]))
            if several:
                output.sheet(quality(document))
        if several and not decodes:
            _say_speed(output, document)
    if output.result(document, sheet, str(result.path)):
        if document["config"].get("self_speculative"):
            output.say("[dim]Drafts change seconds alone: every output is the full model's.[/]")
        if decodes:
            _say_token_speed(output, document, sheet.rows if several else ())
        elif not several:
            _say_speed(output, document)
        say_energy(output, document)
        if several and len(sheet.rows) < len(document["rows"]):
            total = len(document["rows"])
            output.hint(f"{len(sheet.rows)} of {total} settings; --format csv prints all.")
        output.hint(f"Run:  {result.path}")
        output.hint(f"Next: eexit plot {_figure(document)} --run {document['run_id']}")


def _figure(document: Mapping[str, Any]) -> str:
    if document["config"].get("self_speculative"):
        return "acceptance"
    if not _decodes(document):
        return "tradeoff" if document["rows"] else "exits"
    if document["config"].get("sweep"):
        return "quality-layers"
    if len({row.get("top_k_propagation") for row in document["rows"]}) > 1:
        return "confidence-time"
    return "exits-position"


def _head(output: Output, document: Mapping[str, Any]) -> None:
    config, metrics = document["config"], document["metrics"]
    listed = bool(document["rows"]) and not config.get("sweep")
    samples, cut, unfinished = map(metrics.get, ("samples", "truncated", "unfinished"))
    output.say()
    output.say(
        facts(
            {
                "model": config.get("model"),
                **run_by(config),
                "data": source_of_data(config),
                "samples": None if samples is None else f"{samples:,}",
                "inputs cut": f"{cut:,}" if cut else None,
                "outputs cut": f"{unfinished:,}" if unfinished else None,
                "layers": metrics.get("num_layers"),
                "exit": None if listed else criterion_words(config.get("exit")),
            }
        )
    )
    output.say()


def _say_speed(output: Output, document: Mapping[str, Any]) -> None:
    alike = [
        ", ".join(filter(None, (row.get("runtime"), criterion_words(row))))
        for row in document["rows"]
        if is_none("speedup_seconds", row)
    ]
    if words := speed_words(document["metrics"], alike):
        output.say(f"[dim]{escape(words)}[/]")


def _say_token_speed(output: Output, document: Mapping[str, Any], rows: Sequence[Row]) -> None:
    """What the intervals are of; of several settings those that are as fast as the full model."""
    metrics = document["metrics"]
    listed = rows and not document["config"].get("sweep")
    shown = ("speedup_throughput",) if listed else SPEEDUPS
    of_rows = "speedup_throughput"
    if document["config"].get("self_speculative") and rows:
        shown, of_rows = ("speedup_seconds",), "speedup_seconds"
    alike = [_short(row) for row in rows if row["criterion"] != "full" and is_none(of_rows, row)]
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
    full = {
        "mean_exit_layer": metrics.get("num_layers"),
        **{"speedup_layers": 1.0, "saved_layers": 0.0, "cost_layers": 1.0},
    }
    decodes = _decodes(document)
    rows = [
        {
            "metric": name,
            "early_exit": metrics[name],
            "full_model": metrics.get(_FULL_OF.get(name, f"{name}_full"), full.get(name)),
            "words": with_spread(name, metrics),
        }
        for name in (_token_figures if decodes else _figures)(metrics, apart)
    ]

    def named(row: Row) -> str:
        in_batches = ("tokens_per_second", "throughput", "speedup_throughput")
        batch = decodes and row["metric"] in in_batches
        return label(row["metric"]) + (f", batch {metrics['batch_size']:g}" if batch else "")

    early = Column("early_exit", "Early exit", lambda row: row["words"], numeric=True, whole=True)
    columns = [Column("metric", "", text=named), early, value_column("full_model", "Full model")]
    return Sheet(columns, rows, title="Quality and speed")


def _figures(metrics: Mapping[str, Any], apart: bool) -> list[str]:
    """What is neither a count, nor the full model's, nor one exit's."""
    left_out = ("_full",) if apart else ("_full", "_low", "_high")
    return [
        name
        for name in metrics
        if name not in _COUNTS and not name.endswith(left_out) and not _OF_EXIT.fullmatch(name)
        if apart or name not in ENERGY or metrics[name] is not None
    ]


def _token_figures(metrics: Mapping[str, Any], apart: bool) -> list[str]:
    """The task's metrics, then depth, speed and time by part."""
    ends = ("", "_low", "_high") if apart else ("",)
    names = (*_task_metrics(metrics), *_DEPTH, *_OF_TOKENS)
    found = [name + end for name in names for end in ends if name + end in metrics]
    return [name for name in found if apart or name not in ENERGY or metrics[name] is not None]


def _task_metrics(metrics: Mapping[str, Any]) -> list[str]:
    """The names of the task's metrics, the leading one first: those before the depth's."""
    names = list(metrics)
    return names[: names.index(_DEPTH[0])]


def by_exit(metrics: Mapping[str, Any]) -> list[dict[str, Any]]:
    """One row per exit with what was measured there, and ``exited_at``: how many left there."""
    found: dict[int, dict[str, Any]] = {}
    for name, value in metrics.items():
        if (match := _OF_EXIT.fullmatch(name)) is not None:
            row = found.setdefault(int(match[2]), {"exit": int(match[2])})
            row[match[1] or "exited_at"] = value
    return [found[layer] for layer in sorted(found)]


def exits(metrics: Mapping[str, Any]) -> Sheet:
    """One row per exit: how good it would be alone, and the share of samples that left there."""
    rows = by_exit(metrics)
    headings = {"exit": "Exit", "exited_at": "Samples that left here"}
    keys = dict.fromkeys(key for row in rows for key in row)
    columns = [Column(key, headings.get(key), numeric=True) for key in keys]
    return Sheet(columns, rows, title="Exit by exit")


def layers(metrics: Mapping[str, Any]) -> Sheet:
    """One row per decoder layer: tokens that left there, time per token that reached it."""
    rows = by_exit(metrics)

    def share(row: Row) -> str:
        return f"{100 * row['exited_at'] / metrics['tokens']:.1f} %"

    columns = [
        Column("exit", "Layer", numeric=True),
        Column("exited_at", "Tokens that left here", numeric=True),
        Column("share", "Share", numeric=True, text=share),
        Column("decoder_ms", "Layer, ms per token", numeric=True),
        Column("confidence_ms", "Confidence, ms per token", numeric=True),
    ]
    return Sheet(columns, rows, title="Layer by layer")


def settings(document: Mapping[str, Any]) -> Sheet:
    """One row per setting that changes something, thinned so that people can read it."""
    decodes = _decodes(document)
    groups: dict[tuple[Any, ...], list[Row]] = {}
    for row in document["rows"]:
        names = ("runtime", "criterion", "confidence", "top_k_propagation")
        key = tuple(map(row.get, names))
        group = groups.setdefault(key, [])
        if decodes or not group or row["mean_exit_layer"] != group[-1]["mean_exit_layer"]:
            group.append(row)
    rows = [row for group in groups.values() for row in _thinned(group)]
    if decodes:
        return Sheet(_token_columns(document, rows), rows, title="Settings")
    if "runtime" in rows[0]:
        return Sheet(_runtime_columns(rows), rows, title="Settings, by what runs them")
    shown = [
        key
        for key in dict.fromkeys(key for row in rows for key in row)
        if key not in _SETTINGS and key != "efficacy" and key not in TIMED | ENERGY
    ]
    columns = [
        Column("criterion", "Exit criterion", text=criterion_words, whole=True),
        *(Column(key, _HEADINGS.get(key), numeric=True) for key in shown),
    ]
    if any(row.get("speedup_seconds") is not None for row in rows):
        columns.append(_with_ends("speedup_seconds", "Speedup (seconds)"))
    columns += _joules("joules_per_sample", "Joules", rows)
    return Sheet(columns, rows, title="Settings, from one pass over the data")


_HEADINGS = {
    "speedup_layers": "Speedup (L/mean)",
    "saved_layers": "Saved layers",
    "cost_layers": "Cost (mean/L)",
}


def _runtime_columns(rows: Sequence[Row]) -> list[Column]:
    """Seconds compare across runtimes, shares of each one's own full depth do not."""
    leading = next(name for name in _task_metrics(rows[0]) if name not in _SETTINGS)
    columns = [
        Column("runtime", "Runtime", whole=True),
        Column("criterion", "Exit criterion", text=criterion_words, whole=True),
        Column(leading, numeric=True),
        Column("mean_exit_layer", "Mean layer", numeric=True),
    ]
    timed = {
        "latency_ms": "ms",
        "latency_full_ms": "Full depth, ms",
        "throughput": "Inputs /s",
        "throughput_full": "Full depth, /s",
    }
    columns += [
        Column(name, heading, numeric=True) for name, heading in timed.items() if name in rows[0]
    ]
    return columns + _joules("joules_per_sample", "Joules", rows)


def _thinned(rows: list[Row]) -> list[Row]:
    """At most ``ROWS_PER_CRITERION`` rows, evenly spread, both ends kept."""
    if len(rows) <= ROWS_PER_CRITERION:
        return rows
    last = len(rows) - 1
    return [rows[i * last // (ROWS_PER_CRITERION - 1)] for i in range(ROWS_PER_CRITERION)]


def _token_columns(document: Mapping[str, Any], rows: Sequence[Row]) -> list[Column]:
    first = document["rows"][0]
    leading = next(name for name in _task_metrics(first) if name not in _SETTINGS)
    columns = [Column("criterion", "Exit", text=_short, whole=True), Column(leading, numeric=True)]
    if any("acceptance_rate" in row for row in rows):
        columns += [
            Column("acceptance_rate", "Accepted", numeric=True),
            Column("tokens_per_verification", "Tokens a pass", numeric=True),
            Column("layers_run_per_token", "Layers a token", numeric=True),
        ]
        if rows[-1].get("speedup_seconds") is not None:
            columns.append(_with_ends("speedup_seconds", "Speedup, batch 1"))
        return columns + _joules("joules_per_token", "Joules a token", rows)
    columns += [
        Column("mean_exit_layer", "Mean layer", numeric=True),
        Column("agreement", "As full model", numeric=True),
        Column("tokens_per_second", "Tokens /s", _rate, numeric=True),
    ]
    if rows and rows[0].get("speedup_throughput") is not None:
        columns.append(_with_ends("speedup_throughput", "Speedup"))
    # Long names of many measures leave no room for it in 80 columns.
    if not document["config"].get("sweep"):
        columns.append(Column("confidence_seconds", "Conf. time", numeric=True))
        columns += _joules("joules_per_token", "Joules a token", rows)
    return columns


def _with_ends(name: str, heading: str) -> Column:
    return Column(name, heading, lambda row: with_spread(name, row), numeric=True)


def _joules(name: str, heading: str, rows: Sequence[Row]) -> list[Column]:
    """A column where joules were measured."""
    return [_with_ends(name, heading)] if any(has_energy(row) for row in rows) else []


def _rate(row: Row) -> str:
    return f"{row['tokens_per_second']:,.0f}"


def _short(row: Row) -> str:
    """A setting in few words: a table has a row for each."""
    if row["criterion"] != "threshold":
        return _SHORT.get(row["criterion"], criterion_words)(row)
    words = f"{row['confidence']} > {exact(row['threshold'])}"
    return f"{words}, top {row['top_k_propagation']}" if row.get("top_k_propagation") else words


_SHORT: dict[str, Callable[[Row], str]] = {
    "self-speculative": lambda row: f"layer {row['exit_layer']}, {row['draft_tokens']} drafted",
    "full": lambda row: "full model",
    "static": lambda row: f"layer {row['static_layer']}",
    "shallow-deep": lambda row: (
        f"layer {row['shallow_layer']} if {row['confidence']} > {exact(row['threshold'])}"
    ),
}
