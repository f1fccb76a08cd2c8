"""Thresholds on tokens: decay over positions, and FREE's adaptive one on synthetic pairs."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import beta

from eexit_cli.core.errors import UsageError
from eexit_cli.exits.adaptive import (
    GRID,
    AdaptiveThreshold,
    BetaMixture,
    fit_beta_mixture,
)
from eexit_cli.exits.decay import DECAY_FORMS, TokenThreshold


@given(
    threshold=st.floats(0, 1),
    temperature=st.floats(0, 50),
    length=st.integers(1, 500),
    form=st.sampled_from(DECAY_FORMS),
)
def test_decay_stays_in_range_and_falls(
    threshold: float, temperature: float, length: int, form: str
) -> None:
    rule = TokenThreshold(threshold, temperature=temperature, max_length=length, form=form)
    values = [rule.at(position) for position in range(0, length, max(1, length // 7))]
    assert all(0 <= value <= 1 for value in values)
    assert all(b <= a + 1e-12 for a, b in itertools.pairwise(values))


def test_decay_formulas() -> None:
    paper = TokenThreshold(0.8, temperature=4, max_length=64)
    assert paper.at(0) == pytest.approx(0.9 * 0.8 + 0.1)
    assert paper.at(16) == pytest.approx(0.72 + 0.1 * math.exp(-1))
    code = TokenThreshold(0.8, temperature=4, max_length=64, form="code")
    assert code.at(0) == pytest.approx(0.72 + 0.08 * math.exp(-4 / 64))
    assert code.at(15) == pytest.approx(0.72 + 0.08 * math.exp(-1))
    assert TokenThreshold(0.8).at(99) == 0.8


def test_decay_from_one_is_not_the_full_model() -> None:
    for form in DECAY_FORMS:
        assert TokenThreshold(1.0, temperature=4, max_length=10, form=form).at(5) < 1


@given(st.floats(0, 1))
def test_the_comparison_is_strict(value: float) -> None:
    rule = TokenThreshold(value)
    above = math.nextafter(value, 2)
    confidence = torch.tensor([value, above, math.nextafter(value, -1)], dtype=torch.float64)
    assert rule.leave(confidence, 0).tolist() == [False, True, False]


@pytest.mark.parametrize(
    ("threshold", "settings", "said"),
    [
        (1.1, {}, r"outside \[0, 1\]"),
        (-0.1, {}, r"outside \[0, 1\]"),
        (math.nan, {}, r"outside \[0, 1\]"),
        (0.5, {"temperature": -1.0, "max_length": 5}, "Decay temperature"),
        (0.5, {"temperature": math.inf, "max_length": 5}, "Decay temperature"),
        (0.5, {"temperature": 1.0}, "longest output"),
        (0.5, {"form": "papr"}, "Unknown threshold decay 'papr'"),
    ],
)
def test_bad_thresholds(threshold: float, settings: dict[str, float], said: str) -> None:
    with pytest.raises(UsageError, match=said):
        TokenThreshold(threshold, **settings)


def pairs(n: int = 4000, share: float = 0.7, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Confidences of agreeing tokens from Beta(6, 2), of the others from Beta(2, 5)."""
    random = np.random.default_rng(seed)
    agree = random.random(n) < share
    confidences = np.where(agree, random.beta(6, 2, n), random.beta(2, 5, n))
    return confidences, agree


def test_the_fit_recovers_the_components() -> None:
    mixture = fit_beta_mixture(*pairs(40_000), observed_share=True)
    assert mixture is not None
    assert mixture.agree == pytest.approx((6, 2), rel=0.05)
    assert mixture.disagree == pytest.approx((2, 5), rel=0.05)
    assert mixture.share == pytest.approx(0.7, abs=0.01)


def test_the_posterior_is_bayes_rule() -> None:
    mixture = BetaMixture(disagree=(2, 5), agree=(6, 2), share=0.7)
    for c in (0.05, 0.4, 0.93):
        yes, no = 0.7 * beta(6, 2).pdf(c), 0.3 * beta(2, 5).pdf(c)
        assert mixture.posterior([c])[0] == pytest.approx(yes / (yes + no))


def test_the_posterior_matches_counted_shares() -> None:
    confidences, agree = pairs(200_000)
    mixture = fit_beta_mixture(confidences, agree, observed_share=True)
    assert mixture is not None
    for low in (0.3, 0.5, 0.7):
        near = (confidences > low) & (confidences < low + 0.02)
        assert mixture.posterior([low + 0.01])[0] == pytest.approx(agree[near].mean(), abs=0.03)


def test_the_threshold_is_the_first_sufficient_point() -> None:
    mixture = BetaMixture(disagree=(2, 5), agree=(6, 2), share=0.5)
    points = np.linspace(*GRID)
    posterior = mixture.posterior(points)
    expected = next(point for point, p in zip(points, posterior, strict=True) if p > 0.4)
    assert mixture.threshold() == pytest.approx(expected)
    assert points[0] < mixture.threshold() < points[-1]
    hopeless = BetaMixture(disagree=(6, 2), agree=(2, 50), share=0.5)
    assert hopeless.threshold() == pytest.approx(0.9)


@given(st.floats(0.05, 0.45), st.floats(0.46, 0.95))
def test_asking_for_more_agreement_never_lowers_the_threshold(low: float, high: float) -> None:
    mixture = fit_beta_mixture(*pairs())
    assert mixture is not None
    assert mixture.threshold(zeta=low) <= mixture.threshold(zeta=high)


@pytest.mark.parametrize(
    ("confidences", "agree"),
    [
        ([], []),
        ([0.5, 0.6, 0.7], [True, True, True]),
        ([0.5, 0.6, 0.7], [False, True, True]),
        ([0.5, 0.5, 0.7, 0.8], [False, False, True, True]),
    ],
)
def test_too_little_to_fit(confidences: list[float], agree: list[bool]) -> None:
    assert fit_beta_mixture(confidences, agree) is None


def test_each_part_has_the_moments_of_its_confidences() -> None:
    """By the mean and the variance of SciPy's beta distribution, not by the fit's own formula."""
    from scipy.stats import beta

    confidences, agree = pairs(500)
    mixture = fit_beta_mixture(confidences, agree)
    assert mixture is not None
    for parameters, part in (
        (mixture.agree, confidences[agree]),
        (mixture.disagree, confidences[~agree]),
    ):
        mean, variance = beta.stats(*parameters, moments="mv")
        assert mean == pytest.approx(part.mean(), rel=1e-9)
        assert variance == pytest.approx(part.var(), rel=1e-9)


def test_a_threshold_rests_when_its_refits_are_spent() -> None:
    rule = AdaptiveThreshold(0.9, max_refits=0)
    confidences, agree = pairs(400)
    rule.observe(confidences.tolist(), agree.tolist())
    assert (rule.refit(), rule.refits) == (0.9, 0)


def test_ones_and_zeros_are_moved_inside() -> None:
    mixture = fit_beta_mixture([0.0, 0.0, 1.0, 0.0, 1.0, 1.0], [0, 0, 0, 1, 1, 1])
    assert mixture is not None
    assert np.isfinite(mixture.posterior([0.0, 0.5, 1.0])).all()


def test_adaptive_threshold_moves_only_on_refit_and_rests_at_last() -> None:
    rule = AdaptiveThreshold(0.95, max_refits=2)
    assert rule.refit() == 0.95
    assert rule.refits == 0, "nothing was seen, so nothing was spent"
    confidences, agree = pairs(400)
    rule.observe(confidences.tolist(), agree.tolist())
    assert rule.threshold == 0.95
    moved = rule.refit()
    assert 0.3 <= moved < 0.95
    assert rule.leave(torch.tensor([moved + 0.01, moved - 0.01]), 3).tolist() == [True, False]
    rule.refit()
    rule.observe([0.99] * 50 + [0.9] * 50, [False] * 100)
    assert rule.refit() == moved
    assert rule.describe()["adaptive_refits"] == 2


def test_bad_agreement_level() -> None:
    with pytest.raises(UsageError, match=r"outside \(0, 1\)"):
        AdaptiveThreshold(0.5, zeta=1.0)


def test_lengths_must_match() -> None:
    with pytest.raises(ValueError, match="agreements"):
        fit_beta_mixture([0.1, 0.2], [True])
