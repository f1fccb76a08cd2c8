"""p-values against SciPy, MAPIE, the formulas re-derived, and simulation."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from mapie.risk_control.methods import compute_hoeffding_bentkus_p_value
from scipy import stats

from eexit_cli.calibration.bounds import samples_needed, samples_needed_at, upper_bound
from eexit_cli.calibration.p_values import P_VALUES
from eexit_cli.calibration.p_values.betting import bets
from eexit_cli.calibration.p_values.hoeffding_bentkus import binomial_tail
from eexit_cli.core.errors import UsageError

VALID = ["hoeffding", "hoeffding-bentkus", "betting"]
DELTAS = st.floats(0.01, 0.99)
BINARY = arrays(np.float64, st.integers(1, 60), elements=st.sampled_from([0.0, 1.0]))
LOSSES = arrays(np.float64, st.integers(1, 60), elements=st.floats(0, 1))


def p_of(name: str, losses, delta: float) -> float:
    return P_VALUES.load(name).p_value(losses, delta)


def betting_by_hand(losses: np.ndarray, delta: float) -> float:
    """WSR's wealth with one gambler whose bet is chosen from the past alone."""
    nu, stakes = bets(delta)
    wealths = [float(stake) for stake in stakes]
    wealth, largest = 1.0, 1.0
    for loss in losses:
        total = sum(wealths)
        # Predictable: this loss has not been looked at yet.
        bet = sum(w * b for w, b in zip(wealths, nu, strict=True)) / total
        assert 0 <= bet < 1 / (1 - delta)
        wealth *= 1 - bet * (loss - delta)
        wealths = [w * (1 - b * (loss - delta)) for w, b in zip(wealths, nu, strict=True)]
        largest = max(largest, wealth)
    return min(1.0, 1.0 / largest)


class TestFormulas:
    @given(losses=LOSSES, delta=DELTAS)
    def test_hoeffding(self, losses, delta):
        expected = math.exp(-2 * len(losses) * max(0.0, delta - sum(losses) / len(losses)) ** 2)
        assert p_of("hoeffding", losses, delta) == pytest.approx(expected, rel=1e-9)

    @given(losses=BINARY, delta=DELTAS)
    def test_binomial_is_scipys_tail(self, losses, delta):
        expected = stats.binom.cdf(losses.sum(), len(losses), delta)
        assert p_of("binomial", losses, delta) == pytest.approx(expected, rel=1e-9, abs=1e-300)

    @given(losses=LOSSES, delta=DELTAS)
    def test_hoeffding_bentkus_is_the_smaller_of_its_two_bounds(self, losses, delta):
        n, total = len(losses), float(losses.sum())
        a = min(total / n, delta)
        h = (a * math.log(a / delta) if a > 0 else 0.0) + (1 - a) * math.log((1 - a) / (1 - delta))
        tail = stats.binom.cdf(math.ceil(total - 1e-9), n, delta)
        expected = min(1.0, math.exp(-n * h), math.e * tail)
        assert p_of("hoeffding-bentkus", losses, delta) == pytest.approx(expected, rel=1e-8)

    @given(losses=LOSSES, delta=DELTAS)
    def test_hoeffding_bentkus_is_mapies(self, losses, delta):
        n, total = len(losses), float(losses.sum())
        # MAPIE takes ceil(n * mean), which rounding can push over the next integer: a nudge
        # keeps it on the right side.
        mean = np.array([max(0.0, total - 1e-9) / n])
        expected = compute_hoeffding_bentkus_p_value(mean, n, [delta])[0, 0]
        assert p_of("hoeffding-bentkus", losses, delta) == pytest.approx(
            min(1.0, expected), rel=1e-5, abs=1e-12
        )

    @given(losses=LOSSES, delta=DELTAS)
    def test_betting_is_the_loop(self, losses, delta):
        assert p_of("betting", losses, delta) == pytest.approx(
            betting_by_hand(losses, delta), rel=1e-9
        )

    def test_betting_over_many_blocks_is_the_loop(self, monkeypatch):
        monkeypatch.setattr("eexit_cli.calibration.p_values.betting._BLOCK_ELEMENTS", 100)
        losses = np.random.default_rng(0).beta(1, 15, (97, 3))
        got = P_VALUES.load("betting").p_values(losses, 0.1)
        assert got == pytest.approx([betting_by_hand(losses[:, j], 0.1) for j in range(3)])

    def test_betting_survives_wealth_beyond_floating_point(self):
        assert p_of("betting", np.zeros(20_000), 0.9) == pytest.approx(1e-300)
        assert p_of("betting", np.r_[np.zeros(20_000), np.ones(20_000)], 0.9) < 1e-200

    @given(losses=arrays(np.float64, st.integers(2, 60), elements=st.floats(0, 1)), delta=DELTAS)
    def test_clt_is_the_one_sided_z_test(self, losses, delta):
        spread = losses.std(ddof=1)
        if spread < 1e-6:
            return
        z = (losses.mean() - delta) / (spread / math.sqrt(len(losses)))
        assert p_of("clt", losses, delta) == pytest.approx(stats.norm.cdf(z), rel=1e-6, abs=1e-12)

    @given(losses=LOSSES, delta=DELTAS)
    def test_conformal_and_naive_compare_means(self, losses, delta):
        n, total = len(losses), float(losses.sum())
        if abs((total + 1) / (n + 1) - delta) > 1e-9:
            assert p_of("conformal", losses, delta) == float((total + 1) / (n + 1) > delta)
        if abs(total / n - delta) > 1e-9:
            assert p_of("naive", losses, delta) == float(total / n > delta)

    @pytest.mark.parametrize(
        ("n", "ones", "delta"),
        [(100, 3, 0.1), (10**6, 20, 4e-5), (2**31 + 5, 0, 1e-9), (10**11, 60, 1e-9)],
    )
    def test_tails_of_any_n(self, n, ones, delta):
        """32 bits hold no n above 2^31; each term of the sum follows from the last."""
        term = math.exp(n * math.log1p(-delta))
        terms = [term]
        for k in range(ones):
            terms.append(terms[-1] * (n - k) / (k + 1) * delta / (1 - delta))
        tail = float(binomial_tail(np.array([float(ones)]), n, delta)[0])
        assert tail == pytest.approx(math.fsum(terms), rel=1e-9)

    def test_a_sum_that_rounding_pushes_over_an_integer_counts_as_that_integer(self):
        losses = np.full(30, 0.1)
        assert losses.sum() > 3, "the example no longer shows the trap"
        tail = math.e * stats.binom.cdf(3, 30, 0.3)
        h = 0.1 * math.log(0.1 / 0.3) + 0.9 * math.log(0.9 / 0.7)
        expected = min(tail, math.exp(-30 * h))
        assert p_of("hoeffding-bentkus", losses, 0.3) == pytest.approx(expected, rel=1e-9)


class TestLaws:
    @given(losses=BINARY, delta=DELTAS)
    def test_binomial_at_most_hoeffding_bentkus_at_most_hoeffding(self, losses, delta):
        binomial = p_of("binomial", losses, delta)
        bentkus = p_of("hoeffding-bentkus", losses, delta)
        hoeffding = p_of("hoeffding", losses, delta)
        assert binomial <= bentkus * (1 + 1e-9)
        assert bentkus <= hoeffding * (1 + 1e-9)

    @pytest.mark.parametrize("n", [1, 2, 3, 10, 37])
    def test_the_same_order_for_every_count_of_ones(self, n):
        for ones in range(n + 1):
            losses = np.r_[np.ones(ones), np.zeros(n - ones)]
            for delta in np.linspace(0.01, 0.99, 25):
                values = [
                    p_of(name, losses, delta)
                    for name in ("binomial", "hoeffding-bentkus", "hoeffding")
                ]
                assert values[0] <= values[1] * (1 + 1e-9) <= values[2] * (1 + 2e-9)

    @pytest.mark.parametrize("name", sorted(set(P_VALUES) - {"clt"}))
    @given(losses=BINARY, delta=DELTAS, other=DELTAS)
    def test_a_larger_delta_is_easier(self, name, losses, delta, other):
        low, high = sorted((delta, other))
        assert p_of(name, losses, high) <= p_of(name, losses, low) * (1 + 1e-9)

    @pytest.mark.parametrize("name", [*VALID, "conformal", "naive"])
    @given(losses=LOSSES, delta=DELTAS, data=st.data())
    def test_larger_losses_are_harder(self, name, losses, delta, data):
        more = data.draw(arrays(np.float64, losses.shape, elements=st.floats(0, 1)))
        raised = np.maximum(losses, more)
        assert p_of(name, losses, delta) <= p_of(name, raised, delta) * (1 + 1e-9)

    @pytest.mark.parametrize("name", sorted(P_VALUES))
    @pytest.mark.parametrize("delta", [1e-6, 0.05, 0.5, 1 - 1e-9])
    @pytest.mark.parametrize("n", [1, 2, 50])
    def test_edges(self, name, delta, n):
        zeros, ones = p_of(name, np.zeros(n), delta), p_of(name, np.ones(n), delta)
        assert 0 <= zeros <= 1
        assert ones == pytest.approx(1.0)
        assert P_VALUES.load(name).all_zero(n, delta) == pytest.approx(zeros, rel=1e-6)

    @pytest.mark.parametrize("name", sorted(P_VALUES))
    def test_columns_do_not_mix(self, name):
        matrix = (np.random.default_rng(3).random((40, 5)) < 0.1).astype(float)
        together = P_VALUES.load(name).p_values(matrix, 0.2)
        alone = [p_of(name, matrix[:, j], 0.2) for j in range(5)]
        assert together == pytest.approx(alone)


def draws(rng, kind: str, mean: float, shape) -> np.ndarray:
    """Losses in [0, 1] with a known mean, from very different distributions."""
    match kind:
        case "bernoulli":
            return (rng.random(shape) < mean).astype(float)
        case "beta-narrow":
            return rng.beta(50 * mean, 50 * (1 - mean), shape)
        case "beta-wide":
            return rng.beta(0.3 * mean, 0.3 * (1 - mean), shape)
        case "rare-halves":
            return (rng.random(shape) < 2 * mean) * 0.5
        case _:
            raise AssertionError(kind)


KINDS = ["bernoulli", "beta-narrow", "beta-wide", "rare-halves"]


@pytest.mark.parametrize(
    ("name", "kind"),
    [*((name, kind) for name in VALID for kind in KINDS), ("binomial", "bernoulli")],
)
@pytest.mark.parametrize(("n", "delta"), [(20, 0.2), (100, 0.1)])
def test_p_values_are_super_uniform_at_the_edge_of_the_null(name, kind, n, delta):
    """P(p <= u) <= u when the mean is delta itself, the hardest case of H (mean >= delta)."""
    repeats = 20_000
    rng = np.random.default_rng([KINDS.index(kind), n])
    p = P_VALUES.load(name).p_values(draws(rng, kind, delta, (n, repeats)), delta)
    for u in (0.01, 0.05, 0.1, 0.3, 0.5):
        slack = 4 * math.sqrt(u * (1 - u) / repeats)
        assert (p <= u).mean() <= u + slack, (name, kind, u)


def test_betting_rejects_more_than_hoeffding_bentkus_when_the_variance_is_small():
    losses = draws(np.random.default_rng(0), "beta-narrow", 0.05, (100, 2000))
    betting = P_VALUES.load("betting").p_values(losses, 0.1) <= 0.05
    bentkus = P_VALUES.load("hoeffding-bentkus").p_values(losses, 0.1) <= 0.05
    assert betting.mean() > bentkus.mean() + 0.5


class TestRefusals:
    @pytest.mark.parametrize("name", sorted(P_VALUES))
    @pytest.mark.parametrize("delta", [0.0, 1.0, -0.1, 2.0, float("nan")])
    def test_delta_outside(self, name, delta):
        with pytest.raises(UsageError, match=r"delta .* is outside"):
            p_of(name, [0.0, 1.0], delta)

    @pytest.mark.parametrize("bad", [float("nan"), -0.1, 1.1, float("inf")])
    def test_bad_losses_name_their_rows(self, bad):
        losses = np.zeros(20)
        losses[[4, 11]] = bad
        with pytest.raises(UsageError, match="rows 5, 12"):
            p_of("hoeffding", losses, 0.1)

    def test_many_bad_rows_are_counted(self):
        with pytest.raises(UsageError, match="rows 1, 2, 3, 4, 5 and 15 more"):
            p_of("hoeffding", np.full(20, 7.0), 0.1)

    def test_no_samples(self):
        with pytest.raises(UsageError, match="no losses"):
            p_of("hoeffding", np.zeros(0), 0.1)

    def test_binomial_wants_zeros_and_ones(self):
        with pytest.raises(UsageError, match="exactly 0 or 1"):
            p_of("binomial", [0.0, 0.5], 0.1)

    def test_rounding_is_not_an_error(self):
        assert p_of("hoeffding", [1 + 1e-8, -1e-8], 0.1) == pytest.approx(1.0)

    def test_unknown_name_is_told_the_near_one(self):
        with pytest.raises(UsageError) as caught:
            P_VALUES.load("bernoulli-bentkus")
        assert "hoeffding-bentkus" in caught.value.hint


class TestBounds:
    @settings(deadline=None, max_examples=40)
    @given(losses=BINARY, epsilon=st.floats(0.01, 0.5))
    def test_binomial_bound_is_clopper_pearson(self, losses, epsilon):
        n, ones = len(losses), losses.sum()
        expected = 1.0 if ones == n else stats.beta.ppf(1 - epsilon, ones + 1, n - ones)
        got = upper_bound(P_VALUES.load("binomial"), losses, epsilon)
        assert got == pytest.approx(expected, abs=1e-6)

    def test_hoeffding_bound(self):
        losses = np.full(200, 0.1)
        expected = 0.1 + math.sqrt(math.log(20) / 400)
        assert upper_bound(P_VALUES.load("hoeffding"), losses, 0.05) == pytest.approx(expected)

    @pytest.mark.parametrize("name", sorted(P_VALUES))
    def test_the_bound_is_where_rejection_starts(self, name):
        losses = (np.random.default_rng(1).random(80) < 0.1).astype(float)
        bound = upper_bound(P_VALUES.load(name), losses, 0.05)
        assert p_of(name, losses, min(bound + 1e-9, 1 - 1e-12)) <= 0.05
        assert p_of(name, losses, bound - 1e-6) > 0.05

    def test_nothing_below_one_for_all_ones(self):
        assert upper_bound(P_VALUES.load("hoeffding-bentkus"), np.ones(5), 0.05) == 1.0

    @pytest.mark.parametrize(("delta", "epsilon"), [(0.1, 0.1), (0.05, 0.05), (0.3, 0.01)])
    def test_samples_needed(self, delta, epsilon):
        expected = {
            "hoeffding": math.ceil(math.log(1 / epsilon) / (2 * delta**2)),
            "hoeffding-bentkus": math.ceil(math.log(epsilon) / math.log(1 - delta)),
            "binomial": math.ceil(math.log(epsilon) / math.log(1 - delta)),
            "conformal": math.ceil(1 / delta - 1),
        }
        for name, n in expected.items():
            assert samples_needed(P_VALUES.load(name), delta, epsilon) == n

    @pytest.mark.parametrize("name", ["binomial", "hoeffding-bentkus"])
    @pytest.mark.parametrize(
        ("delta", "epsilon", "n"),
        # The first is exact to the sample: ln(1/0.05) / -ln(1 - 1e-9) = 2,995,732,272.06.
        [(1e-9, 0.05, 2_995_732_273), (1e-6, 0.01, 4_605_168), (1e-11, 0.05, 299_573_227_354)],
    )
    def test_samples_needed_beyond_32_bits(self, name, delta, epsilon, n):
        assert n == math.ceil(math.log(epsilon) / math.log1p(-delta))
        assert samples_needed(P_VALUES.load(name), delta, epsilon) == n

    @pytest.mark.parametrize(("name", "n"), [("hoeffding", 14_978_661_368), ("conformal", 99_999)])
    def test_samples_needed_in_closed_form(self, name, n):
        delta = 1e-5
        assert samples_needed(P_VALUES.load(name), delta, 0.05) == n

    def test_betting_needs_a_number_too(self):
        n = samples_needed(P_VALUES.load("betting"), 1e-9, 0.05)
        all_zero = P_VALUES.load("betting").all_zero
        assert n > 2_995_732_273, "no valid test of zeros needs fewer than the exact one"
        assert all_zero(n, 1e-9) <= 0.05 < all_zero(n - 1, 1e-9)

    def test_more_than_10_to_the_12_is_no_number(self):
        assert samples_needed(P_VALUES.load("binomial"), 1e-13, 0.05) is None

    @pytest.mark.parametrize("name", VALID)
    def test_one_sample_fewer_does_not_do(self, name):
        n = samples_needed(P_VALUES.load(name), 0.07, 0.05)
        assert p_of(name, np.zeros(n), 0.07) <= 0.05 < p_of(name, np.zeros(n - 1), 0.07)

    @pytest.mark.parametrize("name", VALID)
    def test_samples_needed_at_this_mean(self, name):
        losses = np.tile([0.0, 0.1], 25)
        n = samples_needed_at(P_VALUES.load(name), losses, 0.1, 0.05)
        assert n is not None
        assert p_of(name, np.resize(losses, n), 0.1) <= 0.05
        assert samples_needed_at(P_VALUES.load(name), np.full(10, 0.2), 0.1, 0.05) is None
