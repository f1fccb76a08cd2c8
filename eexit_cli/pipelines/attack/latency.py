"""How long a model takes for an attack's inputs, as they were and as they became."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from eexit_cli.config.common import TimingConfig
from eexit_cli.families.stopwatch import time_ways
from eexit_cli.metrics.latency import speed_figures
from eexit_cli.pipelines.attack.records import WHEN, pair_of

if TYPE_CHECKING:
    from eexit_cli.core.answers import Exit
    from eexit_cli.core.family import Model
    from eexit_cli.core.protocols import Progress

Records = Sequence[Mapping[str, Any]]

Way = tuple[tuple[str, ...], tuple["Exit", ...]]
"""Texts, and each one's exit."""


def attack_latency(
    rows: Mapping[str, tuple[Records, Sequence[Exit]]],
    model: Model,
    config: TimingConfig,
    progress: Progress,
) -> dict[str, dict[str, float]]:
    """Batch 1, tokenising apart: live exits and the full model, before and after, all in turn.

    Rows that run the same texts by the same exits (the texts before an attack, the full model
    under several defences) share the measurement.

    Args:
        rows: name -> records, and the exit that each record's sample leaves by.
        config: how many samples of each row are timed, the first ones, and how often.

    Returns:
        For each row ``latency_ms``, ``latency_full_ms``, ``speedup_seconds`` with ``_low`` and
        ``_high``, each with ``_before`` and ``_after``, ``latency_samples`` and
        ``timing_repeats``; nothing where no sample is timed.
    """
    count = min([config.latency_samples, *(len(records) for records, _ in rows.values())])
    if count == 0:
        return {name: {} for name in rows}
    encoded: dict[tuple[str, ...], list[Any]] = {}
    ways: dict[Way, Callable[[int], object]] = {}

    def way(records: Records, when: str, exits: Sequence[Exit]) -> Way:
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
    seconds = time_ways(
        ways,
        range(count),
        device=model.device,
        repeats=config.timing_repeats,
        progress=progress,
        title="Timing",
    )
    found: dict[str, dict[str, float]] = {}
    for name in rows:
        found[name] = {"latency_samples": count, "timing_repeats": config.timing_repeats}
        for when in WHEN:
            full, live = (seconds[key] for key in names[name, when])
            found[name] |= speed_figures(full, live, f"_{when}")
    return found
