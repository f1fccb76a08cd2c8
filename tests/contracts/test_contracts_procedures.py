"""Every testing procedure: its level is the one it tests at, and its errors stay below epsilon."""

from __future__ import annotations

import math

import numpy as np
import pytest

from eexit_cli.calibration import PROCEDURES
from eexit_cli.calibration.testing import Procedure
from eexit_cli.core.errors import UsageError

EPSILON = 0.1


@pytest.fixture(params=sorted(PROCEDURES))
def procedure(request: pytest.FixtureRequest) -> Procedure:
    found = PROCEDURES.load(request.param)
    assert isinstance(found, Procedure)
    assert found.name == request.param
    return found


@pytest.mark.parametrize("starts", [1, 2, 3, 50])
@pytest.mark.parametrize("count", [1, 4, 9])
def test_a_first_rejection_needs_the_level_that_it_says(
    procedure: Procedure, count: int, starts: int
) -> None:
    level = procedure.level(EPSILON, count, starts=starts)
    assert 0 < level <= EPSILON
    p = np.ones(count)
    for value, expected in ((level * (1 - 1e-9), [0]), (level * (1 + 1e-9), [])):
        p[0] = value
        rejected = procedure.reject(p, EPSILON, starts=starts)
        assert rejected.shape == (count,)
        assert rejected.dtype == bool
        assert np.flatnonzero(rejected).tolist() == expected


@pytest.mark.parametrize("starts", [1, 3])
def test_zeros_are_all_rejected_and_ones_never(procedure: Procedure, starts: int) -> None:
    assert procedure.reject(np.zeros(7), EPSILON, starts=starts).all()
    assert not procedure.reject(np.ones(7), EPSILON, starts=starts).any()


def test_a_smaller_p_value_never_rejects_less(procedure: Procedure) -> None:
    chance = np.random.default_rng(0)
    for _ in range(200):
        p = chance.random(8) ** 4
        less = p * chance.random(8)
        rejected = procedure.reject(p, EPSILON, starts=2)
        assert not (rejected & ~procedure.reject(less, EPSILON, starts=2)).any()


def test_who_is_sequential_needs_no_p_value_after_a_failure(procedure: Procedure) -> None:
    chance = np.random.default_rng(1)
    told = True
    for _ in range(200):
        p = chance.random(8) ** 3
        failed = int(np.argmax(p > EPSILON)) if (p > EPSILON).any() else len(p)
        unread = np.where(np.arange(8) > failed, 1.0, p)
        told &= bool((procedure.reject(p, EPSILON) == procedure.reject(unread, EPSILON)).all())
    assert told == procedure.sequential


@pytest.mark.parametrize("starts", [1, 3])
def test_any_wrong_rejection_is_as_rare_as_promised(procedure: Procedure, starts: int) -> None:
    """Half of the hypotheses are true, with uniform p-values; the others are all but certain."""
    chance = np.random.default_rng(2)
    repeats, wrong = 4000, 0
    for _ in range(repeats):
        p = np.concatenate([chance.random(4) * 1e-6, chance.random(4)])
        wrong += bool(procedure.reject(p, EPSILON, starts=starts)[4:].any())
    assert wrong / repeats <= EPSILON + 4 * math.sqrt(EPSILON * (1 - EPSILON) / repeats)
    assert wrong > 0


@pytest.mark.parametrize("epsilon", [0.0, 1.0, -0.1, float("nan")])
def test_an_epsilon_that_is_no_probability_is_refused(procedure: Procedure, epsilon: float) -> None:
    with pytest.raises(UsageError) as refused:
        procedure.reject([0.5], epsilon)
    assert refused.value.hint
    with pytest.raises(UsageError):
        procedure.reject([0.5], EPSILON, starts=0)
