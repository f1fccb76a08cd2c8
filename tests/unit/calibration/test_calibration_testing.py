"""Testing procedures against MAPIE, their definitions re-derived, and simulation."""

from __future__ import annotations

import math
from itertools import product

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from mapie.risk_control._base_controller import ltt_procedure
from mapie.risk_control.fwer_control import FWERFixedSequenceTesting, control_fwer

from eexit_cli.calibration import PROCEDURES
from eexit_cli.calibration.p_values import P_VALUES
from eexit_cli.calibration.testing import last_rejected, starting_points
from eexit_cli.core.errors import UsageError

P_VECTORS = arrays(np.float64, st.integers(1, 30), elements=st.floats(0, 1))
EPSILONS = st.floats(0.001, 0.6)


def rejected(name: str, p, epsilon: float, starts: int = 1) -> list[int]:
    return np.flatnonzero(PROCEDURES.load(name).reject(p, epsilon, starts=starts)).tolist()


@pytest.mark.parametrize(
    ("ours", "mapies"),
    [
        ("fixed-sequence", "fixed_sequence"),
        ("bonferroni", "bonferroni"),
        ("holm", "bonferroni_holm"),
    ],
)
@given(p=P_VECTORS, epsilon=EPSILONS)
def test_procedures_are_mapies(ours, mapies, p, epsilon):
    assert rejected(ours, p, epsilon) == control_fwer(p, epsilon, mapies).tolist()


@given(p=P_VECTORS, epsilon=EPSILONS, starts=st.integers(1, 6))
def test_several_starting_points_are_mapies(p, epsilon, starts):
    starts = min(starts, len(p))
    expected = control_fwer(p, epsilon, FWERFixedSequenceTesting(n_starts=starts))
    assert rejected("fixed-sequence-starts", p, epsilon, starts) == expected.tolist()


@given(p=P_VECTORS, epsilon=EPSILONS)
def test_one_start_is_the_fixed_sequence(p, epsilon):
    assert rejected("fixed-sequence-starts", p, epsilon) == rejected("fixed-sequence", p, epsilon)


@given(p=P_VECTORS, epsilon=EPSILONS)
def test_holm_rejects_whatever_bonferroni_rejects(p, epsilon):
    assert set(rejected("bonferroni", p, epsilon)) <= set(rejected("holm", p, epsilon))


@pytest.mark.parametrize("name", sorted(PROCEDURES))
@given(p=P_VECTORS, low=EPSILONS, high=EPSILONS)
def test_a_larger_epsilon_never_rejects_less(name, p, low, high):
    low, high = sorted((low, high))
    assert set(rejected(name, p, low, 2)) <= set(rejected(name, p, high, 2))


def test_the_fixed_sequence_stops_at_its_first_failure():
    assert rejected("fixed-sequence", [0.0, 0.04, 0.06, 0.0], 0.05) == [0, 1]
    assert last_rejected(PROCEDURES.load("fixed-sequence").reject([0.2, 0.0], 0.05)) is None


def test_a_second_start_reaches_beyond_a_failure_at_half_the_level():
    p = [0.0, 0.9, 0.02, 0.03]
    assert rejected("fixed-sequence-starts", p, 0.05, 2) == [0, 2]
    assert starting_points(4, 2) == [0, 2]
    assert starting_points(3, 9) == [0, 1, 2]


@given(
    n=st.integers(2, 200),
    columns=st.integers(2, 30),
    seed=st.integers(0, 10_000),
    delta=st.floats(0.02, 0.5),
    epsilon=st.floats(0.01, 0.3),
    binary=st.booleans(),
)
def test_hoeffding_bentkus_fixed_sequence_gives_mapies_answers(
    n, columns, seed, delta, epsilon, binary
):
    rng = np.random.default_rng(seed)
    means = np.sort(rng.random(columns)) * 0.5
    # One uniform per sample, so that the mean loss rises along the sequence, as MAPIE assumes.
    base = rng.random((n, 1))
    losses = (base < means).astype(float) if binary else base * 2 * means
    # See the note on MAPIE's ceil(n * mean) in test_calibration_p_values.py.
    r_hat = np.maximum(0.0, losses.sum(axis=0) - 1e-9) / n
    expected, _ = ltt_procedure(
        r_hat[None, :],
        np.array([[delta]]),
        epsilon,
        np.full((1, columns), float(n)),
        fwer_method="fixed_sequence",
    )
    p = P_VALUES.load("hoeffding-bentkus").p_values(losses, delta)
    assert rejected("fixed-sequence", p, epsilon) == list(expected[0])


@pytest.mark.parametrize("epsilon", [0.0, 1.0, -1.0, float("nan")])
def test_epsilon_outside(epsilon):
    with pytest.raises(UsageError, match="epsilon"):
        PROCEDURES.load("holm").reject([0.1], epsilon)


def test_no_starting_point():
    with pytest.raises(UsageError, match="starting points"):
        PROCEDURES.load("fixed-sequence-starts").reject([0.1], 0.1, starts=0)


def calibration_sets(rng, kind: str, risks: np.ndarray, n: int, sets: int) -> np.ndarray:
    """Losses with known risks, dependent across thresholds as real ones are.

    Shape: [n, sets, thresholds].
    """
    base = rng.random((n, sets, 1))
    match kind:
        case "bernoulli":
            return (base < risks).astype(np.float64)
        case "graded":
            # L = r (1/2 + U): mean r, small variance.
            return risks * (0.5 + base)
        case "spiky":
            # Mostly 0, rarely large: mean r.
            height = np.minimum(1.0, 4 * risks)
            return np.where(base < risks / np.maximum(height, 1e-12), height, 0.0)
        case _:
            raise AssertionError(kind)


def violations(kind, p_name, procedure, *, n=100, sets=1000, delta=0.1, epsilon=0.1, seed=0):
    """Over drawn calibration sets: how often the chosen threshold's true risk is above delta."""
    risks = np.linspace(0.0, 0.3, 25)
    rng = np.random.default_rng(seed)
    losses = calibration_sets(rng, kind, risks, n, sets)
    p = P_VALUES.load(p_name).columns(losses, delta)
    chosen = [last_rejected(PROCEDURES.load(procedure).reject(row, epsilon, starts=3)) for row in p]
    risk = np.array([0.0 if index is None else risks[index] for index in chosen])
    return float((risk > delta + 1e-12).mean()), risk.mean()


@pytest.mark.parametrize(
    ("kind", "p_name"),
    [
        *product(["bernoulli", "graded", "spiky"], ["hoeffding", "hoeffding-bentkus", "betting"]),
        ("bernoulli", "binomial"),
    ],
)
@pytest.mark.parametrize("procedure", sorted(PROCEDURES))
def test_over_1000_calibration_sets_violations_stay_within_epsilon(kind, p_name, procedure):
    rate, _ = violations(kind, p_name, procedure)
    assert rate <= 0.1 + 3 * math.sqrt(0.1 * 0.9 / 1000)


def test_the_naive_choice_violates_far_more_often():
    rate, _ = violations("bernoulli", "naive", "fixed-sequence")
    assert rate > 0.25


def test_conformal_keeps_its_weaker_promise_and_not_the_stronger():
    rate, mean_risk = violations("bernoulli", "conformal", "fixed-sequence")
    assert mean_risk <= 0.1
    assert rate > 0.13
