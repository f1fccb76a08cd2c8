"""Speed of repeated splits, agreement with MAPIE, and what betting saves.

python -m pytest -m bench tests/bench/bench_calibration.py -s
"""

from __future__ import annotations

import time

import numpy as np
import pytest
from mapie.risk_control._base_controller import ltt_procedure

from eexit_cli.calibration.curves import repeated_splits
from eexit_cli.calibration.engine import ask
from eexit_cli.calibration.p_values import P_VALUES
from eexit_cli.calibration.sources import MatrixSource

pytestmark = pytest.mark.bench

SAMPLES, THRESHOLDS, SPLITS, N = 2000, 100, 1000, 500


def source(kind: str, *, top: float = 0.3, seed: int = 0) -> MatrixSource:
    means = np.linspace(0.0, top, THRESHOLDS)
    base = np.random.default_rng(seed).random((SAMPLES, 1))
    losses = (base < means).astype(float) if kind == "0-1" else means * (0.5 + base)
    layers = np.tile(np.linspace(12, 1, THRESHOLDS), (SAMPLES, 1))
    names = tuple(float(value) for value in np.linspace(1, 0, THRESHOLDS))
    return MatrixSource(names, losses, layers, full_model=True)


def question(p_value: str, **options):
    settings = {"delta": 0.1, "epsilon": 0.1, "procedure": "fixed-sequence", **options}
    return ask(p_value=p_value, **settings)


@pytest.mark.parametrize("kind", ["0-1", "graded"])
def test_a_thousand_splits_with_every_applicable_p_value(kind):
    losses = source(kind)
    names = [name for name in P_VALUES if P_VALUES.load(name).applies(losses.losses)]
    total = time.perf_counter()
    for name in names:
        start = time.perf_counter()
        (splits,) = repeated_splits(losses, [question(name)], n=N, repeats=SPLITS, seed=1)
        print(
            f"\n{kind:7} {name:17} {time.perf_counter() - start:6.2f} s   "
            f"mean exit layer {splits.exit_layers.mean():5.2f}   "
            f"test loss above delta in {100 * splits.violations(0.1):5.1f} % of the splits",
            end="",
        )
    print(f"\n{kind}: {time.perf_counter() - total:.1f} s for all {len(names)}, to reach: 60 s")


@pytest.mark.parametrize("kind", ["0-1", "graded"])
def test_the_same_answers_as_mapie(kind):
    losses = source(kind).losses
    rng = np.random.default_rng(2)
    same = rounded = 0
    for _ in range(SPLITS):
        n = int(rng.integers(50, 600))
        delta, epsilon = rng.uniform(0.03, 0.25), rng.uniform(0.02, 0.2)
        part = losses[rng.permutation(SAMPLES)[:n]]
        p = P_VALUES.load("hoeffding-bentkus").columns(part, delta)
        ours = np.flatnonzero(np.logical_and.accumulate(p <= epsilon)).tolist()
        answers = []
        # MAPIE takes ceil(n * mean), which rounding can push over an integer; the nudge undoes it.
        for nudge in (1e-9, 0.0):
            mean = np.maximum(0.0, part.sum(axis=0) - nudge) / n
            found, _ = ltt_procedure(
                mean[None], np.array([[delta]]), epsilon, np.full((1, THRESHOLDS), float(n)),
                fwer_method="fixed_sequence",
            )  # fmt: skip
            answers.append(list(found[0]))
        same += ours == answers[0]
        rounded += ours != answers[1]
    print(
        f"\n{kind}: same answers as MAPIE in {same} of {SPLITS}; "
        f"its rounding of n * mean changes {rounded}"
    )
    assert same == SPLITS


def test_betting_saves_layers_at_a_hundred_samples_of_small_variance():
    losses = source("graded")
    asked = [question(name) for name in ("hoeffding", "hoeffding-bentkus", "betting", "naive")]
    results = repeated_splits(losses, asked, n=100, repeats=SPLITS, seed=3)
    print()
    for question_, splits in zip(asked, results, strict=True):
        true_risk = losses.losses.mean(axis=0)[splits.chosen]
        print(
            f"{question_.p_value.name:17} mean exit layer {splits.exit_layers.mean():5.2f} of 12, "
            f"risk above delta in {100 * (true_risk > 0.1).mean():4.1f} % (allowed 10 %)"
        )
    assert results[2].exit_layers.mean() < results[1].exit_layers.mean()
