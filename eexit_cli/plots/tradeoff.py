"""Quality against mean exit layer: what each exit criterion pays for the layers that it saves."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from eexit_cli.core.errors import UsageError
from eexit_cli.plots.axis import metric_label
from eexit_cli.plots.figure import FigureSpec, RunView
from eexit_cli.plots.tradeoff_runtimes import compares_runtimes, draw_runtimes, runtime_frame

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from pandas import DataFrame

SWEEP, CHOSEN, FULL = "sweep", "chosen", "full"
"""What a row of the frame is: a setting of the sweep, the run's own setting, the full model."""

MARKERS = ("o", "s", "^", "D", "v", "P", "X")
LINES = ("-", "--", "-.", ":")


def suits(run: RunView) -> bool:
    """Evaluations with the rows of a sweep."""
    swept = any("mean_exit_layer" in row and "criterion" in row for row in run.rows)
    return swept and not run.speculates


def frame(runs: Sequence[RunView]) -> DataFrame:
    """One row per setting of each sweep, and two more per run: its own setting, the full model.

    Returns:
        ``run``, ``series`` (criterion or measure), ``kind`` (sweep, chosen, full),
        ``mean_exit_layer``, ``quality``, ``metric`` (the task metric's name), ``default`` (is the
        chosen setting the model's own?); of runs that compare runtimes those of
        :func:`~eexit_cli.plots.tradeoff_runtimes.runtime_frame`.

    Raises:
        UsageError: the runs report different metrics.
    """
    import pandas as pd

    if any(map(compares_runtimes, runs)):
        return runtime_frame(runs)
    metrics = {run.label: run.leading_metric for run in runs}
    if len(set(metrics.values())) > 1:
        said = ", ".join(f"{metric} ({label})" for label, metric in metrics.items())
        raise UsageError(
            f"These runs measure different things: {said}",
            hint="Draw runs of one task together",
        )
    table = pd.DataFrame([row for run in runs for row in _rows(run, metrics[run.label])])
    table = table.astype({"mean_exit_layer": float, "quality": float})
    return table.dropna(subset=["mean_exit_layer", "quality"])


def _rows(run: RunView, metric: str) -> Iterator[dict[str, Any]]:
    options = ("threshold", "patience", "voting", "static_layer")
    common = {
        "run": run.label,
        "metric": metric,
        "default": all(run.config.get(option) is None for option in options),
    }
    for row in run.rows:
        yield {
            **common,
            "series": _series_name(row),
            "kind": SWEEP,
            "mean_exit_layer": row["mean_exit_layer"],
            "quality": row[metric],
        }
    full = run.metrics[f"{metric}_full"]
    yield {**common, "kind": FULL, "mean_exit_layer": run.metrics["num_layers"], "quality": full}
    yield {
        **common,
        "kind": CHOSEN,
        "mean_exit_layer": run.metrics["mean_exit_layer"],
        "quality": run.metrics[metric],
    }


def _series_name(row: Mapping[str, Any]) -> str:
    name = str(row.get("confidence") or row["criterion"])
    return name.replace("_", " ").replace("-", " ")


def draw(frame: DataFrame, ax: Axes) -> None:
    """A line per series and run, a star at the setting that a run chose, the full model in grey.

    Colour and marker say the series, the kind of line says the run; with one series the colour
    says the run too. Runtimes are drawn against milliseconds.
    """
    if "latency_ms" in frame:
        draw_runtimes(frame, ax)
        return
    label, scale = metric_label(frame["metric"].iloc[0])
    runs = list(dict.fromkeys(frame["run"]))
    sweep = frame[frame["kind"] == SWEEP]
    names = list(dict.fromkeys(sweep["series"]))
    _key(names, runs, ax)
    for (run, name), rows in sweep.groupby(["run", "series"], sort=False):
        look = names.index(name) if len(names) > 1 else runs.index(run)
        rows = rows.sort_values("mean_exit_layer", kind="stable")
        # Measures that order samples alike (all of them, with two classes) share one line; the
        # markers are spaced out and start at different points, so that each still shows.
        every = max(1, len(rows) // 7)
        ax.plot(
            rows["mean_exit_layer"],
            scale * rows["quality"],
            color=f"C{look % len(MARKERS)}",
            marker=MARKERS[look % len(MARKERS)],
            linestyle=LINES[runs.index(run) % len(LINES)],
            markevery=(look % every, every),
        )
    _full_models(frame[frame["kind"] == FULL], scale, runs, ax)
    chosen = frame[frame["kind"] == CHOSEN]
    ax.plot(
        chosen["mean_exit_layer"],
        scale * chosen["quality"],
        **_STAR,
        label="default setting" if frame["default"].all() else "chosen setting",
    )
    ax.set_xlabel("Mean exit layer")
    ax.set_ylabel(label)


_STAR: dict[str, Any] = {
    "linestyle": "none",
    "marker": "*",
    "markersize": 8,
    "markerfacecolor": "white",
    "markeredgecolor": "black",
    "markeredgewidth": 0.8,
    "zorder": 5,
}


def _full_models(full: DataFrame, scale: float, runs: list[str], ax: Axes) -> None:
    """A grey level per run, in the run's kind of line; runs of one model share it."""
    for run, quality in zip(full["run"], scale * full["quality"], strict=True):
        line = LINES[runs.index(run) % len(LINES)]
        ax.axhline(quality, color="0.5", linestyle=line, linewidth=0.8, label="full model")
    ax.set_xlim(right=full["mean_exit_layer"].max() + 0.15)


def _key(names: list[str], runs: list[str], ax: Axes) -> None:
    """Legend entries: the series by colour, then the runs by kind of line."""
    for look, name in enumerate(runs if len(names) == 1 < len(runs) else names):
        line = "-" if len(names) > 1 else LINES[look % len(LINES)]
        marker = MARKERS[look % len(MARKERS)]
        ax.plot([], [], color=f"C{look % len(MARKERS)}", marker=marker, linestyle=line, label=name)
    if len(names) > 1 and len(runs) > 1:
        for index, run in enumerate(runs):
            ax.plot([], [], color="black", linestyle=LINES[index % len(LINES)], label=run)


FIGURE = FigureSpec(
    name="tradeoff",
    summary="Task quality against mean exit layer, a line per exit criterion; against "
    "milliseconds, a line per runtime",
    commands=("evaluate",),
    needs="an evaluation with --sweep",
    make="eexit evaluate --model deebert --sweep",
    suits=suits,
    frame=frame,
    draw=draw,
    panel_height=2.1,
    columns=1,
)
