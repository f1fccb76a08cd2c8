"""The stopwatch, read on a clock that the test turns: what it reports is known beforehand."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binom

from eexit_cli.metrics.latency import (
    LEAST_REPEATS,
    LEVEL,
    Spread,
    speed_figures,
    speedup,
    throughput_figures,
    time_in_turn,
)

Way = Callable[[float], None]


class Machine:
    """Ways that take known seconds; ``slower`` is what the machine makes of them at a time."""

    def __init__(self, slower: Callable[[float], float] = lambda now: 1.0) -> None:
        self.now = 0.0
        self.slower = slower
        self.ran: list[tuple[str, float]] = []

    def clock(self) -> float:
        return self.now

    def way(self, name: str, factor: float) -> Way:
        def run(item: float) -> None:
            self.ran.append((name, item))
            self.now += factor * item * self.slower(self.now)

        return run

    def ways(self, **factors: float) -> dict[str, Way]:
        return {name: self.way(name, factor) for name, factor in factors.items()}


FACTORS = st.floats(0.1, 10)
ITEMS = st.lists(st.floats(0.01, 2), min_size=1, max_size=6)


@given(full=FACTORS, live=FACTORS, items=ITEMS, repeats=st.integers(LEAST_REPEATS, 12))
def test_a_constant_ratio_has_no_spread(full, live, items, repeats) -> None:
    machine = Machine()
    ways = machine.ways(full=full, live=live)
    seconds = time_in_turn(ways, items, repeats=repeats, clock=machine.clock)
    assert seconds["full"].shape == (repeats, len(items))
    np.testing.assert_allclose(seconds["live"], np.tile(np.multiply(items, live), (repeats, 1)))
    found = speedup(seconds["full"], seconds["live"])
    for value in (found.median, found.low, found.high):
        assert value == pytest.approx(full / live)


@given(slow=st.floats(1, 1000), at=st.integers(0, LEAST_REPEATS - 1), which=st.sampled_from("ab"))
def test_a_slow_repeat_does_not_move_the_median_but_shows_in_the_interval(slow, at, which) -> None:
    seconds = {"a": np.full((LEAST_REPEATS, 3), 2.0), "b": np.full((LEAST_REPEATS, 3), 1.0)}
    seconds[which][at] *= slow
    found = speedup(seconds["a"], seconds["b"])
    assert found.median == pytest.approx(2)
    other = 2 * slow if which == "a" else 2 / slow
    assert (found.low, found.high) == pytest.approx((min(2, other), max(2, other)))
    figures = speed_figures(seconds["a"], seconds["b"])
    assert (figures["latency_full_ms"], figures["latency_ms"]) == pytest.approx((2000, 1000))
    assert throughput_figures(seconds["a"], seconds["b"], 6)["throughput"] == pytest.approx(2)


@pytest.mark.parametrize("count", [2, 3, 7])
def test_a_machine_that_gets_slower_favours_nobody(count: int) -> None:
    """By 60 % over the whole timing; whoever always came first would look faster by a few %."""
    machine = Machine()
    names = [str(number) for number in range(count)]
    items = [1.0] * 8
    total = LEAST_REPEATS * len(items) * count
    machine.slower = lambda now: 1 + 0.6 * len(machine.ran) / total
    ways = {name: machine.way(name, 1.0) for name in names}
    seconds = time_in_turn(ways, items, warm_up=0, clock=machine.clock)
    for name in names[1:]:
        found = speedup(seconds[names[0]], seconds[name])
        assert found.median == pytest.approx(1, abs=1e-9)
        assert (found.low, found.high) == pytest.approx((1, 1), abs=1e-9)
    firsts = {machine.ran[turn][0] for turn in range(0, len(machine.ran), count)}
    assert firsts == set(names)


def test_every_way_sees_every_item_in_each_repeat() -> None:
    machine, ticks = Machine(), []
    seconds = time_in_turn(
        machine.ways(quick=1, slow=3),
        [1.0, 2.0, 3.0],
        warm_up=1,
        repeats=6,
        on_item=lambda: ticks.append(1),
        clock=machine.clock,
    )
    assert len(ticks) == 18
    assert machine.ran[:2] == [("quick", 1.0), ("slow", 1.0)]
    for turn in range(18):
        pair = machine.ran[2 + 2 * turn :][:2]
        assert {name for name, _ in pair} == {"quick", "slow"}
        assert {item for _, item in pair} == {[1.0, 2.0, 3.0][turn % 3]}
    np.testing.assert_allclose(seconds["slow"], [[3, 6, 9]] * 6)


def test_the_queue_is_drained_before_each_reading() -> None:
    drained = []
    time_in_turn({"way": lambda item: None}, [1], warm_up=0, synchronize=lambda: drained.append(1))
    assert len(drained) == 1 + LEAST_REPEATS


def test_fewer_repeats_than_an_interval_needs_are_refused() -> None:
    with pytest.raises(ValueError, match="4 repeats"):
        time_in_turn({"way": lambda item: None}, [1], repeats=4)
    assert 1 - 2 * binom.cdf(0, LEAST_REPEATS, 0.5) >= LEVEL
    assert 1 - 2 * binom.cdf(0, LEAST_REPEATS - 1, 0.5) < LEVEL


@pytest.mark.parametrize("repeats", range(LEAST_REPEATS, 40))
def test_the_interval_is_the_narrowest_of_the_sign_test_at_its_level(repeats: int) -> None:
    values = np.random.default_rng(repeats).permutation(repeats).astype(float)
    found = Spread.of(values)
    cut = int(found.low)
    assert found.high == repeats - 1 - cut
    assert found.median == (repeats - 1) / 2
    # Smallest and largest rank that stay inside; scipy counts the chance of missing the median.
    assert 1 - 2 * binom.cdf(cut, repeats, 0.5) >= LEVEL
    assert 1 - 2 * binom.cdf(cut + 1, repeats, 0.5) < LEVEL


def test_the_interval_holds_the_median_as_often_as_it_says() -> None:
    """Of skewed times, as a busy machine makes them; 94 % for 5 repeats."""
    draws = np.random.default_rng(0).lognormal(0, 1, (4000, LEAST_REPEATS))
    held = np.mean([found.low <= 1 <= found.high for found in map(Spread.of, draws)])
    assert held == pytest.approx(1 - 2 * 0.5**LEAST_REPEATS, abs=4 * math.sqrt(0.06 / 4000))
