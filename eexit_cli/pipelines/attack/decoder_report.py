"""What an attack did to a decoder, from its records; and how many milliseconds its inputs cost."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from eexit_cli.config.common import TimingConfig
from eexit_cli.core.types import TaskInfo
from eexit_cli.families.batches import to_device
from eexit_cli.families.seq2seq.exits import full_model
from eexit_cli.metrics.depth import depth_metrics, gain_removed
from eexit_cli.metrics.generation import compute_generation
from eexit_cli.metrics.similarity import edit_similarity
from eexit_cli.models.decoding.settings import DecodeSettings
from eexit_cli.pipelines.attack.latency import attack_latency
from eexit_cli.pipelines.attack.table import gain_of_attacked, intervals

if TYPE_CHECKING:
    import torch

    from eexit_cli.core.protocols import Progress
    from eexit_cli.families.seq2seq.model import Seq2SeqModel

Records = list[dict[str, Any]]

_WHEN = ("before", "after")


def decoder_attack_metrics(
    info: TaskInfo, records: Records, num_layers: int, *, seed: int
) -> dict[str, Any]:
    """A recipe's figures from its records, with bootstrap intervals.

    Depth is over all output tokens of all samples, as ``eexit evaluate`` has it, so a long output
    weighs more than a short one; costs and successes are over the attacked samples:
    ``goal_success_rate`` is the share whose goal, the recipe's own, was reached,
    ``last_layer_rate`` the share whose every token uses all layers afterwards, ``changes_mean``
    counts units (``unit``: letters of a word, words of a text).

    Quality is how early exits agree with the full model on the same input: ``agreement`` is the
    share of equal outputs, ``output_similarity`` 1 - edit distance in words (phonemes) over the
    longer one's length. The task's metrics are added where there are references, see
    :func:`task_quality`.

    Args:
        info: the task.
        records: one per sample.
        num_layers: L.
        seed: of the intervals.
    """
    attacked = [record for record in records if record["status"] == "attacked"]
    rates = [len(r["changed_words"]) / max(1, r["num_words"]) for r in attacked]
    return depth_and_likeness(info, records, num_layers) | {
        "unit": _unit(records),
        "attacked": len(attacked),
        "skipped": len(records) - len(attacked),
        "goal_success_rate": _mean([r["goal_reached"] for r in attacked]),
        "last_layer_rate": _mean(
            [min(r["token_layers_after"]) >= num_layers for r in attacked if r["tokens_after"]]
        ),
        "queries_mean": _mean([r["queries"] for r in attacked]),
        "gradient_passes_mean": _mean([r["gradient_passes"] for r in attacked]),
        "seconds_mean": _mean([r["seconds"] for r in attacked]),
        "changes_mean": _mean([len(r["changed_words"]) for r in attacked]),
        "change_rate_mean": _mean(rates),
        "change_rate_max": max(rates) if rates else None,
        "similarity_characters_mean": _mean([r["similarity_characters"] for r in attacked]),
        "gain_removed_attacked": gain_of_attacked(records, num_layers),
        **intervals(records, num_layers, seed=seed),
    }


def depth_and_likeness(info: TaskInfo, records: Records, num_layers: int) -> dict[str, Any]:
    """Where all tokens leave before and after, and what remains of the full model's outputs."""
    metrics: dict[str, Any] = {
        "num_layers": num_layers,
        "samples": len(records),
        **task_quality(info, records),
    }
    for when in _WHEN:
        layers = [layer for record in records for layer in record[f"token_layers_{when}"]]
        metrics |= {
            f"{key}_{when}": value for key, value in depth_metrics(layers, num_layers).items()
        }
        metrics |= {
            f"{name}_mean_{when}": _mean([r[f"{name}_{when}"] for r in records])
            for name in ("total_layers", "tokens")
        }
        metrics[f"agreement_{when}"] = _mean(
            [r[f"output_{when}"] == r[f"full_output_{when}"] for r in records]
        )
        metrics[f"output_similarity_{when}"] = _mean(
            [r[f"output_similarity_{when}"] for r in records]
        )
    metrics["gain_removed"] = gain_removed(
        metrics["mean_exit_layer_before"], metrics["mean_exit_layer_after"], num_layers
    )
    return metrics


def output_record(when: str, exit_layers: Sequence[int], output: str, full: str) -> dict[str, Any]:
    """What a sample's record says of one output.

    Args:
        when: before or after.
        exit_layers: layer that emitted each token, 1..L.
        output: the text.
        full: what all layers make of the same input.
    """
    return {
        f"exit_layer_{when}": sum(exit_layers) / len(exit_layers),
        f"total_layers_{when}": sum(exit_layers),
        f"tokens_{when}": len(exit_layers),
        f"token_layers_{when}": list(exit_layers),
        f"output_{when}": output,
        f"full_output_{when}": full,
        f"output_similarity_{when}": edit_similarity(output.split(), full.split()),
    }


def task_quality(info: TaskInfo, records: Records) -> dict[str, Any]:
    """The task's metrics before the attack, and after it where the references still hold.

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
    for when in _WHEN if texts else _WHEN[:1]:
        outputs = [record[f"output_{when}"] for record in judged]
        scores = compute_generation(info, outputs, references)
        found |= {f"{name}_{when}": value for name, value in scores.items()}
    return found


def _unit(records: Records) -> str:
    """What was changed: letters of words, words of texts, or both where inputs differ."""
    return " or ".join(sorted({record["unit"] for record in records}))


def _references(record: dict[str, Any]) -> list[str]:
    found = record.get("references") or [record.get("target")]
    return [text for text in found if text is not None]


def _mean(values: list[Any]) -> float | None:
    return float(np.mean(values)) if values else None


def decoder_latency(
    rows: Mapping[str, tuple[Records, Sequence[DecodeSettings]]],
    loaded: Seq2SeqModel,
    config: TimingConfig,
    progress: Progress,
) -> dict[str, dict[str, float]]:
    """:func:`~eexit_cli.pipelines.attack.latency.attack_latency` of a decoder.

    Args:
        rows: name -> records, and the settings of each.
    """
    batcher, full = loaded.batcher(), full_model(loaded)

    def encode(record: Mapping[str, Any], key: str) -> dict[str, torch.Tensor]:
        batch = batcher([record[key]])
        kept = {name: batch[name] for name in ("input_ids", "attention_mask")}
        return to_device(kept, loaded.device)

    return attack_latency(
        rows,
        encode,
        lambda batch, settings: loaded.model.decode(**batch, settings=settings or full),
        device=loaded.device,
        config=config,
        progress=progress,
    )
