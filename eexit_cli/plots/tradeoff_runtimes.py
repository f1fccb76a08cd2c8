"""Quality against milliseconds: what runs a classifier, a line each, its full depth as a square."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from eexit_cli.core.errors import UsageError
from eexit_cli.plots.axis import metric_label
from eexit_cli.plots.figure import RunView

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from pandas import DataFrame

EARLY, FULL = "early exit", "full depth"
_MARKERS = ("o", "^", "D", "v", "P", "X")
_LINES = ("-", "--", "-.", ":")


def compares_runtimes(run: RunView) -> bool:
    """Has it rows of several runtimes?"""
    return any("runtime" in row for row in run.rows)


def runtime_frame(runs: Sequence[RunView]) -> DataFrame:
    """One row per setting and runtime, and one for each runtime's full depth.

    Returns:
        ``run``, ``series`` (the runtime, with several measures or criteria those too), ``kind``,
        ``latency_ms``, ``quality``, ``metric``.

    Raises:
        UsageError: a run that was not timed, or one of a single runtime beside these.
    """
    import pandas as pd

    for run in runs:
        if not all("runtime" in row and "latency_ms" in row for row in run.rows):
            raise UsageError(
                f"Run {run.label} has no milliseconds by runtime",
                hint="Evaluate with --runtime torch,onnx,onnx-int8, and without "
                "--latency-samples 0; draw other runs apart",
            )
    return pd.DataFrame([row for run in runs for row in _rows(run)])


def _rows(run: RunView) -> Iterator[dict[str, Any]]:
    metric = run.leading_metric
    kinds = {(row["criterion"], row.get("confidence")) for row in run.rows}
    seen: set[str] = set()
    for row in run.rows:
        criterion = row.get("confidence") or row["criterion"]
        series = f"{row['runtime']}, {criterion}" if len(kinds) > 1 else str(row["runtime"])
        shared = {"run": run.label, "series": series, "metric": metric}
        yield {
            **shared,
            "kind": EARLY,
            "latency_ms": row["latency_ms"],
            "quality": row[metric],
        }
        if series not in seen:
            seen.add(series)
            quality, latency = row[f"{metric}_full"], row["latency_full_ms"]
            yield {**shared, "kind": FULL, "latency_ms": latency, "quality": quality}


def draw_runtimes(frame: DataFrame, ax: Axes) -> None:
    """Colour and marker say the runtime, the kind of line the run."""
    label, scale = metric_label(frame["metric"].iloc[0])
    runs, names = (list(dict.fromkeys(frame[column])) for column in ("run", "series"))
    for (run, name), rows in frame.groupby(["run", "series"], sort=False):
        look, line = names.index(name), _LINES[runs.index(run) % len(_LINES)]
        early = rows[rows["kind"] == EARLY].sort_values("latency_ms", kind="stable")
        ax.plot(
            early["latency_ms"],
            scale * early["quality"],
            color=f"C{look}",
            marker=_MARKERS[look % len(_MARKERS)],
            linestyle=line,
            label=name if len(runs) == 1 else f"{name}, {run}",
        )
        full = rows[rows["kind"] == FULL]
        ax.plot(
            full["latency_ms"],
            scale * full["quality"],
            color=f"C{look}",
            marker="s",
            markerfacecolor="white",
            linestyle="none",
        )
    ax.plot([], [], color="0.4", marker="s", markerfacecolor="white", linestyle="none", label=FULL)
    ax.set_xlim(left=0)
    ax.set_xlabel("Milliseconds per input, batch 1")
    ax.set_ylabel(label)
