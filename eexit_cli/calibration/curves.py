"""What a calibration would have answered: over deltas, sample sizes and repeated splits.

Everything here reuses losses that are there; nothing runs a model.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from eexit_cli.calibration.engine import Answer, Question, among_known
from eexit_cli.calibration.sources import Ledger, MatrixSource
from eexit_cli.calibration.testing import last_rejected
from eexit_cli.core.seed import derive_seed

FloatArray = NDArray[np.float64]

DELTAS = (0.01, 0.02, 0.03, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5)
"""DL2-CALM's eleven deltas, placed where they tell more than 0 to 1 by 0.1."""


def delta_sweep(
    ledger: Ledger, question: Question, deltas: Sequence[float], test: Ledger | None = None
) -> Iterator[dict[str, Any]]:
    """The answer for each delta, on the columns that have been run.

    Deltas whose answer might have been more eager, had more thresholds been run, are left out.

    Args:
        test: the test samples' losses, used where they are there or cost nothing.

    Yields:
        ``delta``, ``index``, ``threshold``, ``mean_loss``, ``mean_exit_layer``, and with ``test``
        ``test_mean_loss`` and ``test_mean_exit_layer``; None where nothing is certified.
    """
    for delta in deltas:
        answer = among_known(ledger, replace(question, delta=delta))
        if not answer.complete:
            continue
        yield {"delta": delta, **chosen_figures(ledger, answer.chosen, test)}


def chosen_figures(
    ledger: Ledger, chosen: int | None, test: Ledger | None = None
) -> dict[str, Any]:
    """Mean loss and depth of one threshold, calibration and test."""
    figures: dict[str, Any] = {
        "index": chosen,
        "threshold": None if chosen is None else ledger.source.thresholds[chosen],
    }
    for prefix, part in (("", ledger), ("test_", test)):
        if part is None or (part is test and not _has(part, chosen)):
            continue
        column = None if chosen is None else part.get(chosen)
        figures[f"{prefix}mean_loss"] = None if column is None else float(column.losses.mean())
        figures[f"{prefix}mean_exit_layer"] = None if column is None else column.mean_exit_layer
    return figures


def _has(test: Ledger, index: int | None) -> bool:
    """A column of the test samples is there, or costs nothing: curves alone are worth no pass."""
    return index is None or test.source.cheap or index in test.known


@dataclass(frozen=True)
class Splits:
    """Answers over repeated random splits into calibration and test.

    Attributes:
        chosen: index of the accepted threshold, -1 where nothing is. Shape: [repeats].
        test_losses: mean loss of the accepted threshold on the rest. Shape: [repeats].
        exit_layers: its mean exit layer on the rest; NaN where unknown. Shape: [repeats].
    """

    chosen: NDArray[np.int64]
    test_losses: FloatArray
    exit_layers: FloatArray

    def violations(self, delta: float) -> float:
        """Share of the splits whose test loss is above delta; no answer violates nothing.

        The test part's own noise is in it: near the boundary this is above the probability that
        the true risk is violated.
        """
        return float(np.mean(self.test_losses > delta))


def repeated_splits(
    source: MatrixSource, questions: Sequence[Question], *, n: int, repeats: int, seed: int
) -> list[Splits]:
    """Calibrate on ``n`` random samples, look at the rest, ``repeats`` times.

    All questions see the same splits.

    Args:
        source: losses of all samples. Shape: [samples, thresholds].
        n: calibration samples per split, below the number of samples.

    Returns:
        One :class:`Splits` per question. Nothing certified counts as the full model (loss 0)
        where there is one, else the split's figures are NaN.
    """
    first = 1 if source.full_model else 0
    losses = source.losses
    samples = len(losses)
    rng = np.random.default_rng(derive_seed(seed, "splits", n))
    chosen = np.full((len(questions), repeats), -1, dtype=np.int64)
    risks = np.full((len(questions), repeats), np.nan)
    layers = np.full((len(questions), repeats), np.nan)
    total = losses.sum(axis=0)
    layers_run = source.exit_layers
    if layers_run is not None and source.tokens is not None:
        layers_run = layers_run * source.tokens
    layer_total = None if layers_run is None else layers_run.sum(axis=0)
    token_total = None if source.tokens is None else source.tokens.sum(axis=0)
    for repeat in range(repeats):
        rows = rng.permutation(samples)[:n]
        part = losses[rows]
        rest = (total - part.sum(axis=0)) / (samples - n)
        depth = None
        if layer_total is not None and layers_run is not None:
            weight = samples - n
            if token_total is not None and source.tokens is not None:
                weight = token_total - source.tokens[rows].sum(axis=0)
            depth = (layer_total - layers_run[rows].sum(axis=0)) / weight
        for which, question in enumerate(questions):
            index = _accepted(part[:, first:], question)
            index = index + first if index is not None else (0 if source.full_model else None)
            if index is None:
                continue
            chosen[which, repeat] = index
            risks[which, repeat] = rest[index]
            if depth is not None:
                layers[which, repeat] = depth[index]
    return [Splits(chosen[which], risks[which], layers[which]) for which in range(len(questions))]


_BLOCK = 16
"""Thresholds tested at once in a fixed sequence: one at a time costs calls, all cost work."""


def _accepted(losses: FloatArray, question: Question) -> int | None:
    """Index of the accepted column, None if none is."""
    procedure = question.procedure
    if not procedure.sequential or procedure.starts:
        p_values = question.p_value.columns(losses, question.delta)
        return last_rejected(procedure.reject(p_values, question.epsilon, starts=question.starts))
    for start in range(0, losses.shape[1], _BLOCK):
        block = losses[:, start : start + _BLOCK]
        failed = question.p_value.columns(block, question.delta) > question.epsilon
        if failed.any():
            index = start + int(np.argmax(failed)) - 1
            return index if index >= 0 else None
    return losses.shape[1] - 1 if losses.shape[1] else None


def split_rows(
    source: MatrixSource,
    question: Question,
    *,
    deltas: Sequence[float],
    sizes: Sequence[int],
    repeats: int,
    seed: int,
) -> Iterator[dict[str, Any]]:
    """Bands for the figures: over deltas at every sample size.

    Yields:
        ``n``, ``delta``, ``repeats``, ``violations`` (of all splits), ``uncertified`` (splits in
        which no test accepted a threshold), ``answered`` (splits with an answer, be it the full
        model), and over those, for ``mean_loss``, ``mean_exit_layer`` and ``index``, the 5 %, 50 %
        and 95 % quantiles as ``<name>_low``, ``<name>``, ``<name>_high``; None where there is no
        such split.
    """
    first = 1 if source.full_model else 0
    questions = [replace(question, delta=delta) for delta in deltas]
    for n in sizes:
        splits = repeated_splits(source, questions, n=n, repeats=repeats, seed=seed)
        for delta, split in zip(deltas, splits, strict=True):
            answered = split.chosen >= 0
            yield {
                "n": n,
                "delta": delta,
                "repeats": repeats,
                "violations": split.violations(delta),
                "uncertified": int((split.chosen < first).sum()),
                "answered": int(answered.sum()),
                **_band("mean_loss", split.test_losses[answered]),
                **_band("mean_exit_layer", split.exit_layers[answered]),
                **_band("index", split.chosen[answered].astype(np.float64)),
            }


def _band(name: str, values: FloatArray) -> dict[str, float | None]:
    if not values.size or np.isnan(values).any():
        return {f"{name}_low": None, name: None, f"{name}_high": None}
    # Nearest rank, so that an index stays an index.
    low, middle, high = np.quantile(values, (0.05, 0.5, 0.95), method="nearest")
    return {f"{name}_low": float(low), name: float(middle), f"{name}_high": float(high)}


def sample_sizes(samples: int) -> list[int]:
    """Sizes whose effect is worth showing: a quarter, half, and three quarters as a start."""
    candidates = (50, 100, 200, 500, 1000, 2000, 5000)
    return [n for n in candidates if n <= 0.75 * samples] or [max(1, samples // 2)]


def p_value_rows(answer: Answer, thresholds: Sequence[float | str]) -> Iterator[dict[str, Any]]:
    """p-values along the sequence, for one question."""
    for index, p in enumerate(answer.p_values):
        if not np.isnan(p):
            yield {
                "p_value": answer.question.p_value.name,
                "index": index,
                "threshold": thresholds[index],
                "p": float(p),
            }
