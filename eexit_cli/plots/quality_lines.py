"""Quality of a generator's outputs against what they cost: layers, or time.

A line per confidence measure; two figures of DL2-CALM's README."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from eexit_cli.core.errors import UsageError
from eexit_cli.plots.axis import metric_label
from eexit_cli.plots.figure import PANEL, FigureSpec, RunView

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from pandas import DataFrame

FULL = "full model"
STATIC = "static layer"
MARKERS = ("o", "s", "^", "D", "v", "P", "X")
LINES = ("-", "--", ":")


def suits(run: RunView) -> bool:
    """Evaluations of a decoder with several settings."""
    several = len(run.rows) > 1 and all("tokens_per_second" in row for row in run.rows)
    return several and not run.speculates


def frame(runs: Sequence[RunView]) -> DataFrame:
    """One row per setting of each run, and one for its full model.

    Returns:
        ``panel`` (the run), ``series`` (measure, static layer or full model),
        ``mean_exit_layer``, ``ms_per_token`` with ``ms_low`` and ``ms_high`` (NaN where it was
        timed once), ``quality``, ``metric`` (the task metric's name), ``batch_size``, ``repeats``
        (of the timing), ``look`` (the series' number, the same in every panel).

    Raises:
        UsageError: the runs report different metrics.
    """
    import pandas as pd

    metrics = {run.label: run.leading_metric for run in runs}
    if len(set(metrics.values())) > 1:
        said = ", ".join(f"{metric} ({label})" for label, metric in metrics.items())
        raise UsageError(
            f"These runs measure different things: {said}",
            hint="Draw runs of one task together",
        )
    table = pd.DataFrame([row for run in runs for row in _rows(run, metrics[run.label])])
    table["look"] = looks_of(table["series"], leave=(FULL, STATIC))
    numbers = ["mean_exit_layer", "ms_per_token", "quality"]
    table = table.astype(dict.fromkeys([*numbers, "ms_low", "ms_high", "repeats"], float))
    return table.dropna(subset=numbers)


def looks_of(series: Iterable[str], *, leave: tuple[str, ...] = ()) -> list[int]:
    """A number per series, so that one has one colour and marker in all panels.

    Args:
        series: a name per row.
        leave: names that have a look of their own.
    """
    series = list(series)
    names = [name for name in dict.fromkeys(series) if name not in leave]
    return [names.index(name) if name in names else -1 for name in series]


def look(number: int) -> dict[str, Any]:
    """Colour, marker and kind of line of a series."""
    return {
        "color": f"C{number % len(MARKERS)}",
        "marker": MARKERS[number % len(MARKERS)],
        "linestyle": LINES[number // len(MARKERS) % len(LINES)],
    }


def _rows(run: RunView, metric: str) -> Iterator[dict[str, Any]]:
    common = {
        PANEL: run.label,
        "metric": metric,
        "batch_size": run.metrics["batch_size"],
        "repeats": run.metrics.get("timing_repeats"),
    }
    repeated = "tokens_per_second_low"
    for row in run.rows:
        if row["criterion"] == "full":
            continue  # the run's own figures say it, below
        # An older eexit left a sweep's chosen setting with the time of its first pass, which is
        # longer or shorter than what was timed in turn with the others.
        once = repeated in run.metrics and repeated not in row
        yield {
            **common,
            "series": _series_name(row),
            "mean_exit_layer": row["mean_exit_layer"],
            **_milliseconds(run.metrics if once else row),
            "quality": row[metric],
        }
    yield {
        **common,
        "series": FULL,
        "mean_exit_layer": run.metrics["num_layers"],
        **_milliseconds(run.metrics, "_full"),
        "quality": run.metrics[f"{metric}_full"],
    }


def _milliseconds(figures: Mapping[str, Any], whose: str = "") -> dict[str, float | None]:
    """Time per token, and its interval over repeats."""
    ends = {"ms_per_token": "", "ms_low": "_high", "ms_high": "_low"}
    rates = {name: figures.get(f"tokens_per_second{end}{whose}") for name, end in ends.items()}
    return {name: None if rate is None else 1000 / rate for name, rate in rates.items()}


def _series_name(row: Mapping[str, Any]) -> str:
    if row["criterion"] == "static":
        return STATIC
    name = str(row.get("confidence") or row["criterion"]).replace("_", " ")
    if row["criterion"] == "shallow-deep":
        name = f"layer {row['shallow_layer']} or last, {name}"
    top_k = row.get("top_k_propagation")
    return f"{name}, top {top_k}" if top_k else name


def draw_layers(frame: DataFrame, ax: Axes) -> None:
    """Quality over the mean exit layer of all tokens; up to the full model at the right."""
    draw_against(frame, ax, "mean_exit_layer")
    ax.set_xlabel("Mean decoder layers per token")
    ax.set_xlim(right=frame["mean_exit_layer"].max() + 0.15)


def draw_time(frame: DataFrame, ax: Axes) -> None:
    """Quality over milliseconds per token, measured at the run's batch size, encoder included.

    Bars reach over the interval of each time; a run whose settings were timed once has none.
    """
    draw_against(frame, ax, "ms_per_token", ("ms_low", "ms_high"))
    batch, repeats = int(frame["batch_size"].iloc[0]), frame["repeats"].iloc[0]
    timed = "timed once" if repeats != repeats else f"bars: {int(repeats)} repeats"
    ax.set_xlabel(f"Run time, ms per token (batch {batch}; {timed})")
    ax.set_xlim(left=0)


def draw_against(
    frame: DataFrame, ax: Axes, column: str, ends: tuple[str, str] | None = None
) -> None:
    """A line per measure from shallow to deep, static layers in grey, a star for the full model,
    whose quality is a grey line too.

    Args:
        frame: of :func:`frame`.
        ax: to draw on.
        column: what quality is drawn against.
        ends: columns of its interval, drawn as bars.
    """
    label, scale = metric_label(frame["metric"].iloc[0])
    for name, rows in frame.groupby("series", sort=False):
        # By depth also over measured time, whose noise would tangle the line.
        ordered = rows.sort_values("mean_exit_layer", kind="stable")
        x, y = ordered[column], scale * ordered["quality"]
        if name == FULL:
            ax.axhline(float(y.iloc[0]), color="0.6", linewidth=0.8, zorder=1)
            ax.plot(x, y, label=FULL, **_STAR)
        elif name == STATIC:
            ax.plot(x, y, color="0.45", marker="x", linestyle="--", label=STATIC)
        else:
            ax.plot(x, y, label=str(name), **look(int(rows["look"].iloc[0])))
        if ends is not None:
            color = "0.45" if name in (FULL, STATIC) else look(int(rows["look"].iloc[0]))["color"]
            ax.hlines(y, ordered[ends[0]], ordered[ends[1]], color=color, linewidth=0.7, zorder=1)
    ax.set_ylabel(label)
    ax.set_title(frame[PANEL].iloc[0])


_STAR: dict[str, Any] = {
    "linestyle": "none",
    "marker": "*",
    "markersize": 8,
    "markerfacecolor": "white",
    "markeredgecolor": "black",
    "markeredgewidth": 0.8,
    "zorder": 5,
}


def _figure(name: str, against: str, draw: Callable[[DataFrame, Axes], None]) -> FigureSpec:
    return FigureSpec(
        name=f"quality-{name}",
        summary=f"A decoder's quality against {against}, a line per confidence measure",
        commands=("evaluate",),
        needs="an evaluation of a decoder with --sweep or several settings",
        make="eexit evaluate --model calm --sweep",
        suits=suits,
        frame=frame,
        draw=draw,
        panel_height=2.1,
        columns=1,
    )


LAYERS = _figure("layers", "mean decoder layers", draw_layers)
TIME = _figure("time", "measured run time", draw_time)
