"""The calibration's screen: the guarantee, the accepted threshold, what other tests would give."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from rich.markup import escape

from eexit_cli.core.digits import confidence, exact
from eexit_cli.core.labels import run_by
from eexit_cli.core.types import RunResult
from eexit_cli.ui.measures import label, written
from eexit_cli.ui.output import Output
from eexit_cli.ui.screens.kept import uses
from eexit_cli.ui.screens.speed import SPEEDUPS, speed_words, with_spread
from eexit_cli.ui.screens.words import criterion_words, facts, source_of_data, value_column
from eexit_cli.ui.tables import Column, Row, Sheet

_FIGURES = (
    *("threshold", "mean_loss", "mean_loss_bound", "p_value"),
    *("mean_exit_layer", "speedup_layers", "saved_layers", "quality"),
    *("speedup_seconds", "latency_ms", "speedup_throughput"),
)
_ATTACK = (
    *("mean_loss", "mean_loss_low", "mean_loss_high", "within_delta"),
    *("mean_exit_layer", "speedup_layers"),
)


def show_calibration(output: Output, result: RunResult) -> None:
    """Print a calibration's result in the form that the user asked for."""
    document = result.document
    report: Mapping[str, Any] = document.get("report", {})
    path = str(result.path)
    if output.for_people:
        output.say()
        for part in by_measure(document):
            _verdict(output, part)
        _head(output, document)
        if report.get("measures"):
            output.sheet(measures(document))
        for part in by_measure(document):
            _one(output, part)
        for note in report.get("notes", ()):
            output.paragraph(note, "dim")
    sheet = thresholds(document, all_rows=not output.for_people)
    if output.result(document, sheet, path):
        if len(sheet.rows) < len(document["rows"]):
            output.hint(
                f"{len(sheet.rows)} of {len(document['rows'])} thresholds; --format csv prints all."
            )
        output.hint(f"Run:  {result.path}")
        if report.get("stored"):
            output.hint(f"Kept: {report['stored']}")
            lead = "Next: "
            for command in uses(document):
                output.hint(f"{lead}{command}")
                lead = "      "
        output.hint(f"      eexit plot calibration --run {document['run_id']}")


def by_measure(document: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """One document per measure; a run of one measure is that itself."""
    return [
        {
            **document,
            "config": {**document["config"], "confidence": part["confidence"]},
            "metrics": part["metrics"],
            "rows": [row for row in document["rows"] if row["confidence"] == part["confidence"]],
            "report": part,
        }
        for part in document.get("report", {}).get("measures", ())
    ] or [document]


def _one(output: Output, document: Mapping[str, Any]) -> None:
    """Everything about one measure."""
    report = document.get("report", {})
    _promise(output, document)
    output.sheet(chosen(document))
    output.paragraph(speed_words(document["metrics"]), "dim")
    if report.get("bound"):
        output.paragraph(report["bound"])
        output.say()
    _alternatives(output, document)
    output.say()
    if report.get("comparison"):
        output.sheet(comparison(document))
    _attack(output, document)


def _verdict(output: Output, document: Mapping[str, Any]) -> None:
    """What came of it, in one line."""
    metrics, report = document["metrics"], document.get("report", {})
    where = criterion_words(report["exit"]) if report.get("exit") else None
    if where is None and "threshold" in metrics:
        where = f"threshold {written('threshold', metrics['threshold'])}"
    accepted = "p_value" in metrics
    if accepted:
        done = "Certified" if metrics["certified"] else "Accepted without a guarantee"
        mean, layers = metrics.get("mean_exit_layer"), metrics.get("num_layers")
        of = "" if layers is None else f" of {layers:g}"
        depth = "" if mean is None else f", {mean:.2f}{of} layers on average"
        said = f"{done}: {where}{depth}"
    else:
        instead = "; the answer is the full model" if where is not None else ""
        said = f"Nothing certified: no early exit at delta {exact(metrics['delta'])}{instead}"
    style = "green" if metrics["certified"] else "yellow"
    output.say(f"[bold {style}]{escape(said)}[/]")


def _alternatives(output: Output, document: Mapping[str, Any]) -> None:
    """Other p-values: a row where one gives another threshold, one line for the rest."""
    report = document.get("report", {})
    sheet = alternatives(document)
    if sheet.rows:
        output.sheet(sheet)
    shown = [str(row["p_value"]) for row in sheet.rows]
    others = [row for row in report.get("alternatives", ()) if row["p_value"] not in shown]
    if others:
        sure = ", ".join(str(row["p_value"]) for row in others if row["guarantee"])
        unsure = ", ".join(str(row["p_value"]) for row in others if not row["guarantee"])
        named = [f"{sure} (with a guarantee)"] if sure else []
        named += [f"{unsure} (without one)"] if unsure else []
        output.paragraph(f"The same threshold by: {'; '.join(named)}.", "dim")
    for row in sheet.rows:
        if not row["guarantee"]:
            output.say(f"[dim]{escape(str(row['p_value']))}: {escape(str(row['promise']))}[/]")
    if len(sheet.rows) > 1 and report.get("alternatives_note"):
        output.paragraph(report["alternatives_note"], "dim")


def measures(document: Mapping[str, Any]) -> Sheet:
    """The accepted threshold of each measure, side by side."""
    rows = [
        {"confidence": part["confidence"], **part["metrics"]}
        for part in document["report"]["measures"]
    ]
    names = ("threshold", "mean_loss", "test_mean_loss", "mean_exit_layer", "speedup_seconds")
    columns = [
        Column("confidence", "Measure", text=lambda row: str(row["confidence"]), whole=True),
        *(
            Column(name, text=_named(name), numeric=True, whole=name == "threshold")
            for name in ("certified", *names)
            if any(name in row for row in rows)
        ),
    ]
    return Sheet(columns, rows, title="Each measure")


def chosen(document: Mapping[str, Any]) -> Sheet:
    """The accepted threshold: on the calibration samples, and on the test samples."""
    metrics: Mapping[str, Any] = document["metrics"]
    rows = [
        {
            "metric": name,
            "calibration": metrics.get(name),
            "test": metrics.get(f"test_{name}"),
            "calibration_words": with_spread(name, metrics),
        }
        for name in _FIGURES
        # Runs of earlier versions have a bound without a level, which did not hold.
        if name in metrics and (name != "mean_loss_bound" or f"{name}_level" in metrics)
    ]
    return Sheet(
        [
            _metric(metrics, document["config"].get("criterion")),
            value_column("calibration", f"Calibration, {metrics['samples']:,} samples"),
            value_column(
                "test", f"Test, {metrics['test_samples']:,}" if "test_samples" in metrics else ""
            ),
        ],
        rows,
        title="The accepted threshold",
    )


def alternatives(document: Mapping[str, Any]) -> Sheet:
    """What p-values that give another threshold would have given, after the one that was asked."""
    every = [dict(row) for row in document.get("report", {}).get("alternatives", ())]
    own = next((row for row in every if row["p_value"] == document["config"].get("p_value")), None)
    rows = [
        row
        for row in every
        if own is None or any(row[name] != own[name] for name in ("threshold", "at_least"))
    ]
    # The one that was asked is what they differ from.
    rows = [own, *rows] if rows and own is not None else rows
    columns = [
        Column("p_value", "p-value", text=lambda row: str(row["p_value"]), whole=True),
        Column("threshold", "Threshold", text=_threshold, numeric=True),
        *(
            Column(key, numeric=True)
            for key in ("mean_loss", "test_mean_loss", "mean_exit_layer")
            if any(key in row for row in rows)
        ),
        Column("guarantee", "Guarantee"),
    ]
    return Sheet(columns, rows, title="What each p-value would give")


def comparison(document: Mapping[str, Any]) -> Sheet:
    """Calibrated beside naively searched thresholds."""
    rows = [dict(row) for row in document["report"]["comparison"]]
    headings = {
        "threshold": "Threshold",
        "quality": "Score",
        "mean_loss": "Mean loss",
        "test_quality": "Test: score",
        "test_mean_loss": "loss",
        "test_within_delta": "within delta",
        "test_mean_exit_layer": "exit layer",
        "speedup_seconds": "Speedup (s)",
    }
    columns = [
        Column("choice", "Choice", text=_choice, whole=True),
        *(
            Column(key, heading, text=_named(key), numeric=True, whole=key == "threshold")
            for key, heading in headings.items()
            if any(row.get(key) is not None for row in rows)
        ),
    ]
    return Sheet(columns, rows, title="Is calibration necessary? (* with a guarantee)")


def _choice(row: Row) -> str:
    """ "keeps 90 %" is short for its quality."""
    mark = " *" if row["guarantee"] else ""
    return str(row["choice"]).removesuffix(" of the quality") + mark


def _named(key: str) -> Callable[[Row], str]:
    """A value of the test samples is written as the same value of any samples."""
    if key in SPEEDUPS:
        return lambda row: with_spread(key, row)
    return lambda row: written(key.removeprefix("test_"), row.get(key))


def thresholds(document: Mapping[str, Any], *, all_rows: bool = True) -> Sheet:
    """One row per threshold that was run; or those that differ, as far as the second behind the
    accepted one."""
    names = ("threshold", "mean_loss", "mean_exit_layer", "p_value", "rejected", "chosen")
    rows: list[Row] = []
    for part in by_measure(document):
        end = max((row["index"] for row in part["rows"] if row["chosen"]), default=-1) + 2
        near = [dict(row) for row in part["rows"] if all_rows or row["index"] <= end]
        rows += near if all_rows else _telling(near)
    shown = [name for name in names if any(name in row for row in rows)]
    # With several measures a row says whose it is.
    own = [
        Column("confidence", "Measure", text=lambda row: str(row["confidence"]), whole=True)
        for _ in rows[:1]
        if "confidence" in rows[0]
    ]
    shown += [name for name in ("test_mean_loss",) if any(name in row for row in rows)]
    passed = "Certified" if _guarantees(document) else "Passed"
    columns = [
        *own,
        *(
            Column(
                name,
                passed if name == "rejected" else None,
                numeric=True,
                whole=name == "threshold",
            )
            for name in shown
        ),
    ]
    return Sheet(columns, rows, title="Thresholds, cautious to eager")


def _guarantees(document: Mapping[str, Any]) -> bool:
    """Does passing the test that was asked for promise anything?"""
    asked = document["config"].get("p_value")
    return all(
        row["guarantee"]
        for part in by_measure(document)
        for row in part.get("report", {}).get("alternatives", ())
        if row["p_value"] == asked
    )


_MOST_ROWS = 12


def _telling(rows: Sequence[Row]) -> list[Row]:
    """Rows that differ from the one before, thinned out where they are many.

    The first, the accepted one and its neighbours always stay.
    """
    places = [at for at, row in enumerate(rows) if row["chosen"]]
    kept = {0, *(place + step for place in places for step in (-1, 0, 1, 2))}
    differing = [
        at
        for at, row in enumerate(rows)
        if at in kept
        or any(
            written(name, row.get(name)) != written(name, rows[at - 1].get(name))
            for name in ("mean_loss", "mean_exit_layer", "rejected")
        )
    ]
    step = -(-len(differing) // _MOST_ROWS)
    return [rows[at] for order, at in enumerate(differing) if at in kept or order % step == 0]


def _threshold(row: Row) -> str:
    if row["threshold"] is None:
        return "none"
    words = written("threshold", row["threshold"])
    return f"{words} or further" if row["at_least"] else words


_BOUNDS = ("mean_loss_bound", "mean_loss_low", "mean_loss_high")


def _metric(metrics: Mapping[str, Any], criterion: str | None = None) -> Column:
    """Names of figures; those of bounds say how surely they hold, a threshold what it is of."""

    def text(row: Row) -> str:
        if row["metric"] == "threshold" and criterion not in (None, "threshold"):
            return str(criterion).capitalize()
        name = label(row["metric"])
        return (
            f"{name} ({confidence(metrics['epsilon'])} sure)" if row["metric"] in _BOUNDS else name
        )

    return Column("metric", "", text=text)


def _head(output: Output, document: Mapping[str, Any]) -> None:
    config, metrics = document["config"], document["metrics"]
    first, test = config.get("calibration_split"), config.get("test_split")
    if first is not None and first == test and "test_samples" in metrics:
        first = f"{metrics['samples']:,} samples of {first}"
        test = f"{metrics['test_samples']:,} others of it, none in both"
    output.say()
    output.say(
        facts(
            {
                "model": config.get("model"),
                **run_by(config),
                "losses": config.get("losses"),
                "data": source_of_data(config),
                "calibrated on": first,
                "tested on": test,
                "metric": config.get("metric"),
            }
        )
    )
    output.say()


def _promise(output: Output, document: Mapping[str, Any]) -> None:
    """What exactly is promised, and what it would take to promise more."""
    report = document.get("report", {})
    output.paragraph(report.get("guarantee", ""))
    for need in report.get("needs", ()):
        output.paragraph(need, "yellow")
    output.say()


def _attacked_samples(metrics: Mapping[str, Any]) -> str:
    samples, skipped = metrics["attack_samples"], metrics.get("attack_skipped", 0)
    attacked = f", {samples - skipped:,} of them attacked" if skipped else ""
    return f"Under attack, {samples:,} samples{attacked}"


def _attack(output: Output, document: Mapping[str, Any]) -> None:
    metrics = document["metrics"]
    report = document.get("report", {}).get("attack")
    if not report:
        return
    rows = [
        {"metric": name, "before": metrics[f"{name}_before"], "after": metrics[f"{name}_after"]}
        for name in _ATTACK
        if f"{name}_before" in metrics
    ]
    if rows:
        times = value_column("before", "Before"), value_column("after", "After")
        output.sheet(Sheet([_metric(metrics), *times], rows, title=_attacked_samples(metrics)))
    output.paragraph(report["verdict"], "bold")
    if "mixture" in report:
        share = 100 * metrics["mixture_clean_share"]
        output.paragraph(f"Calibrated on a mixture, {share:g} % clean: {report['mixture']}")
        for need in report["mixture_needs"]:
            output.paragraph(need, "yellow")
    output.say()
