"""Intervals and tests, against SciPy's and against counting by hand."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from eexit_cli.core.edits import edit_distance
from eexit_cli.metrics.similarity import cosine, edit_similarity
from eexit_cli.metrics.statistics import bootstrap_interval, holm, sign_flip_test


def gain(before, after):
    return (after - before).mean(axis=-1) / (6 - before.mean(axis=-1))


def exits(seed: int, count: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    before = rng.integers(1, 6, count).astype(float)
    return before, np.minimum(6, before + rng.integers(0, 4, count))


@pytest.mark.parametrize("count", [25, 200])
def test_the_interval_is_scipys_percentile_bootstrap(count: int) -> None:
    before, after = exits(1, count)
    ours = bootstrap_interval(gain, before, after, seed=3, resamples=20_000)
    theirs = stats.bootstrap(
        (before, after),
        lambda before, after, axis=-1: (after - before).mean(axis) / (6 - before.mean(axis)),
        paired=True,
        vectorized=True,
        n_resamples=20_000,
        method="percentile",
        rng=np.random.default_rng(5),
    ).confidence_interval
    assert ours is not None
    # Two draws of 20,000 differ by their own noise: about a fiftieth of the interval's width.
    tolerance = 0.03 * (theirs.high - theirs.low)
    assert ours == pytest.approx((theirs.low, theirs.high), abs=tolerance)


def test_the_interval_covers_about_as_often_as_it_says() -> None:
    rng = np.random.default_rng(0)
    covered = 0
    for trial in range(300):
        values = rng.exponential(1.0, 60)
        low, high = bootstrap_interval(  # type: ignore[misc]
            lambda x: x.mean(axis=-1), values, seed=trial, resamples=400
        )
        covered += low <= 1.0 <= high
    # 95 % nominal; the percentile bootstrap of a skewed mean falls a little short at n = 60.
    assert 0.88 <= covered / 300 <= 0.985


def test_the_same_seed_gives_the_same_interval_and_no_sample_none() -> None:
    before, after = exits(2, 40)
    assert bootstrap_interval(gain, before, after, seed=1) == bootstrap_interval(
        gain, before, after, seed=1
    )
    assert bootstrap_interval(gain, before, after, seed=1) != bootstrap_interval(
        gain, before, after, seed=2
    )
    assert bootstrap_interval(gain, [], [], seed=1) is None


def test_an_undefined_statistic_has_no_interval() -> None:
    full = np.full(10, 6.0)

    def undefined(before, after):
        with np.errstate(invalid="ignore"):
            return gain(before, after)

    assert bootstrap_interval(undefined, full, full, seed=1) is None


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(-4, 4), min_size=1, max_size=9))
def test_the_exact_test_counts_every_sign_pattern(differences: list[int]) -> None:
    observed = abs(sum(differences))
    patterns = list(product((-1, 1), repeat=len(differences)))
    extreme = sum(
        abs(sum(s * d for s, d in zip(signs, differences, strict=True))) >= observed
        for signs in patterns
    )
    assert sign_flip_test(differences, seed=1) == pytest.approx(extreme / len(patterns))


def test_the_test_is_scipys_permutation_test() -> None:
    rng = np.random.default_rng(4)
    first, second = rng.integers(1, 7, 12), rng.integers(2, 7, 12)
    theirs = stats.permutation_test(
        (first, second),
        lambda one, other, axis=-1: (one - other).mean(axis=axis),
        permutation_type="samples",
        vectorized=True,
        n_resamples=np.inf,
        alternative="two-sided",
    ).pvalue
    assert sign_flip_test(first - second, seed=1) == pytest.approx(theirs)


def test_fractions_are_tested_by_random_flips_close_to_the_exact_answer() -> None:
    rng = np.random.default_rng(7)
    whole = rng.integers(-3, 6, 40)
    exact = sign_flip_test(whole, seed=1)
    assert sign_flip_test(whole / 3, seed=1) == pytest.approx(exact, rel=0.25, abs=2e-3)
    assert sign_flip_test(np.full(300, 0.1), seed=1) == pytest.approx(1 / 20_001)
    assert sign_flip_test([0.0, 0.0], seed=1) == 1.0


def test_a_thousand_samples_have_a_p_value_far_below_the_smallest_random_one() -> None:
    assert 0 < sign_flip_test(np.ones(1000), seed=1) < 1e-300
    assert sign_flip_test([1, -1] * 500, seed=1) == pytest.approx(1.0)


@given(st.lists(st.floats(0, 1), min_size=1, max_size=8))
def test_holm_is_the_step_down_procedure(p_values: list[float]) -> None:
    corrected = holm(p_values)
    order = np.argsort(p_values, kind="stable")
    for alpha in (0.01, 0.05, 0.3):
        rejected = set()
        for rank, index in enumerate(order):
            if p_values[index] > alpha / (len(p_values) - rank):
                break
            rejected.add(int(index))
        ours = {index for index, p in enumerate(corrected) if p <= alpha}
        # p * k <= alpha and p <= alpha / k may round apart.
        near = {i for i, p in enumerate(corrected) if abs(p - alpha) < 1e-12}
        assert ours - near == rejected - near
    assert all(one >= other for one, other in zip(corrected, p_values, strict=True))


@given(st.text(max_size=8), st.text(max_size=8))
def test_edit_distance_is_a_metric_between_its_bounds(first: str, second: str) -> None:
    distance = edit_distance(first, second)
    assert distance == edit_distance(second, first)
    assert (distance == 0) == (first == second)
    longer, shorter = max(len(first), len(second)), min(len(first), len(second))
    assert longer - shorter <= distance <= longer
    assert 0 <= edit_similarity(first, second) <= 1


def test_known_distances() -> None:
    assert edit_distance("kitten", "sitting") == 3
    assert edit_distance(["a", "good", "film"], ["a", "very", "bad", "film"]) == 2
    assert edit_similarity("", "") == 1
    assert edit_similarity("film", "") == 0
    assert edit_similarity("film", "fim") == 0.75


def test_cosine() -> None:
    assert cosine([1, 0], [0, 2]) == 0
    assert cosine([1, 1], [3, 3]) == pytest.approx(1)
    assert cosine([1, 2], [-1, -2]) == pytest.approx(-1)
    assert cosine([0, 0], [0, 0]) == 1
    assert cosine([0, 0], [1, 0]) == 0
