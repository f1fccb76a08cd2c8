"""Joules, as the machine's own counters say; never a guess from seconds.

A processor's counters move about once in a millisecond (Khan et al., RAPL in Action, 2018), a GPU's
some ten times in a second, so ways are measured in whole passes over all items, of some length
each, in turn and several times over. What the machine takes while it idles is taken off.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np

from eexit_cli.metrics.counters import Joules, Meter, UnreadError
from eexit_cli.metrics.latency import LEAST_REPEATS, Spread, order_of_turn

Item = TypeVar("Item")
Name = TypeVar("Name", bound=Hashable)

_OFTEN = 1.0
"""Seconds after which a pass that goes on is read."""


@dataclass(frozen=True)
class Energies:
    """What ways took above idle.

    Attributes:
        parts: of the machine.
        idle_watts: Shape: [parts].
        passes: name -> joules of one pass over all items. Shape: [repeats, parts].
    """

    parts: tuple[str, ...]
    idle_watts: Joules
    passes: Mapping[Any, Joules]


def joules_in_turn(
    ways: Mapping[Name, Callable[[Item], object]],
    items: Sequence[Item],
    meter: Meter,
    *,
    repeats: int = LEAST_REPEATS,
    synchronize: Callable[[], None] | None = None,
    on_pass: Callable[[], None] | None = None,
) -> Energies | None:
    """Joules of each way on all items, several times over.

    In each repeat the ways take turns; one's turn is as many passes over all items as the meter
    needs seconds. The idle power is measured before.

    Args:
        ways: name -> function of one item; they have run before.
        items: what each way is run on.
        repeats: turns of each way.
        synchronize: drains the device's queue; None on a CPU.
        on_pass: called after each turn, for a progress bar.

    Returns:
        None where nothing can be read, or a counter lost count: the meter's ``lacking`` says why.
    """
    if not meter.counters:
        return None
    drain = synchronize or (lambda: None)
    names = list(ways)
    try:
        idle = meter.idle()
        found = {name: np.zeros((repeats, len(meter.parts))) for name in names}
        for repeat in range(repeats):
            for name in order_of_turn(names, repeat):
                found[name][repeat] = _turn(ways[name], items, meter, idle, drain)
                if on_pass is not None:
                    on_pass()
    except UnreadError as error:
        meter.lacking |= dict.fromkeys(meter.parts, str(error))
        meter.counters = []
        return None
    return Energies(meter.parts, idle, found)


def _turn(
    way: Callable[[Item], object],
    items: Sequence[Item],
    meter: Meter,
    idle: Joules,
    drain: Callable[[], None],
) -> Joules:
    """Of one pass, above idle. Shape: [parts]."""
    begin = last = meter.read()
    total, passes = np.zeros(len(meter.parts)), 0
    while not passes or meter.clock() - begin.at < meter.least_seconds:
        for item in items:
            way(item)
            drain()
            if meter.clock() - last.at > _OFTEN:
                before, last = last, meter.read()
                total += meter.between(before, last)
        passes += 1
    end = meter.read()
    total += meter.between(last, end)
    return np.asarray((total - idle * (end.at - begin.at)) / passes)


def energy_figures(
    found: Energies | None,
    *,
    full: Any,
    live: Any,
    inputs: int,
    tokens: float | None = None,
    tokens_full: float | None = None,
    suffix: str = "",
) -> dict[str, float | None]:
    """Joules above idle of items that are single samples.

    Args:
        found: None where nothing was measured: every figure is None.
        full, live: the names of two ways.
        inputs: in a pass.
        tokens, tokens_full: that a pass writes, where that is known.
        suffix: behind each name.

    Returns:
        ``joules_per_sample`` and ``joules_share`` (of the full model's, each repeat's own ratio)
        with ``_low`` and ``_high``, ``joules_per_sample_full``, with tokens ``joules_per_token``
        and its ends, ``joules_per_token_full``; where several parts were measured
        ``<part>_joules_per_sample``; ``idle_watts``. Medians over repeats. A ratio is None where
        the full model took no more than idle in some repeat.
    """
    one, whole = _totals(found, live), _totals(found, full)
    figures = _named("joules_per_sample", one / inputs, suffix)
    figures[f"joules_per_sample_full{suffix}"] = _median(whole / inputs)
    figures |= _named("joules_share", _ratios(one, whole), suffix)
    if tokens:
        figures |= _named("joules_per_token", one / tokens, suffix)
    if tokens_full:
        figures[f"joules_per_token_full{suffix}"] = _median(whole / tokens_full)
    if found is not None and len(found.parts) > 1:
        for at, part in enumerate(found.parts):
            value = _median(found.passes[live][:, at] / inputs)
            figures[f"{part}_joules_per_sample{suffix}"] = value
    figures["idle_watts"] = None if found is None else float(found.idle_watts.sum())
    return figures


def growth_figures(found: Energies | None, before: Any, after: Any) -> dict[str, float | None]:
    """``joules_growth``, how many times as many joules a way takes as another, with ``_low`` and
    ``_high``; None where that took no more than idle in some repeat."""
    return _named("joules_growth", _ratios(_totals(found, after), _totals(found, before)), "")


def _totals(found: Energies | None, name: Any) -> Joules:
    """Of a pass; NaN where nothing was measured. Shape: [repeats]."""
    if found is None:
        return np.full(LEAST_REPEATS, np.nan)
    return np.asarray(found.passes[name].sum(axis=1))


def _ratios(one: Joules, other: Joules) -> Joules:
    if not (other > 0).all():
        return np.full(len(one), np.nan)
    return one / other


def _named(name: str, values: Joules, suffix: str) -> dict[str, float | None]:
    found = Spread.of(values).named(name, suffix)
    return {name: None if np.isnan(value) else value for name, value in found.items()}


def _median(values: Joules) -> float | None:
    return None if np.isnan(values).any() else float(np.median(values))
