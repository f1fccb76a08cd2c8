"""Measures against SciPy and NumPy, and the laws that hold for every one of them."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.special import softmax
from scipy.stats import entropy

from eexit_cli.confidence import MEASURES
from eexit_cli.core.protocols import Measure

REFERENCE = {
    "entropy": lambda p: entropy(p, axis=-1),
    "max-prob": lambda p: p.max(axis=-1),
    "margin": lambda p: np.diff(np.sort(p, axis=-1)[..., -2:], axis=-1)[..., 0],
}


@st.composite
def logits(draw, largest=60.0):
    classes = draw(st.integers(2, 7))
    rows = draw(st.integers(1, 5))
    numbers = st.floats(-largest, largest, allow_nan=False)
    values = draw(st.lists(numbers, min_size=rows * classes, max_size=rows * classes))
    return torch.tensor(values, dtype=torch.float64).reshape(rows, classes)


def test_every_measure_of_the_catalog_has_a_reference():
    """A new measure is compared with something independent too."""
    assert set(REFERENCE) == set(MEASURES)


@pytest.mark.parametrize("name", list(MEASURES))
@given(z=logits())
def test_measures_equal_their_formulas(name, z):
    expected = REFERENCE[name](softmax(z.numpy(), axis=-1))
    np.testing.assert_allclose(MEASURES.load(name)(z).numpy(), expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
@pytest.mark.parametrize("name", list(MEASURES))
@given(z=logits(largest=2000.0))
def test_measures_stay_within_their_bounds_whatever_the_rounding(name, dtype, z):
    measure = MEASURES.load(name)
    low, high = measure.bounds(z.shape[-1])
    values = measure(z.to(dtype)).double()
    assert torch.isfinite(values).all()
    slack = 0.0 if dtype == torch.float64 else 4 * torch.finfo(dtype).eps
    assert float(values.min()) >= (0.0 if low == 0.0 else low - max(slack, 1e-12))
    # Probabilities must not exceed 1 by rounding: a threshold of 1 is the full model.
    assert float(values.max()) <= (1.0 if measure.rises else high + max(slack * high, 1e-12))


@pytest.mark.parametrize("name", list(MEASURES))
@given(z=logits(), shift=st.floats(-50, 50), seed=st.integers(0, 100))
def test_measures_ignore_a_common_shift_and_the_order_of_the_classes(name, z, shift, seed):
    measure = MEASURES.load(name)
    order = torch.randperm(z.shape[-1], generator=torch.Generator().manual_seed(seed))
    torch.testing.assert_close(measure(z[:, order] + shift), measure(z), rtol=0, atol=1e-10)


@pytest.mark.parametrize("name", list(MEASURES))
@given(
    classes=st.integers(2, 7),
    gap=st.floats(0.0, 20.0),
    more=st.floats(0.01, 5.0),
)
def test_the_direction_is_the_declared_one(name, classes, gap, more):
    """One class ahead of equal others: the further ahead, the surer."""
    measure = MEASURES.load(name)
    z = torch.zeros(2, classes, dtype=torch.float64)
    z[0, 0], z[1, 0] = gap, gap + more
    less, surer = measure(z).tolist()
    assert surer >= less - 1e-12 if measure.rises else surer <= less + 1e-12
    if gap < 10:
        assert surer != less


@pytest.mark.parametrize("name", list(MEASURES))
@pytest.mark.parametrize("classes", [2, 3, 10])
def test_the_extremes_are_reached(name, classes):
    measure = MEASURES.load(name)
    low, high = measure.bounds(classes)
    unsure, sure = (low, high) if measure.rises else (high, low)
    z = torch.zeros(2, classes)
    z[1, 1] = 1e4
    assert measure(z).tolist() == pytest.approx([unsure, sure], abs=1e-6)


@pytest.mark.parametrize("name", list(MEASURES))
def test_leading_dimensions_are_kept(name):
    z = torch.randn(4, 3, 5, generator=torch.Generator().manual_seed(0))
    measure = MEASURES.load(name)
    assert measure(z).shape == (4, 3)
    torch.testing.assert_close(measure(z)[2, 1], measure(z[2, 1]))


def test_an_impossible_class_does_not_spoil_the_entropy():
    z = torch.tensor([[0.0, 0.0, -math.inf]])
    assert MEASURES.load("entropy")(z).item() == pytest.approx(math.log(2))


def test_one_output_has_no_uncertainty():
    z = torch.randn(3, 1, generator=torch.Generator().manual_seed(0))
    assert MEASURES.load("entropy")(z).tolist() == [0.0] * 3
    assert MEASURES.load("max-prob")(z).tolist() == [1.0] * 3
    assert MEASURES.load("margin")(z).tolist() == [1.0] * 3


@pytest.mark.parametrize("name", list(MEASURES))
def test_entries_are_measures_under_their_own_names(name):
    measure = MEASURES.load(name)
    assert isinstance(measure, Measure)
    assert measure.name == name
