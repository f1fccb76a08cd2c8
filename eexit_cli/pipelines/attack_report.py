"""What an attack did, from its records; and how many milliseconds its inputs cost."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from eexit_cli.core.protocols import ExitCriterion
from eexit_cli.core.types import TaskInfo
from eexit_cli.metrics.depth import depth_metrics, gain_removed
from eexit_cli.metrics.latency import time_in_turn
from eexit_cli.metrics.task import compute
from eexit_cli.pipelines.loading import LoadedModel
from eexit_cli.pipelines.tracing import to_device

if TYPE_CHECKING:
    from eexit_cli.core.protocols import Progress

LATENCY_SAMPLES = 50
"""Most samples timed before and after, at batch 1."""


def attack_metrics(
    info: TaskInfo, records: list[dict[str, Any]], num_layers: int
) -> dict[str, Any]:
    """What an attack did, from its records alone.

    Depth and quality are over all samples, costs and successes over the attacked ones.

    Args:
        info: the task, whose metrics are computed where the samples have labels.
        records: one per sample.
        num_layers: L.
    """
    attacked = [record for record in records if record["status"] == "attacked"]
    counts = {"attacked": len(attacked), "skipped": len(records) - len(attacked)}
    metrics = depth_and_quality(info, records, num_layers) | counts
    changes = [len(record["changed_words"]) for record in attacked]
    rates = [n / max(1, r["num_words"]) for n, r in zip(changes, attacked, strict=True)]
    return metrics | {
        "success_rate": _mean([r["exit_layer_after"] >= num_layers for r in attacked]),
        "goal_success_rate": _mean([r["goal_reached"] for r in attacked if "goal_reached" in r]),
        "queries_mean": _mean([r["queries"] for r in attacked]),
        "gradient_passes_mean": _mean([r["gradient_passes"] for r in attacked]),
        "seconds_mean": _mean([r["seconds"] for r in attacked]),
        "words_changed_mean": _mean(changes),
        "change_rate_mean": _mean(rates),
        **{
            f"{name}_mean": _mean([r[name] for r in attacked if name in r])
            for name in ("similarity_characters", "similarity_embedding")
        },
    }


def depth_and_quality(
    info: TaskInfo, records: list[dict[str, Any]], num_layers: int
) -> dict[str, Any]:
    """Where all samples leave before and after, and how good the answers are there."""
    metrics: dict[str, Any] = {"num_layers": num_layers, "samples": len(records)}
    labelled = all(record.get("label") is not None for record in records)
    for when in ("before", "after"):
        layers = [record[f"exit_layer_{when}"] for record in records]
        metrics |= {
            f"{key}_{when}": value for key, value in depth_metrics(layers, num_layers).items()
        }
        if labelled:
            scores = compute(
                info,
                [record[f"prediction_{when}"] for record in records],
                [record["label"] for record in records],
            )
            metrics |= {f"{key}_{when}": value for key, value in scores.items()}
    metrics["gain_removed"] = gain_removed(
        metrics["mean_exit_layer_before"], metrics["mean_exit_layer_after"], num_layers
    )
    return metrics


def _mean(values: list[Any]) -> float | None:
    return float(np.mean(values)) if values else None


def measure_latency(
    records: list[dict[str, Any]],
    loaded: LoadedModel,
    criterion: ExitCriterion | Sequence[ExitCriterion],
    progress: Progress,
    *,
    samples: int = LATENCY_SAMPLES,
) -> dict[str, float]:
    """Batch 1, plain kernels, tokenising apart: live exits and the full model, before and after.

    Args:
        criterion: of all samples, or of each.
        samples: most that are timed.
    """
    rules = list(criterion) if isinstance(criterion, Sequence) else [criterion] * len(records)
    batcher = loaded.batcher()

    def encode(record: dict[str, Any], key: str) -> dict[str, Any]:
        # An attack that left the second text of a pair alone need not repeat it.
        pair = record.get(f"{key}_pair", record.get("text_pair"))
        batch = batcher([record[key]], None if pair is None else [pair])
        return to_device(batch, loaded.device)

    items = [
        ({when: encode(record, key) for when, key in _TEXT_KEYS.items()}, rule)
        for record, rule in zip(records[:samples], rules, strict=False)
    ]
    ways = {
        (kind, when): _timed_way(loaded, when, live=kind == "live")
        for kind in ("live", "full")
        for when in _TEXT_KEYS
    }
    named = {f"{kind} {when}": way for (kind, when), way in ways.items()}
    drain = torch.cuda.synchronize if loaded.device.type == "cuda" else None
    with progress.task("Timing", total=len(items)) as ticker:
        seconds = time_in_turn(named, items, repeats=2, synchronize=drain, on_item=ticker.advance)
    metrics = {"latency_samples": float(len(items))}
    for when in _TEXT_KEYS:
        live, full = seconds[f"live {when}"], seconds[f"full {when}"]
        metrics[f"latency_ms_{when}"] = 1000 * float(live.mean())
        metrics[f"latency_full_ms_{when}"] = 1000 * float(full.mean())
        metrics[f"speedup_seconds_{when}"] = float(full.sum() / live.sum())
    return metrics


_TEXT_KEYS = {"before": "text", "after": "perturbed_text"}


def _timed_way(loaded: LoadedModel, when: str, *, live: bool) -> Any:
    def way(item: tuple[dict[str, Any], ExitCriterion]) -> None:
        texts, rule = item
        loaded.model.infer(**texts[when], criterion=rule if live else None)

    return way
