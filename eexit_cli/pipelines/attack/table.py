"""The table of an attack run: a row per recipe, how sure its figures are, who beats whom."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import Any

import numpy as np
from numpy.typing import NDArray

from eexit_cli.core.seed import derive_seed
from eexit_cli.metrics.depth import gain_removed
from eexit_cli.metrics.statistics import LEVEL, bootstrap_interval, holm, sign_flip_test

Records = list[dict[str, Any]]
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
    return gain_removed(before, after, num_layers)


def intervals(records: Records, num_layers: int, *, seed: int) -> dict[str, float | None]:
    """``<figure>_low`` and ``_high`` of the gain removed, of the mean exit layer after the attack
    and of the accuracy after it, at ``interval_level``: how much these figures would move with
    other samples of the same kind. Outputs weigh by their tokens."""
    before, after = _depths(records, "before"), _depths(records, "after")

    def gain(*columns: Array) -> Array:
        start, end = _mean_depth(*columns[:2]), _mean_depth(*columns[2:])
        with np.errstate(divide="ignore", invalid="ignore"):
            return np.asarray((end - start) / (num_layers - start))

    found = {
        "gain_removed": bootstrap_interval(gain, *before, *after, seed=seed),
        "mean_exit_layer": bootstrap_interval(_mean_depth, *after, seed=seed),
    }
    if all(record.get("label") is not None for record in records):
        right = [record["prediction_after"] == record["label"] for record in records]
        found["accuracy"] = bootstrap_interval(_mean, right, seed=seed)
    named: dict[str, float | None] = {"interval_level": LEVEL}
    for name, ends in found.items():
        when = "" if name == "gain_removed" else "_after"
        for end, value in zip(("low", "high"), ends or (None, None), strict=True):
            named[f"{name}_{end}{when}"] = value
    return named


def _mean(values: Array) -> Array:
    return np.asarray(values.mean(axis=-1))


def _depths(records: Records, when: str) -> tuple[Array, Array]:
    """Layers that each sample used, and of how many exits: a decoder's output has one a token."""
    pairs = [
        (r.get(f"total_layers_{when}", r[f"exit_layer_{when}"]), r.get(f"tokens_{when}", 1))
        for r in records
    ]
    layers, exits = np.array(pairs, dtype=np.float64).reshape(-1, 2).T
    return layers, exits


def _mean_depth(layers: Array, exits: Array) -> Array:
    return np.asarray(layers.sum(axis=-1) / exits.sum(axis=-1))


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
    for one, other in combinations(records, 2):
        before = _depths(records[one], "before")
        first, second = (_depths(records[name], "after") for name in (one, other))
        own_seed = derive_seed(seed, "compare", one, other)

        def gain(*columns: Array) -> Array:
            start, end, end_of_other = (_mean_depth(*columns[at : at + 2]) for at in (0, 2, 4))
            with np.errstate(divide="ignore", invalid="ignore"):
                return np.asarray((end - end_of_other) / (num_layers - start))

        columns = (*before, *first, *second)
        interval = bootstrap_interval(gain, *columns, seed=own_seed) or (None, None)
        value = float(gain(*columns)) if _mean_depth(*before) < num_layers else None
        # Each input's own depth: what a permutation of its two outcomes exchanges.
        difference = first[0] / first[1] - second[0] / second[1]
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
