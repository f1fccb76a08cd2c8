"""Measured wall-clock of a classifier's exits, all of them and the full model in turn."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from eexit_cli.core.answers import Exit
from eexit_cli.core.types import Examples
from eexit_cli.families.batches import DEFAULT_BATCH_SIZE, batches_by_length, texts_of, to_device
from eexit_cli.families.stopwatch import FULL, measure_ways, time_ways
from eexit_cli.metrics.counters import Meter
from eexit_cli.metrics.energy import energy_figures
from eexit_cli.metrics.latency import speed_figures, throughput_figures

if TYPE_CHECKING:
    import torch

    from eexit_cli.core.protocols import Progress
    from eexit_cli.families.encoder.loaded import LoadedModel


def measure_speed(
    loaded: LoadedModel,
    examples: Examples,
    exits: Sequence[Exit],
    config: Any,
    progress: Progress,
    meter: Meter | None = None,
) -> list[dict[str, Any]]:
    """Measured wall-clock of each exit: latency at batch 1, throughput at the batch size used.

    All live paths and the full model of each runtime take turns on the same tokenised inputs with
    the same kernels; tokenising is not part of it.

    Args:
        config: ``config.common.TimingConfig`` with ``batch_size``; None is 32.
        meter: measures joules at batch 1 too.

    Returns:
        For each ``latency_ms``, ``latency_full_ms``, ``speedup_seconds`` (batch 1), ``throughput``,
        ``throughput_full`` (inputs per second), ``speedup_throughput``, the speedups with ``_low``
        and ``_high``; ``batch_size``, ``latency_samples``, ``throughput_samples`` and
        ``timing_repeats``. See :mod:`eexit_cli.metrics.latency`. With a meter also
        :func:`~eexit_cli.metrics.energy.energy_figures`.
    """
    texts, pairs = texts_of(examples)
    count = min(config.latency_samples, len(texts))
    batch_size = config.batch_size or DEFAULT_BATCH_SIZE
    batcher = loaded.batcher()

    def encode(rows: Sequence[int]) -> dict[str, torch.Tensor]:
        second = [pairs[row] for row in rows] if pairs else None
        return to_device(batcher([texts[row] for row in rows], second), loaded.device)

    def way(exit: Exit, model: Any) -> Callable[[dict[str, Any]], object]:
        return lambda batch: model.infer(**batch, criterion=exit.rule)

    runtimes = [loaded.runtime_of(exit) for exit in exits]
    whole = {each: f"{FULL}, {each}" for each in dict.fromkeys(runtimes)}
    full = {
        name: Exit.of({"criterion": "full", "runtime": each}, None) for each, name in whole.items()
    }
    ways: dict[Any, Callable[[dict[str, Any]], object]] = {
        **{name: way(exit, loaded.running(exit)) for name, exit in full.items()},
        **{at: way(exit, loaded.running(exit)) for at, exit in enumerate(exits)},
    }
    singles = [encode([row]) for row in range(count)]
    grouped = list(batches_by_length([len(texts[row]) for row in range(len(texts))], batch_size))
    # About as many samples as at batch 1, spread over the lengths.
    step = max(1, len(grouped) * batch_size // max(count, 4 * batch_size))
    chosen = grouped[::step]
    batches = [encode(rows) for rows in chosen]
    timing: dict[str, Any] = {
        "device": loaded.device,
        "repeats": config.timing_repeats,
        "progress": progress,
    }
    one = time_ways(ways, singles, title="Timing, one by one", **timing)
    energy: list[dict[str, Any]] = [{} for _ in exits]
    if meter is not None:
        found = measure_ways(ways, singles, meter, **timing)
        energy = [
            energy_figures(found, full=whole[runtime], live=at, inputs=count)
            for at, runtime in enumerate(runtimes)
        ]
    many = time_ways(ways, batches, title=f"Timing, batch {batch_size}", **timing)
    timed = sum(len(rows) for rows in chosen)
    return [
        {
            **speed_figures(one[whole[runtime]], one[at]),
            **throughput_figures(many[whole[runtime]], many[at], timed),
            "batch_size": batch_size,
            "latency_samples": count,
            "throughput_samples": timed,
            "timing_repeats": config.timing_repeats,
            **energy[at],
        }
        for at, runtime in enumerate(runtimes)
    ]
