"""Measured wall-clock of a decoder at batch 1, early exit against the full model."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import TYPE_CHECKING

import torch

from eexit_cli.core.types import Examples
from eexit_cli.exits.adaptive import AdaptiveThreshold
from eexit_cli.exits.decay import TokenThreshold
from eexit_cli.metrics.latency import time_in_turn
from eexit_cli.models.seq2seq.settings import DecodeSettings
from eexit_cli.pipelines.decoding import prepare_sources, sources_of

if TYPE_CHECKING:
    from eexit_cli.core.protocols import Progress
    from eexit_cli.pipelines.decoder_metrics import Measured
    from eexit_cli.pipelines.loading_decoder import LoadedDecoder


def measure_latency(
    loaded: LoadedDecoder,
    examples: Examples,
    chosen: Measured,
    full: DecodeSettings,
    samples: int,
    progress: Progress,
) -> dict[str, float]:
    """Wall-clock at batch 1: the chosen setting and the full model take turns on the same sources.

    An adaptive threshold stands where the data set left it.

    Returns:
        See :func:`compare_latency`.
    """
    live = chosen.settings
    if isinstance(live.rule, AdaptiveThreshold) and chosen.decoded.threshold is not None:
        live = dataclasses.replace(
            live, rule=TokenThreshold(chosen.decoded.threshold), collect_pairs=False
        )
    return compare_latency(loaded, examples, live, full, samples, progress)


def compare_latency(
    loaded: LoadedDecoder,
    examples: Examples,
    live: DecodeSettings,
    full: DecodeSettings,
    samples: int,
    progress: Progress,
) -> dict[str, float]:
    """Wall-clock of two settings that take turns on the first ``samples`` sources, one by one.

    Returns:
        ``latency_ms``, ``latency_full_ms`` (per sample), ``speedup_seconds``,
        ``tokens_per_second_single``, ``tokens_per_second_single_full``, ``latency_samples``.
    """
    singles = prepare_sources(loaded, sources_of(examples)[:samples], batch_size=1)
    # Tokens of each source, by way: the outputs may differ in length.
    counted: dict[str, dict[int, int]] = {"live": {}, "full": {}}

    def way(name: str, settings: DecodeSettings) -> Callable[[dict[str, torch.Tensor]], None]:
        def run(batch: dict[str, torch.Tensor]) -> None:
            counted[name][id(batch)] = loaded.model.decode(**batch, settings=settings).counts.tokens

        return run

    drain = torch.cuda.synchronize if loaded.device.type == "cuda" else None
    with progress.task("Timing, one by one", total=len(singles)) as ticker:
        taken = time_in_turn(
            {"live": way("live", live), "full": way("full", full)},
            singles.batches,
            repeats=2,
            synchronize=drain,
            on_item=ticker.advance,
        )
    tokens = {name: sum(lengths.values()) for name, lengths in counted.items()}
    seconds = {name: float(each.sum()) for name, each in taken.items()}
    return {
        "latency_ms": 1000 * seconds["live"] / len(singles),
        "latency_full_ms": 1000 * seconds["full"] / len(singles),
        "speedup_seconds": seconds["full"] / seconds["live"],
        "tokens_per_second_single": tokens["live"] / seconds["live"],
        "tokens_per_second_single_full": tokens["full"] / seconds["full"],
        "latency_samples": len(singles),
    }
