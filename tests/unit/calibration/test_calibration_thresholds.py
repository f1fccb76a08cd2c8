"""Grids from cautious to eager, and the check of a user's own."""

from __future__ import annotations

import math

import pytest

from eexit_cli.calibration.thresholds import check_grid, confidence_scale
from eexit_cli.confidence import MEASURES
from eexit_cli.core.criterion import Shape
from eexit_cli.core.errors import UsageError
from eexit_cli.exits.patience import PatienceExit
from eexit_cli.exits.threshold import ThresholdExit


def entropy_scale(num_classes):
    return ThresholdExit.scale(Shape(6, num_classes, MEASURES.load("entropy")))


def patience_scale(num_layers):
    return PatienceExit.scale(Shape(num_layers, 2))


def test_the_default_for_a_confidence_is_that_of_dl2_calm_and_three_more():
    seed = "1.0 0.95 0.90 0.85 0.80 0.75 0.70 0.65 0.60 0.55 0.50 0.45 0.40 0.35 0.30 0.25 0.20 "
    seed += "0.15 0.10 0.05"
    values = confidence_scale("margin").values
    assert set(values) == {0.999, 0.99, 0.98, *(float(x) for x in seed.split())}
    assert list(values) == sorted(values, reverse=True)


def test_the_default_for_entropy_is_forty_steps_to_ln_k():
    grid = entropy_scale(3).values
    assert len(grid) == 41
    assert grid[0] == 0.0
    assert grid[-1] == pytest.approx(math.log(3))
    # Four decimals, never above the step: a smaller entropy threshold is the more cautious one.
    for step, value in enumerate(grid[:-1]):
        assert value == math.floor(1e4 * step * math.log(3) / 40) / 1e4


def test_the_default_for_patience_is_l_to_one():
    assert patience_scale(6).values == (6.0, 5.0, 4.0, 3.0, 2.0, 1.0)


@pytest.mark.parametrize(
    "scale", [confidence_scale("margin"), entropy_scale(2), patience_scale(12)]
)
def test_a_default_grid_passes_its_own_check(scale):
    assert check_grid(scale.values, scale) == scale.values


def test_patience_zero_is_the_full_model():
    assert check_grid([0, 3, 1], patience_scale(4)) == (4.0, 3.0, 1.0)


@pytest.mark.parametrize(
    ("values", "scale", "message"),
    [
        ([1.0, 0.5, 0.7], confidence_scale("margin"), "0.7 after 0.5"),
        ([1.0, 0.5, 0.5], confidence_scale("margin"), "0.5 after 0.5"),
        ([0.05, 0.5, 1.0], confidence_scale("margin"), "0.5 after 0.05"),
        ([0.9, 0.5], confidence_scale("margin"), "lack the full model: they begin with 0.9"),
        ([1.0, -0.1], confidence_scale("margin"), "-0.1 is no margin threshold"),
        ([1.1, 1.0], confidence_scale("margin"), "1.1 is no"),
        ([1.0, float("nan")], confidence_scale("margin"), "nan is no"),
        ([0.0, 0.3, 0.2], entropy_scale(2), "0.2 after 0.3"),
        ([0.5, 0.3, 0.0], entropy_scale(2), "0.3 after 0.5"),
        ([0.1, 0.2], entropy_scale(2), "lack the full model: they begin with 0.1"),
        ([4, 2, 3], patience_scale(4), "3 after 2"),
        ([3, 2], patience_scale(4), "lack the full model"),
        ([4, 2.5], patience_scale(4), "2.5 is no patience"),
        ([5, 4], patience_scale(4), "5 is no patience"),
        ([], patience_scale(4), "lack the full model: there are none"),
    ],
)
def test_refusals_name_the_value_and_the_repair(values, scale, message):
    with pytest.raises(UsageError, match=message) as caught:
        check_grid(values, scale)
    assert caught.value.hint


def test_more_nats_than_there_are_classes_for_are_harmless():
    assert check_grid([0.0, 0.5, 2.0], entropy_scale(2)) == (0.0, 0.5, 2.0)
