"""What an attack did, from its records; and how many milliseconds its inputs cost."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from eexit_cli.config.common import TimingConfig
from eexit_cli.core.protocols import ExitCriterion
from eexit_cli.core.types import TaskInfo
from eexit_cli.families.batches import to_device
from eexit_cli.families.encoder.model import EncoderModel
from eexit_cli.metrics.depth import depth_metrics, gain_removed
from eexit_cli.metrics.task import compute
from eexit_cli.pipelines.attack.latency import attack_latency
from eexit_cli.pipelines.attack.records import pair_of

if TYPE_CHECKING:
    from eexit_cli.core.protocols import Progress


def attack_metrics(
    info: TaskInfo, records: list[dict[str, Any]], num_layers: int
) -> dict[str, Any]:
    """What an attack did, from its records alone.

    Depth and quality are over all samples, costs and successes over the attacked ones. Names are
    those of :func:`~eexit_cli.pipelines.attack.decoder_report.decoder_attack_metrics` wherever the
    measure is the same: ``goal_success_rate`` is the share whose goal, the recipe's own, was
    reached, ``last_layer_rate`` the share that uses all layers afterwards, ``changes_mean`` counts
    units (``unit``: words here).

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
        "unit": "words",
        "goal_success_rate": _mean([r["goal_reached"] for r in attacked if "goal_reached" in r]),
        "last_layer_rate": _mean([r["exit_layer_after"] >= num_layers for r in attacked]),
        "queries_mean": _mean([r["queries"] for r in attacked]),
        "gradient_passes_mean": _mean([r["gradient_passes"] for r in attacked]),
        "seconds_mean": _mean([r["seconds"] for r in attacked]),
        "changes_mean": _mean(changes),
        "change_rate_mean": _mean(rates),
        "change_rate_max": max(rates) if rates else None,
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
    rows: Mapping[str, tuple[list[dict[str, Any]], Sequence[ExitCriterion]]],
    loaded: EncoderModel,
    config: TimingConfig,
    progress: Progress,
) -> dict[str, dict[str, float]]:
    """:func:`~eexit_cli.pipelines.attack.latency.attack_latency` of a classifier.

    Args:
        rows: name -> records, and the criterion of each.
    """
    batcher = loaded.batcher()

    def encode(record: Mapping[str, Any], key: str) -> dict[str, Any]:
        pair = pair_of(record, key)
        batch = batcher([record[key]], None if pair is None else [pair])
        return to_device(batch, loaded.device)

    return attack_latency(
        rows,
        encode,
        lambda batch, rule: loaded.model.infer(**batch, criterion=rule),
        device=loaded.device,
        config=config,
        progress=progress,
    )
