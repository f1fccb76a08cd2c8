"""Seconds, and joules, of an attack's inputs: before and after, early exits and the full model."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from eexit_cli.config.common import TimingConfig
from eexit_cli.families.stopwatch import measure_ways, time_ways
from eexit_cli.metrics.energy import energy_figures, growth_figures
from eexit_cli.metrics.latency import speed_figures
from eexit_cli.pipelines.attack.subject import WHEN, pair_of

if TYPE_CHECKING:
    from eexit_cli.core.answers import Exit
    from eexit_cli.core.family import Model
    from eexit_cli.core.protocols import Progress
    from eexit_cli.metrics.counters import Meter

Timed = Sequence[Mapping[str, Any]]

Way = tuple[tuple[str, ...], tuple["Exit", ...]]
"""Texts, and each one's exit."""


def attack_latency(
    rows: Mapping[str, tuple[Timed, Sequence[Exit]]],
    model: Model,
    config: TimingConfig,
    progress: Progress,
    meter: Meter | None = None,
) -> dict[str, dict[str, Any]]:
    """Batch 1, tokenising apart: live exits and the full model, before and after, all in turn.

    Rows that run the same texts by the same exits (the texts before an attack, the full model
    under several defences) share the measurement.

    Args:
        rows: name -> records, and the exit that each record's sample leaves by.
        config: how many samples of each row are timed, the first ones, and how often.
        meter: measures joules too.

    Returns:
        For each row ``latency_ms``, ``latency_full_ms``, ``speedup_seconds`` with ``_low`` and
        ``_high``, each with ``_before`` and ``_after``, ``latency_samples`` and
        ``timing_repeats``; nothing where no sample is timed. With a meter also
        :func:`~eexit_cli.metrics.energy.energy_figures` before and after, and
        ``joules_growth`` from one to the other.
    """
    count = min([config.latency_samples, *(len(records) for records, _ in rows.values())])
    if count == 0:
        return {name: {} for name in rows}
    encoded: dict[tuple[str, ...], list[Any]] = {}
    ways: dict[Way, Callable[[int], object]] = {}

    def way(records: Timed, when: str, exits: Sequence[Exit]) -> Way:
        key, own = WHEN[when], tuple(exits[:count])
        texts = tuple(f"{r[key]}\n{pair_of(r, key)}" for r in records[:count])
        if texts not in encoded:
            encoded[texts] = [
                model.tokenised(record[key], pair_of(record, key)) for record in records[:count]
            ]
        inputs = encoded[texts]
        name = (texts, own)
        ways.setdefault(name, lambda index: model.live(inputs[index], own[index]))
        return name

    whole = [model.full()] * count
    names = {
        (name, when): (way(records, when, whole), way(records, when, exits))
        for name, (records, exits) in rows.items()
        for when in WHEN
    }
    timing: dict[str, Any] = {
        "device": model.device,
        "repeats": config.timing_repeats,
        "progress": progress,
    }
    seconds = time_ways(ways, range(count), title="Timing", **timing)
    joules = None if meter is None else measure_ways(ways, range(count), meter, **timing)
    found: dict[str, dict[str, Any]] = {}
    for name, (records, _) in rows.items():
        found[name] = {"latency_samples": count, "timing_repeats": config.timing_repeats}
        for when in WHEN:
            full, live = (seconds[key] for key in names[name, when])
            found[name] |= speed_figures(full, live, f"_{when}")
        if meter is not None:
            for when in WHEN:
                full_way, live_way = names[name, when]
                found[name] |= energy_figures(
                    joules,
                    full=full_way,
                    live=live_way,
                    inputs=count,
                    tokens=sum(record.get(f"tokens_{when}", 0) for record in records[:count]),
                    suffix=f"_{when}",
                )
            lives = (names[name, when][1] for when in WHEN)
            found[name] |= growth_figures(joules, *lives)
    return found
