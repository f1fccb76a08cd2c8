"""What an attack did, from its records."""

from __future__ import annotations

from typing import Any

import numpy as np

from eexit_cli.core.types import TaskInfo
from eexit_cli.metrics.depth import depth_metrics, gain_removed
from eexit_cli.metrics.generation import compute_generation
from eexit_cli.metrics.task import compute
from eexit_cli.pipelines.attack.records import WHEN, layers_of
from eexit_cli.pipelines.attack.table import gain_of_attacked, intervals

Records = list[dict[str, Any]]


def attack_metrics(
    info: TaskInfo, records: Records, num_layers: int, *, seed: int
) -> dict[str, Any]:
    """A recipe's figures from its records, with bootstrap intervals.

    Depth and quality are over all samples, see :func:`depth_and_quality`; costs and successes are
    over the attacked ones: ``goal_success_rate`` is the share whose goal, the recipe's own, was
    reached, ``last_layer_rate`` the share whose every decision uses all layers afterwards,
    ``changes_mean`` counts units (``unit``: letters of a word, words of a text).

    Args:
        info: the task, whose metrics are computed where the samples have labels or references.
        records: one per sample.
        num_layers: L.
        seed: of the intervals.

    Returns:
        These, ``gain_removed_attacked``, and what :func:`~eexit_cli.pipelines.attack.table.\
intervals` says.
    """
    attacked = [record for record in records if record["status"] == "attacked"]
    rates = [len(r["changed_words"]) / max(1, r["num_words"]) for r in attacked]
    likenesses = ["similarity_characters"]
    if not _writes(info):
        likenesses.append("similarity_embedding")
    return {
        **depth_and_quality(info, records, num_layers),
        "attacked": len(attacked),
        "skipped": len(records) - len(attacked),
        "unit": " or ".join(sorted({record.get("unit", "words") for record in records})),
        "goal_success_rate": _mean([r["goal_reached"] for r in attacked if "goal_reached" in r]),
        "last_layer_rate": _mean(
            [min(layers) >= num_layers for r in attacked if (layers := layers_of(r, "after"))]
        ),
        "queries_mean": _mean([r["queries"] for r in attacked]),
        "gradient_passes_mean": _mean([r["gradient_passes"] for r in attacked]),
        "seconds_mean": _mean([r["seconds"] for r in attacked]),
        "changes_mean": _mean([len(r["changed_words"]) for r in attacked]),
        "change_rate_mean": _mean(rates),
        "change_rate_max": max(rates) if rates else None,
        **{f"{name}_mean": _mean([r[name] for r in attacked if name in r]) for name in likenesses},
        "gain_removed_attacked": gain_of_attacked(records, num_layers),
        **intervals(records, num_layers, seed=seed),
    }


def depth_and_quality(info: TaskInfo, records: Records, num_layers: int) -> dict[str, Any]:
    """Where decisions leave before and after, and how good the answers are there.

    Depth is over all decisions of all samples, as ``eexit evaluate`` has it, so a long output
    weighs more than a short one.

    Quality of classes is the task's metrics, where all samples have labels. Quality of texts is how
    early exits agree with the full model on the same input: ``agreement`` is the share of equal
    outputs, ``output_similarity`` 1 - edit distance in words (phonemes) over the longer one's
    length; the task's metrics are added where there are references, see :func:`task_quality`.
    """
    metrics: dict[str, Any] = {"num_layers": num_layers, "samples": len(records)}
    writes = _writes(info)
    if writes:
        metrics |= task_quality(info, records)
    labelled = all(record.get("label") is not None for record in records)
    for when in WHEN:
        layers = [layer for record in records for layer in layers_of(record, when)]
        metrics |= {
            f"{key}_{when}": value for key, value in depth_metrics(layers, num_layers).items()
        }
        if writes:
            for name in ("total_layers", "tokens"):
                metrics[f"{name}_mean_{when}"] = _mean([r[f"{name}_{when}"] for r in records])
            metrics[f"agreement_{when}"] = _mean(
                [r[f"output_{when}"] == r[f"full_output_{when}"] for r in records]
            )
            name = f"output_similarity_{when}"
            metrics[name] = _mean([r[name] for r in records])
        elif labelled:
            answers, labels = ([r[key] for r in records] for key in (f"prediction_{when}", "label"))
            scores = compute(info, answers, labels)
            metrics |= {f"{key}_{when}": value for key, value in scores.items()}
    metrics["gain_removed"] = gain_removed(
        metrics["mean_exit_layer_before"], metrics["mean_exit_layer_after"], num_layers
    )
    return metrics


def leading(info: TaskInfo) -> str:
    """The metric that says how good the answers are."""
    return "output_similarity" if _writes(info) else info.metrics[0]


def task_quality(info: TaskInfo, records: Records) -> dict[str, Any]:
    """The metrics of a task of text generation before the attack, and after it where the references
    still hold.

    A text of several words that changes some of them should still be summarised or translated as
    before, so its references hold. A word with other letters is another word: nobody knows how it
    should be spelt out.

    Args:
        info: the task.
        records: one per sample.

    Returns:
        ``<metric>_before`` and ``<metric>_after`` over the texts of several words, and
        ``quality_samples``, how many those are; with inputs of one word alone only
        ``<metric>_before``, over all. Nothing where a sample has no reference.
    """
    texts = [record for record in records if record["unit"] == "words"]
    judged = texts or records
    references = [_references(record) for record in judged]
    if not all(references):
        return {}
    found: dict[str, Any] = {"quality_samples": len(judged)}
    for when in WHEN if texts else ("before",):
        outputs = [record[f"output_{when}"] for record in judged]
        scores = compute_generation(info, outputs, references)
        found |= {f"{name}_{when}": value for name, value in scores.items()}
    return found


def _writes(info: TaskInfo) -> bool:
    return info.kind == "generation"


def _references(record: dict[str, Any]) -> list[str]:
    found = record.get("references") or [record.get("target")]
    return [text for text in found if text is not None]


def _mean(values: list[Any]) -> float | None:
    return float(np.mean(values)) if values else None
