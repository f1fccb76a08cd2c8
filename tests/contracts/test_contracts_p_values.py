"""Every p-value of the catalog: what it is called, what it promises, and that it keeps it."""

from __future__ import annotations

import math
from importlib import import_module

import numpy as np
import pytest

from eexit_cli.calibration.p_values import P_VALUES
from eexit_cli.calibration.p_values.base import PValue
from eexit_cli.core.errors import UsageError


@pytest.fixture(params=sorted(P_VALUES))
def test(request: pytest.FixtureRequest) -> PValue:
    return P_VALUES.load(request.param)


@pytest.mark.parametrize("name", sorted(P_VALUES))
def test_it_bears_its_name_and_its_module_has_the_plain_function(name: str) -> None:
    entry = P_VALUES.load(name)
    assert isinstance(entry, PValue)
    assert entry.name == name
    assert entry.promise
    module = import_module(P_VALUES[name].partition(":")[0])
    losses = [0.0, 1.0, 0.0, 0.0]
    assert module.p_value(losses, 0.5) == entry.p_value(losses, 0.5)


def test_it_is_a_probability_and_one_where_the_mean_is_far_above(test: PValue) -> None:
    rng = np.random.default_rng(0)
    for delta in (0.01, 0.1, 0.5, 0.9):
        matrix = (rng.random((50, 8)) < np.linspace(0, 1, 8)).astype(float)
        p = test.p_values(matrix, delta)
        assert p.shape == (8,)
        assert ((p >= 0) & (p <= 1)).all()
        assert p[-1] == pytest.approx(1.0)


def test_the_smallest_p_value_is_that_of_zeros(test: PValue) -> None:
    rng = np.random.default_rng(1)
    for n in (1, 2, 30):
        least = test.all_zero(n, 0.2)
        assert least == pytest.approx(test.p_value(np.zeros(n), 0.2), rel=1e-9)
        for _ in range(20):
            losses = (rng.random(n) < 0.3).astype(float)
            assert test.p_value(losses, 0.2) >= least * (1 - 1e-9)


def test_whoever_promises_a_guarantee_is_super_uniform(test: PValue) -> None:
    """And whoever is not, says so: the weaker ones are caught here."""
    n, delta, repeats = 40, 0.1, 20_000
    losses = (np.random.default_rng(2).random((n, repeats)) < delta).astype(float)
    p = test.columns(losses, delta)
    excess = max(
        (p <= u).mean() - u - 4 * math.sqrt(u * (1 - u) / repeats) for u in (0.02, 0.05, 0.1, 0.2)
    )
    assert test.valid == (excess <= 0)


def test_the_batched_form_is_the_plain_one(test: PValue) -> None:
    losses = (np.random.default_rng(3).random((25, 3, 4)) < 0.2).astype(float)
    batched = test.columns(losses, 0.3)
    assert batched.shape == (3, 4)
    for i in range(3):
        for j in range(4):
            assert batched[i, j] == pytest.approx(test.p_value(losses[:, i, j], 0.3))


@pytest.mark.parametrize("bad", [[], [0.5, float("nan")], [1.5], [-0.5], [[0.0], [1.0]]])
def test_it_refuses_what_is_no_loss(test: PValue, bad: list[float]) -> None:
    with pytest.raises(UsageError):
        test.p_value(bad, 0.1)
