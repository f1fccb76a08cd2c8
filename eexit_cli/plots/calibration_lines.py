"""What a tolerated risk leads to, a line over delta each: the risk that follows, the mean layer,
the threshold, and how often the promise is broken."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from eexit_cli.plots.calibration_points import (
    EPSILON,
    NAIVE,
    by_measure,
    delta_axis,
    draw_lines,
    log_delta_axis,
    near_splits,
    on_test,
    series_of,
    suits,
    suits_splits,
    sweep_points,
    table,
)
from eexit_cli.plots.figure import FigureSpec, RunView

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from pandas import DataFrame

# Frames have a row per line and delta: ``series``, ``weaker`` (its promise is), ``x`` (delta),
# ``y``, ``low`` and ``high`` (5 % and 95 % over repeated splits, NaN without), and what is named.


def risk_frame(runs: Sequence[RunView]) -> DataFrame:
    """``y``: mean loss, the test samples' where there are any; ``measured``: what that is."""
    made = table(sweep_points(runs, "mean_loss"))
    tested = all(on_test(run) for run in by_measure(runs))
    kinds = {str(run.config.get("consistency")) for run in runs}
    words = {"textual": "dissimilarity", "risk": "excess risk"}
    what = words.get(kinds.pop(), "loss") if len(kinds) == 1 else "loss"
    made["measured"] = f"Mean {what}" + (", test" if tested else "")
    return made


def draw_risk(frame: DataFrame, ax: Axes) -> None:
    """With the diagonal that a kept promise stays below."""
    top = float(frame["x"].max())
    ax.fill_between([0, top], [0, top], [top, top], color="0.94", linewidth=0, zorder=0)
    ax.plot([0, top], [0, top], color="0.3", linewidth=0.8, linestyle=":", label="risk = δ")
    draw_lines(frame, ax)
    delta_axis(ax, frame)
    highest = max(float(frame["y"].max()), float(frame["high"].fillna(0).max()), 0.02)
    ax.set_ylim(0, min(top, highest * 1.15))
    ax.set_ylabel(str(frame["measured"].iloc[0]))


def layers_frame(runs: Sequence[RunView]) -> DataFrame:
    """``y``: mean exit layer, of the test samples where there are any; ``num_layers``."""
    return table(sweep_points(runs, "mean_exit_layer"))


def draw_layers(frame: DataFrame, ax: Axes) -> None:
    """With the full model's depth."""
    for layers in sorted(set(frame["num_layers"].dropna())):
        ax.axhline(layers, color="0.3", linewidth=0.8, linestyle="--", label="full model")
    draw_lines(frame, ax)
    log_delta_axis(ax, frame)
    ax.set_ylabel("Mean exit layer")
    top = max(float(frame["num_layers"].fillna(0).max()), float(frame["y"].max()))
    ax.set_ylim(top=top * 1.04)


def threshold_frame(runs: Sequence[RunView]) -> DataFrame:
    """``y``: accepted threshold, without a band; ``knob``: what it is called."""
    made = table(sweep_points(runs, "threshold", tested=False))
    knobs = {_knob(run) for run in by_measure(runs)}
    made["knob"] = knobs.pop() if len(knobs) == 1 else "threshold"
    return made


def _knob(run: RunView) -> str:
    if run.config.get("criterion") == "patience":
        return "patience"
    measure = run.config.get("confidence")
    return f"{measure} threshold" if measure else "threshold"


def draw_threshold(frame: DataFrame, ax: Axes) -> None:
    """As steps: a threshold holds until a larger delta allows the next."""
    draw_lines(frame, ax, step=True)
    log_delta_axis(ax, frame)
    knob = str(frame["knob"].iloc[0])
    ax.set_ylabel(f"{knob[0].upper()}{knob[1:]}")


def violations_frame(runs: Sequence[RunView]) -> DataFrame:
    """``y``: percent of the splits, of about the run's own n, whose mean test loss is above delta,
    the test part's own noise included; ``epsilon``."""
    runs = by_measure(runs)
    return table(row for run in runs for row in _violations(run, len(runs) > 1))


def _violations(run: RunView, several: bool) -> Iterator[dict[str, Any]]:
    own = str(run.config["p_value"])
    for p_value in (own,) if several or own == NAIVE else (own, NAIVE):
        for record in near_splits(run, p_value):
            yield {
                "series": series_of(run, p_value, several),
                "weaker": p_value != own,
                "x": record["delta"],
                "y": 100 * record["violations"],
                "low": None,
                "high": None,
                "epsilon": float(run.metrics["epsilon"]),
            }


def draw_violations(frame: DataFrame, ax: Axes) -> None:
    """With epsilon, the share that is allowed."""
    for epsilon in sorted(set(frame["epsilon"])):
        ax.axhline(100 * epsilon, label="ε", **EPSILON)
    draw_lines(frame, ax)
    log_delta_axis(ax, frame)
    ax.set_ylim(-2, max(20.0, 1.1 * float(frame["y"].max())))
    ax.set_ylabel("Violations (%)")


def _has(value: str, kind: type | tuple[type, ...]) -> Callable[[RunView], bool]:
    """Calibrations with a curve over delta whose points have this."""
    return lambda run: any(
        record.get("kind") == "sweep" and isinstance(record.get(value), kind)
        for record in run.records
    )


def _figure(name: str, summary: str, **told: Any) -> FigureSpec:
    return FigureSpec(
        name=f"calibration-{name}",
        summary=summary,
        commands=("calibrate",),
        make="eexit calibrate --delta 0.1 --curves",
        panel_height=2.2,
        columns=1,
        **told,
    )


RISK = _figure(
    "risk",
    "Tolerated risk against realised risk, with the diagonal",
    needs="a calibration",
    suits=suits,
    frame=risk_frame,
    draw=draw_risk,
)
LAYERS = _figure(
    "layers",
    "Mean exit layer against tolerated risk",
    needs="a calibration with exit layers",
    suits=_has("mean_exit_layer", (int, float)),
    frame=layers_frame,
    draw=draw_layers,
)
THRESHOLD = _figure(
    "threshold",
    "Accepted threshold against tolerated risk",
    needs="a calibration with numbers for thresholds",
    suits=_has("threshold", (int, float)),
    frame=threshold_frame,
    draw=draw_threshold,
)
VIOLATIONS = _figure(
    "violations",
    "How often the tolerated risk is exceeded, over repeated splits",
    needs="a calibration with --curves",
    suits=suits_splits,
    frame=violations_frame,
    draw=draw_violations,
)
