"""What an attack did, from its records: figures, how sure they are, who beats whom."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import Any

import numpy as np
from numpy.typing import NDArray

from eexit_cli.core.seed import derive_seed
from eexit_cli.core.types import TaskInfo
from eexit_cli.metrics.depth import depth_metrics, gain_removed
from eexit_cli.metrics.generation import compute_generation
from eexit_cli.metrics.statistics import LEVEL, bootstrap_interval, holm, sign_flip_test
from eexit_cli.metrics.task import compute
from eexit_cli.pipelines.attack.subject import WHEN, layers_of

Records = list[dict[str, Any]]

REASONS = {
    "all layers": "use all layers",
    "misclassified": "are misclassified",
    "no draft is accepted": "have no draft accepted",
}
"""Why a recipe skips samples, by the word of their records."""


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
        These, ``gain_removed_attacked``, and what :func:`intervals` says.
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
            metrics |= drafts(records, when)
            name = f"output_similarity_{when}"
            metrics[name] = _mean([r[name] for r in records])
        elif labelled:
            answers, labels = ([r[key] for r in records] for key in (f"prediction_{when}", "label"))
            scores = compute(info, answers, labels)
            metrics |= {f"{key}_{when}": value for key, value in scores.items()}
    before, after = (float(_mean_depth(*_depths(records, when))) for when in WHEN)
    metrics["gain_removed"] = gain_removed(before, after, _most(records, num_layers))
    return metrics


def drafts(records: Records, when: str) -> dict[str, Any]:
    """What self-speculation's drafts were worth; nothing where there were none.

    Returns:
        ``tokens_per_verification`` (the first token of an output needs none), its inverse
        ``verifications_per_token``, ``acceptance_rate`` and ``verifications_mean``, each with
        ``when`` behind it.
    """
    passes = [r[f"verifications_{when}"] for r in records if f"verifications_{when}" in r]
    if len(passes) < len(records) or not sum(passes):
        return {}
    tokens = sum(r[f"tokens_{when}"] - 1 for r in records)
    drafted, accepted = (
        sum(r[f"{name}_{when}"] for r in records) for name in ("drafted", "accepted")
    )
    return {
        f"tokens_per_verification_{when}": tokens / sum(passes),
        f"acceptance_rate_{when}": accepted / drafted if drafted else 0.0,
        f"verifications_mean_{when}": _mean(passes),
        f"verifications_per_token_{when}": sum(passes) / tokens if tokens else None,
    }


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


Array = NDArray[np.float64]


def gain_of_attacked(records: Records, num_layers: int) -> float | None:
    """The gain removed over the samples that the recipe attacked.

    Recipes that skip what the model misclassifies leave its layers as they were, which the table's
    figure over all samples counts as nothing removed.

    Returns:
        None where no sample was attacked.
    """
    attacked = [record for record in records if record["status"] == "attacked"]
    if not attacked:
        return None
    before, after = (float(_mean_depth(*_depths(attacked, w))) for w in ("before", "after"))
    return gain_removed(before, after, _most(attacked, num_layers))


def intervals(records: Records, num_layers: int, *, seed: int) -> dict[str, float | None]:
    """``<figure>_low`` and ``_high`` of the gain removed, of the mean exit layer after the attack
    and of the accuracy after it, at ``interval_level``: how much these figures would move with
    other samples of the same kind. Outputs weigh by their tokens."""
    before, after = _depths(records, "before"), _depths(records, "after")
    most = _most(records, num_layers)
    depth = "verifications_per_token" if _has_drafts(records) else "mean_exit_layer"

    def gain(*columns: Array) -> Array:
        start, end = _mean_depth(*columns[:2]), _mean_depth(*columns[2:])
        with np.errstate(divide="ignore", invalid="ignore"):
            return np.asarray((end - start) / (most - start))

    found = {
        "gain_removed": bootstrap_interval(gain, *before, *after, seed=seed),
        depth: bootstrap_interval(_mean_depth, *after, seed=seed),
    }
    if all(record.get("label") is not None for record in records):
        right = [record["prediction_after"] == record["label"] for record in records]
        found["accuracy"] = bootstrap_interval(_means, right, seed=seed)
    named: dict[str, float | None] = {"interval_level": LEVEL}
    for name, ends in found.items():
        when = "" if name == "gain_removed" else "_after"
        for end, value in zip(("low", "high"), ends or (None, None), strict=True):
            named[f"{name}_{end}{when}"] = value
    return named


def _means(values: Array) -> Array:
    return np.asarray(values.mean(axis=-1))


def _has_drafts(records: Records) -> bool:
    return all("verifications_before" in record for record in records)


def _most(records: Records, num_layers: int) -> int:
    """What :func:`_depths` is per exit where nothing is saved."""
    return 1 if _has_drafts(records) else num_layers


def _depths(records: Records, when: str) -> tuple[Array, Array]:
    """Layers that each sample used, and of how many exits: a decoder's output has one a token.

    What self-speculation saves is verifications: there it is how many each output took, and of how
    many tokens (the first needs none); the layers of a token are all.
    """
    if _has_drafts(records):
        drafted = [(r[f"verifications_{when}"], r[f"tokens_{when}"] - 1) for r in records]
        passes, tokens = np.array(drafted, dtype=np.float64).reshape(-1, 2).T
        return passes, tokens
    pairs = [
        (r.get(f"total_layers_{when}", r[f"exit_layer_{when}"]), r.get(f"tokens_{when}", 1))
        for r in records
    ]
    layers, exits = np.array(pairs, dtype=np.float64).reshape(-1, 2).T
    return layers, exits


def _mean_depth(layers: Array, exits: Array) -> Array:
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.asarray(layers.sum(axis=-1) / exits.sum(axis=-1))


def _each(layers: Array, exits: Array) -> Array:
    """Of each sample; 0 for an output that ended with its first token, without a draft."""
    return np.divide(layers, exits, out=np.zeros_like(layers), where=exits > 0)


def comparisons(
    records: Mapping[str, Records], num_layers: int, *, seed: int
) -> list[dict[str, Any]]:
    """Every pair of recipes, compared sample by sample.

    The exit layers after the attack are compared by the paired permutation test, and the p-values
    of all pairs corrected by Holm's method. An input counts once there, however many tokens a
    decoder makes of it, and so it does in ``difference_layers``; a gain weighs outputs by their
    tokens, so that a decoder's ``difference_gain`` may even have the other sign.

    Args:
        records: of each recipe, on the same samples in the same order.
        num_layers: L.

    Returns:
        Per pair ``recipe``, ``against``, ``samples``, ``difference_layers`` (exit layer of the
        first minus the second's, mean over inputs: what the p-value is of), ``difference_gain``
        (the first's gain removed minus the second's, None where nothing was saved) with ``_low``
        and ``_high``, ``p_value`` and ``p_holm``.
    """
    rows: list[dict[str, Any]] = []
    most = min(_most(each, num_layers) for each in records.values())
    for one, other in combinations(records, 2):
        before = _depths(records[one], "before")
        first, second = (_depths(records[name], "after") for name in (one, other))
        own_seed = derive_seed(seed, "compare", one, other)

        def gain(*columns: Array) -> Array:
            start, end, end_of_other = (_mean_depth(*columns[at : at + 2]) for at in (0, 2, 4))
            with np.errstate(divide="ignore", invalid="ignore"):
                return np.asarray((end - end_of_other) / (most - start))

        columns = (*before, *first, *second)
        interval = bootstrap_interval(gain, *columns, seed=own_seed) or (None, None)
        value = float(gain(*columns)) if _mean_depth(*before) < most else None
        # Each input's own depth: what a permutation of its two outcomes exchanges.
        difference = _each(*first) - _each(*second)
        rows.append(
            {
                "recipe": one,
                "against": other,
                "samples": len(difference),
                "difference_layers": float(difference.mean()),
                "difference_gain": value,
                "difference_gain_low": interval[0],
                "difference_gain_high": interval[1],
                "p_value": sign_flip_test(difference, seed=own_seed),
            }
        )
    for row, corrected in zip(rows, holm([row["p_value"] for row in rows]), strict=True):
        row["p_holm"] = corrected
    return rows


def strongest(rows: Sequence[Mapping[str, Any]]) -> Mapping[str, Any]:
    """The row that removes most of the gain; the first one where none removed any."""
    done = [row for row in rows if "status" not in row]
    return max(done, key=lambda row: -np.inf if (g := row["gain_removed"]) is None else g)
