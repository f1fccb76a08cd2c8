"""The points that a calibration run recorded, as tidy tables, and how its lines look.

Several runs (measures, models) share a figure with a line each; one run alone shows a line per
p-value. The weaker promises are grey and dashed.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

from eexit_cli.plots.figure import RunView, run_labels

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from pandas import DataFrame

NAN = float("nan")
MARKERS = ("o", "s", "^", "D", "v", "P", "X")
NAIVE = "naive"
EPSILON: dict[str, Any] = {"color": "0.3", "linewidth": 0.8, "linestyle": (0, (6, 1.5, 1, 1.5))}
"""Its line is no other's: dots are delta's, dashes the full model's and a weaker promise's."""
_SHOWN_WEAKER = (NAIVE,)
"""Of the weaker promises only the weakest is drawn: it is what calibration is compared with."""

_SHORT = {"hoeffding-bentkus": "Hoeffding-Bentkus", "hoeffding": "Hoeffding", "clt": "CLT"}


def suits(run: RunView) -> bool:
    """Calibrations with a curve over delta."""
    return any(record.get("kind") == "sweep" for record in run.records)


def suits_splits(run: RunView) -> bool:
    """Calibrations with repeated splits."""
    return any(record.get("kind") == "split" for record in run.records)


def suits_p_values(run: RunView) -> bool:
    """Calibrations with p-values along the sequence."""
    return any(record.get("kind") == "p-value" for record in run.records)


def by_measure(runs: Sequence[RunView]) -> list[RunView]:
    """Runs with several measures as one run for each of them; the others as they are."""
    found = [part for run in runs for part in _parts(run)]
    if len(found) == len(runs):
        return found
    if len(runs) == 1:
        labels = [str(part.config["confidence"]) for part in found]
    else:
        labels = run_labels([part.document for part in found])
    return [replace(part, label=label) for part, label in zip(found, labels, strict=True)]


def _parts(run: RunView) -> Iterator[RunView]:
    measures = run.document.get("report", {}).get("measures")
    if not measures:
        yield run
        return
    for report in measures:
        name = report["confidence"]
        document = {
            **run.document,
            "config": {**run.config, "confidence": name},
            "metrics": report["metrics"],
            "rows": [row for row in run.rows if row["confidence"] == name],
            "report": report,
        }
        yield RunView(run.id, run.label, document, partial(_records_of, run, name))


def _records_of(run: RunView, measure: str) -> list[dict[str, Any]]:
    return [record for record in run.records if record.get("confidence") == measure]


def series_of(run: RunView, p_value: str, several: bool) -> str:
    """What a line is called in the legend."""
    return run.label if several else _SHORT.get(p_value, p_value.replace("-", " "))


def shown_p_values(run: RunView, several: bool) -> list[str]:
    """The p-values that get a line: the run's own; alone, also the others that promise, and one
    that does not."""
    own = str(run.config["p_value"])
    if several:
        return [own]
    report = run.document.get("report", {})
    others = [
        str(row["p_value"])
        for row in report.get("alternatives", ())
        if row["p_value"] != own and (row["guarantee"] or row["p_value"] in _SHOWN_WEAKER)
    ]
    return [own, *others]


def on_test(run: RunView) -> bool:
    """Were the test samples run at every threshold that a line over delta needs?

    A decoder runs them at the accepted one alone, unless curves are asked for.
    """
    points = [record for record in run.records if record.get("kind") == "sweep"]
    return all("test_mean_loss" in record for record in points)


def sweep_points(
    runs: Sequence[RunView], value: str, *, tested: bool = True
) -> Iterator[dict[str, Any]]:
    """Points over delta of each line.

    Args:
        value: ``mean_loss``, ``mean_exit_layer`` or ``threshold``.
        tested: take the test samples' figures where a run has them for all its points.

    Yields:
        ``series``, ``weaker``, ``x`` (delta), ``y``, ``low`` and ``high`` (5 % and 95 % over
        repeated splits of about the run's n; NaN without), ``num_layers``.
    """
    runs = by_measure(runs)
    several = len(runs) > 1
    for run in runs:
        bands = _bands(run, value)
        tested_here = tested and on_test(run)
        for p_value in shown_p_values(run, several):
            own = p_value == run.config["p_value"]
            for record in run.records:
                if record.get("kind") != "sweep" or record["p_value"] != p_value:
                    continue
                y = record.get(f"test_{value}" if tested_here else value)
                band = bands.get(record["delta"], {}) if own else {}
                yield {
                    "series": series_of(run, p_value, several),
                    "weaker": p_value in _SHOWN_WEAKER and not own,
                    "x": record["delta"],
                    "y": NAN if y is None or isinstance(y, str) else float(y),
                    "low": _number(band.get(f"{value}_low")),
                    "high": _number(band.get(f"{value}_high")),
                    "num_layers": _number(run.metrics.get("num_layers")),
                }


def _bands(run: RunView, value: str) -> dict[float, dict[str, Any]]:
    """The run's own question over repeated splits, by delta."""
    if value == "threshold":
        return {}
    splits = near_splits(run, str(run.config["p_value"]))
    return {record["delta"]: record for record in splits if always_answered(record)}


def near_splits(run: RunView, p_value: str) -> list[dict[str, Any]]:
    """Repeated splits of the size nearest to the run's own n, in order of delta."""
    splits = [
        record
        for record in run.records
        if record.get("kind") == "split" and record["p_value"] == p_value
    ]
    n = int(run.metrics["samples"])
    size = min((int(record["n"]) for record in splits), key=lambda one: abs(one - n), default=0)
    return [record for record in splits if record["n"] == size]


def always_answered(split: dict[str, Any]) -> bool:
    """Every repeat has an answer: figures of some alone would be those of the luckier ones."""
    return bool(split.get("answered", split["repeats"]) == split["repeats"])


def _number(value: Any) -> float:
    return NAN if value is None else float(value)


def table(
    rows: Iterator[dict[str, Any]], columns: Sequence[str] = ("x", "y", "low", "high")
) -> DataFrame:
    """Rows as a table whose numeric columns are floats, without points that are not there."""
    import pandas as pd

    made = pd.DataFrame(list(rows))
    return made.astype(dict.fromkeys(columns, float)).dropna(subset=["y"]).reset_index(drop=True)


def draw_lines(frame: DataFrame, ax: Axes, *, step: bool = False) -> None:
    """A line with markers per series, its band behind it; weaker promises grey and dashed."""
    number = 0
    for series, rows in frame.groupby("series", sort=False):
        weaker = bool(rows["weaker"].iloc[0])
        color = "0.55" if weaker else f"C{number}"
        band = rows.dropna(subset=["low", "high"])
        if len(band) > 1:
            ax.fill_between(
                band["x"], band["low"], band["high"], color=color, alpha=0.18, linewidth=0
            )
        ax.plot(
            rows["x"],
            rows["y"],
            color=color,
            linestyle="--" if weaker else "-",
            marker="." if weaker else MARKERS[number % len(MARKERS)],
            drawstyle="steps-post" if step else "default",
            label=str(series),
        )
        number += 0 if weaker else 1


def delta_axis(ax: Axes, frame: DataFrame) -> None:
    """An x axis of tolerated risks that begins at 0."""
    ax.set_xlim(0, float(frame["x"].max()) * 1.03)
    ax.set_xlabel("Tolerated risk δ")


def log_delta_axis(ax: Axes, frame: DataFrame) -> None:
    """An x axis that gives the small tolerated risks, which matter most, as much room as the
    large ones."""
    low, high = float(frame["x"].min()), float(frame["x"].max())
    ax.set_xscale("log")
    ticks = [tick for tick in (0.001, 0.01, 0.03, 0.1, 0.3, 1) if low <= tick <= high]
    ax.set_xticks(ticks or [low], [f"{tick:g}" for tick in ticks or [low]])
    ax.set_xticks([], minor=True)
    ax.set_xlim(low / 1.1, high * 1.1)
    ax.set_xlabel("Tolerated risk δ")
