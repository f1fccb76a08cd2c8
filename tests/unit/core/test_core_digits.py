"""Texts of numbers: never past themselves, and enough digits to tell them apart."""

from __future__ import annotations

import math
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from eexit_cli.core.digits import at_least, confidence, even_grid, exact, fixed_down, fixed_up

SHARES = st.floats(0, 1)
OPEN = st.floats(0, 1, exclude_min=True, exclude_max=True)


def read(text: str) -> Fraction:
    """The number that a text is, not the nearest binary one."""
    return Fraction(text)


@given(st.floats(-1e6, 1e6))
def test_what_is_typed_back_is_the_same_number(value):
    assert float(exact(value)) == value


@pytest.mark.parametrize(
    ("value", "text"), [(0.641161, "0.641161"), (1.0, "1"), (3, "3"), (0.0, "0"), (5e-5, "5e-05")]
)
def test_as_few_digits_as_say_it(value, text):
    assert exact(value) == text


@given(OPEN)
def test_no_more_confidence_than_there_is(epsilon):
    text = confidence(epsilon)
    promised = read(text.removesuffix(" %")) / 100
    truth = 1 - Fraction(epsilon)
    # Python's shortest form of a number is within half a unit of its last place.
    assert promised <= truth + Fraction(math.ulp(epsilon))
    assert promised < 1
    # A thousandth of epsilon, or what ten decimals of a percentage cannot say.
    assert truth - promised <= max(Fraction(epsilon) / 999, Fraction(1, 10**12)) * 2


@pytest.mark.parametrize(
    ("epsilon", "text"),
    [
        (0.05, "95 %"),
        (0.1, "90 %"),
        (5e-5, "99.995 %"),
        (1e-9, "99.9999999 %"),
        (1e-15, "99.9999999999 %"),
        (1 / 3, "66.66 %"),
        (0.003, "99.7 %"),
    ],
)
def test_confidence(epsilon, text):
    assert confidence(epsilon) == text


@given(SHARES, st.integers(1, 6))
def test_decimals_enclose_the_number(value, places):
    low, high = read(fixed_down(value, places)), read(fixed_up(value, places))
    shortest = Fraction(repr(value))
    assert low <= shortest <= high
    assert high - low <= Fraction(1, 10**places)


@given(SHARES, st.integers(1, 8))
def test_significant_digits_rise(value, digits):
    shown = read(at_least(value, digits))
    shortest = Fraction(repr(value))
    assert shortest <= shown <= shortest * (1 + Fraction(10, 10**digits))


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.10001, "0.1001"), (0.1, "0.1"), (0.09999999, "0.1"), (1.0, "1"), (1.23e-9, "1.23e-9")],
)
def test_at_least(value, text):
    assert at_least(value) == text


@given(st.floats(0.01, 3), st.booleans(), st.integers(1, 60))
def test_a_grid_is_rounded_to_the_cautious_side(width, falls, steps):
    cautious, eager = (1.0, 1.0 - width) if falls else (0.0, width)
    grid = even_grid(cautious, eager, steps)
    assert (len(grid), grid[0], grid[-1]) == (steps + 1, cautious, eager)
    for step, value in enumerate(grid[1:-1], start=1):
        even = cautious + (eager - cautious) * step / steps
        # Towards the cautious end, by a ten-thousandth at most.
        towards = value - even if falls else even - value
        assert -1e-9 <= towards <= 1e-4 + 1e-9
        assert len(repr(value)) <= len("-0.1234")
