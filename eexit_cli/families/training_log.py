"""What a training says and records of its validations."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from eexit_cli.core.protocols import Progress
    from eexit_cli.store.results import Run

_FALLING = 0.98
"""Of the loss before: what falls less has settled, as far as a validation can tell."""


def recorder(run: Run | None, stage: str, progress: Progress) -> Callable[[dict[str, float]], None]:
    """Appends one record per validation, once, however often the training was resumed."""
    if run is None:
        return lambda values: None
    seen = {(record["stage"], record["step"]) for record in run.records()}

    def record(measured: dict[str, float]) -> None:
        # JSON has no NaN: the figure is not there.
        values: dict[str, Any] = {
            name: None if value != value else value for name, value in measured.items()
        }
        by_metric: dict[str, dict[int, str]] = {}
        for name, value in values.items():
            metric, found, exit_layer = name.partition("_exit_")
            if found:
                written = "-" if value is None else f"{value:.3f}"
                by_metric.setdefault(metric, {})[int(exit_layer)] = written
        scores = [
            f", {metric.replace('_', ' ')} of exits {_listed(each)}: {' '.join(each.values())}"
            for metric, each in by_metric.items()
        ]
        progress.message(
            f"Epoch {values['epoch']:.2f}: validation loss {values['loss']:.3f}{''.join(scores)}"
        )
        if (stage, values["step"]) not in seen:
            run.append({"stage": stage} | values)

    return record


def _listed(layers: Collection[int]) -> str:
    """``1 to 6``, or ``10, 20, 30`` where some layers have no exit."""
    every = range(1, len(layers) + 1)
    return f"1 to {len(layers)}" if [*layers] == [*every] else ", ".join(map(str, layers))


def still_falling(records: Iterable[Mapping[str, Any]], epochs: float) -> str | None:
    """Advice where the last stage's loss was falling to its end; None where it had settled.

    Args:
        records: of the run's validations.
        epochs: that were trained.
    """
    found = list(records)
    losses = [each["loss"] for each in found if each["stage"] == found[-1]["stage"]]
    if len(losses) < 2 or None in losses[-2:] or losses[-1] > _FALLING * losses[-2]:
        return None
    return (
        f"The validation loss was still falling ({losses[-2]:.3f} to {losses[-1]:.3f}): "
        f"more epochs may give a better model (--epochs {2 * epochs:g})"
    )
