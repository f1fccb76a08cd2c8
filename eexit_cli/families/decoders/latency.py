"""Measured wall-clock of a decoder's settings, all of them and the full model in turn."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from eexit_cli.config.common import TimingConfig
from eexit_cli.core.types import Examples
from eexit_cli.exits.adaptive import AdaptiveThreshold
from eexit_cli.exits.decay import TokenThreshold
from eexit_cli.families.decoders.costs import layer_milliseconds
from eexit_cli.families.decoders.decoding import decode_batches, prepare_sources
from eexit_cli.families.decoders.texts import first_of
from eexit_cli.families.stopwatch import measure_ways, time_ways
from eexit_cli.metrics.counters import Meter
from eexit_cli.metrics.energy import energy_figures
from eexit_cli.metrics.latency import Spread, speed_figures, throughput_figures
from eexit_cli.models.decoding.results import Decoded
from eexit_cli.models.decoding.settings import DecodeSettings

if TYPE_CHECKING:
    from eexit_cli.core.protocols import Progress
    from eexit_cli.families.decoders.costs import Measured
    from eexit_cli.families.decoders.loaded import LoadedDecoder

LEAST_BATCHES = 4
"""Of samples in a timed batch size: as many as keep a stream of batches full for a while."""


def settled(measured: Measured) -> DecodeSettings:
    """The setting that is timed: an adaptive threshold stands where the data set left it."""
    settings = measured.settings
    if isinstance(settings.rule, AdaptiveThreshold) and measured.decoded.threshold is not None:
        rule = TokenThreshold(measured.decoded.threshold)
        return dataclasses.replace(settings, rule=rule, collect_pairs=False)
    return settings


def time_singles(
    loaded: LoadedDecoder,
    examples: Examples,
    settings: Mapping[str, DecodeSettings],
    full: str,
    config: TimingConfig,
    progress: Progress,
    meter: Meter | None = None,
) -> dict[str, dict[str, Any]]:
    """Wall-clock at batch 1 of settings that take turns on the same sources, one by one.

    Args:
        settings: by name, the full model among them.
        full: its name.
        meter: measures joules too.

    Returns:
        For each ``latency_ms``, ``latency_full_ms`` (per input), ``speedup_seconds`` with ``_low``
        and ``_high``, ``tokens_per_second_single``, ``tokens_per_second_single_full``,
        ``latency_samples`` and ``timing_repeats``; with a meter also
        :func:`~eexit_cli.metrics.energy.energy_figures`.
    """
    singles = prepare_sources(loaded, first_of(examples, config.latency_samples), batch_size=1)
    # Tokens of each source: the outputs may differ in length.
    counted: dict[str, dict[int, int]] = {name: {} for name in settings}

    def way(name: str) -> Callable[[dict[str, torch.Tensor]], None]:
        def run(batch: dict[str, torch.Tensor]) -> None:
            decoded = loaded.model.decode(**batch, settings=settings[name])
            counted[name][id(batch)] = decoded.counts.tokens

        return run

    ways = {name: way(name) for name in settings}
    timing: dict[str, Any] = {
        "device": loaded.device,
        "repeats": config.timing_repeats,
        "progress": progress,
    }
    seconds = time_ways(ways, singles.batches, title="Timing, one by one", **timing)
    written = {name: sum(each.values()) for name, each in counted.items()}
    rates = {
        name: float(np.median(written[name] / each.sum(axis=1))) for name, each in seconds.items()
    }
    energy: dict[str, dict[str, Any]] = {}
    if meter is not None:
        found = measure_ways(ways, singles.batches, meter, **timing)
        energy = {
            name: energy_figures(
                found,
                full=full,
                live=name,
                inputs=len(singles),
                tokens=written[name],
                tokens_full=written[full],
            )
            for name in settings
        }
    return {
        name: {
            **speed_figures(seconds[full], each),
            "tokens_per_second_single": rates[name],
            "tokens_per_second_single_full": rates[full],
            "latency_samples": len(singles),
            "timing_repeats": config.timing_repeats,
            **energy.get(name, {}),
        }
        for name, each in seconds.items()
    }


def time_batches(
    loaded: LoadedDecoder,
    examples: Examples,
    settings: Mapping[str, DecodeSettings],
    full: str,
    batch_size: int,
    config: TimingConfig,
    progress: Progress,
) -> dict[str, dict[str, float]]:
    """Wall-clock at the batch size used, of settings that take turns on the same sources.

    On a CPU the clock readings between the parts cost under 1 %, so that the same runs time each
    layer; elsewhere each reading waits for the device, and the parts get runs of their own.

    Args:
        settings: by name, the full model among them.
        full: its name.

    Returns:
        For each ``tokens_per_second`` and the milliseconds of each layer
        (:func:`~eexit_cli.families.decoders.costs.layer_milliseconds`), each with ``_low`` and
        ``_high``; ``throughput``, ``throughput_full`` (inputs per second), ``speedup_throughput``
        with ``_low`` and ``_high``; ``throughput_samples`` and ``timing_repeats``.
    """
    count = max(config.latency_samples, LEAST_BATCHES * batch_size)
    sources = prepare_sources(loaded, first_of(examples, count), batch_size=batch_size)
    cheap = loaded.device.type == "cpu"

    def timed(by_part: bool) -> tuple[dict[str, Any], dict[str, list[Decoded]]]:
        runs: dict[str, list[Decoded]] = {name: [] for name in settings}

        def way(name: str) -> Callable[[object], None]:
            own = dataclasses.replace(settings[name], timings=by_part)
            return lambda _: runs[name].append(decode_batches(loaded, sources, own))

        seconds = time_ways(
            {name: way(name) for name in settings},
            [sources],
            device=loaded.device,
            repeats=config.timing_repeats,
            progress=progress,
            title=f"Timing, batch {batch_size}",
        )
        # The first of each only warmed up.
        return seconds, {name: each[1:] for name, each in runs.items()}

    seconds, runs = timed(cheap)
    parts = runs if cheap else timed(True)[1]
    found: dict[str, dict[str, float]] = {}
    for name, each in seconds.items():
        tokens = runs[name][0].counts.tokens
        by_repeat = [
            layer_milliseconds(
                decoded.timings,
                [
                    layer
                    for sample in decoded.samples
                    for layer in sample.exit_layers[int(loaded.model.prompted) :]
                ],
                decoded.counts.layer_tokens,
                settings[name],
                loaded.num_layers,
            )
            for decoded in parts[name]
            if decoded.timings is not None
        ]
        found[name] = Spread.of(tokens / each.sum(axis=1)).named("tokens_per_second")
        for layer in by_repeat[0]:
            found[name] |= Spread.of([repeat[layer] for repeat in by_repeat]).named(layer)
        found[name] |= throughput_figures(seconds[full], each, len(sources))
        found[name]["throughput_samples"] = len(sources)
        found[name]["timing_repeats"] = config.timing_repeats
    return found
