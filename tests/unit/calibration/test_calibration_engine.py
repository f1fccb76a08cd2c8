"""The engine: one column at a time, stopping where it may, and answers that say what they are."""

from __future__ import annotations

import numpy as np
import pytest
from calibration_tiny import THRESHOLDS, graded_losses
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from eexit_cli.calibration import PROCEDURES
from eexit_cli.calibration.curves import (
    chosen_figures,
    delta_sweep,
    p_value_rows,
    repeated_splits,
    sample_sizes,
    split_rows,
)
from eexit_cli.calibration.engine import alternatives, among_known, ask, calibrate
from eexit_cli.calibration.p_values import P_VALUES
from eexit_cli.calibration.report import (
    Subject,
    _round,
    alternative_rows,
    alternatives_note,
    guarantee,
    metrics,
    needs,
    threshold_rows,
)
from eexit_cli.calibration.sources import Column, Ledger, MatrixSource
from eexit_cli.calibration.testing import last_rejected
from eexit_cli.core.errors import UsageError
from eexit_cli.core.seed import derive_seed


class Counted:
    """A source that counts how often each column is asked for; columns are dear."""

    cheap = False

    def __init__(self, losses: np.ndarray, *, full_model: bool = True) -> None:
        self._losses = losses
        self.full_model = full_model
        self.thresholds = THRESHOLDS[: losses.shape[1]]
        self.samples = len(losses)
        self.asked: list[int] = []

    def column(self, index: int) -> Column:
        self.asked.append(index)
        return Column(self._losses[:, index], np.full(self.samples, 20.0 - index))


def question(**options):
    defaults = {
        "delta": 0.1,
        "epsilon": 0.05,
        "p_value": "hoeffding-bentkus",
        "procedure": "fixed-sequence",
    }
    return ask(**{**defaults, **options})


def by_hand(losses: np.ndarray, delta: float, epsilon: float, p_name: str) -> int:
    """DL2-CALM's loop, with the accepted threshold instead of the failing one at its end."""
    accepted = 0
    for index in range(1, losses.shape[1]):
        if P_VALUES.load(p_name).p_value(losses[:, index], delta) > epsilon:
            break
        accepted = index
    return accepted


@settings(deadline=None, max_examples=60)
@given(
    seed=st.integers(0, 1000),
    delta=st.floats(0.02, 0.6),
    epsilon=st.floats(0.01, 0.5),
    p_name=st.sampled_from(["hoeffding", "hoeffding-bentkus", "betting"]),
)
def test_the_fixed_sequence_is_the_loop_of_the_paper(seed, delta, epsilon, p_name):
    losses = graded_losses(60, seed=seed)
    source = Counted(losses)
    answer = calibrate(Ledger(source), question(delta=delta, epsilon=epsilon, p_value=p_name))
    expected = by_hand(losses, delta, epsilon, p_name)
    assert answer.chosen == expected
    # One pass per threshold at most, and none behind the first failure.
    assert source.asked == list(range(min(expected + 2, losses.shape[1])))
    assert answer.complete
    assert answer.failed == (expected + 1 if expected + 1 < losses.shape[1] else None)


@pytest.mark.parametrize("name", sorted(PROCEDURES))
def test_every_procedure_tests_all_but_the_full_model(name):
    losses = graded_losses(200)
    answer = calibrate(Ledger(Counted(losses)), question(procedure=name), run_all=True)
    p = P_VALUES.load("hoeffding-bentkus").p_values(losses, 0.1)
    rejected = PROCEDURES.load(name).reject(p[1:], 0.05, starts=answer.question.starts)
    assert answer.rejected[1:].tolist() == rejected.tolist()
    assert answer.rejected[0]
    assert answer.chosen == 1 + last_rejected(rejected)
    assert np.isnan(answer.p_values[0])
    assert answer.p_values[1:] == pytest.approx(p[1:])


def test_every_question_shares_the_same_passes():
    source = Counted(graded_losses(300))
    ledger = Ledger(source)
    for delta in (0.3, 0.1, 0.05):
        for p_name in ("hoeffding", "hoeffding-bentkus", "betting"):
            calibrate(ledger, question(delta=delta, p_value=p_name), run_all=False)
    assert sorted(source.asked) == sorted(set(source.asked))


def test_what_was_not_run_is_said_to_be_unknown():
    ledger = Ledger(Counted(graded_losses(300)))
    cautious = calibrate(ledger, question(delta=0.1))
    eager = among_known(ledger, question(delta=0.5))
    assert cautious.complete
    assert not eager.complete
    assert eager.chosen == max(ledger.known)
    assert among_known(ledger, question(delta=0.1)).chosen == cautious.chosen
    rows = alternative_rows(alternatives(ledger, question(delta=0.1)), ledger, Subject())
    named = {row["p_value"]: row for row in rows}
    assert named["hoeffding-bentkus"]["at_least"] is False
    # Betting would have gone past the threshold at which Hoeffding-Bentkus stopped.
    assert named["betting"]["at_least"] is True
    assert "binomial" not in named


def test_without_a_full_model_nothing_certified_is_an_answer():
    ledger = Ledger(MatrixSource(THRESHOLDS, graded_losses(20)))
    answer = calibrate(ledger, question())
    assert answer.chosen is None
    assert not answer.certified
    assert guarantee(answer, ledger, Subject()).startswith("Nothing certified")
    figures = metrics(answer, ledger, Subject())
    assert figures["certified"] is False
    assert "threshold" not in figures
    assert figures["samples_needed"] == 29
    assert "at least 29 samples" in needs(answer, ledger)[0]


def test_with_a_full_model_it_is_the_answer_when_nothing_else_is():
    ledger = Ledger(MatrixSource(THRESHOLDS, graded_losses(20), full_model=True))
    answer = calibrate(ledger, question())
    assert answer.chosen == 0
    assert not answer.certified
    assert "the answer is the full model" in guarantee(answer, ledger, Subject())
    figures = metrics(answer, ledger, Subject())
    assert (figures["threshold"], figures["mean_loss"], figures["mean_loss_bound"]) == (1.0, 0, 0)


def test_the_n_that_is_needed_counts_the_procedures_division_of_epsilon():
    ledger = Ledger(MatrixSource(THRESHOLDS, graded_losses(40), full_model=True))
    answer = calibrate(ledger, question(procedure="bonferroni"))
    # 19 hypotheses: n with 0.9^n <= 0.05 / 19.
    assert "at least 57 samples" in needs(answer, ledger)[0]


def test_a_mean_that_is_too_high_is_said_to_be():
    losses = np.c_[np.zeros(500), np.full(500, 0.5)]
    ledger = Ledger(MatrixSource((1.0, 0.5), losses, full_model=True))
    answer = calibrate(ledger, question())
    assert "more samples will not help" in needs(answer, ledger)[0]
    ledger = Ledger(MatrixSource((1.0, 0.5), losses * 0.16, full_model=True))
    (note,) = needs(calibrate(ledger, question()), ledger)
    assert note.startswith("About ")


def test_the_report_describes_the_accepted_threshold_and_not_the_failing_one():
    losses = graded_losses(300)
    layers = np.tile(np.linspace(6, 1, 20), (300, 1))
    ledger = Ledger(MatrixSource(THRESHOLDS, losses, layers, full_model=True))
    answer = calibrate(ledger, question())
    figures = metrics(answer, ledger, Subject(num_layers=6), ledger)
    index = figures["threshold_index"]
    assert figures["threshold"] == THRESHOLDS[index]
    assert figures["mean_loss"] == pytest.approx(losses[:, index].mean())
    assert figures["mean_exit_layer"] == pytest.approx(layers[0, index])
    assert figures["speedup_layers"] == pytest.approx(6 / layers[0, index])
    assert figures["p_value"] <= 0.05 < answer.p_values[index + 1]
    assert figures["mean_loss"] < figures["mean_loss_bound"] <= 0.1
    assert figures["test_within_delta"] is True
    rows = threshold_rows(answer, ledger, Subject(num_layers=6))
    assert [row["index"] for row in rows if row["chosen"]] == [index]
    assert [row["rejected"] for row in rows] == [i <= index for i in range(len(rows))]
    sentence = guarantee(answer, ledger, Subject())
    assert "at least 95 %" in sentence
    assert f"threshold {THRESHOLDS[index]:g} keeps" in sentence
    assert "at or below 0.1" in sentence


def test_a_small_epsilon_is_not_promised_away():
    ledger = Ledger(MatrixSource(THRESHOLDS, graded_losses(3000), full_model=True))
    answer = calibrate(ledger, question(epsilon=5e-5))
    assert "With probability at least 99.995 %" in guarantee(answer, ledger, Subject())
    answer = calibrate(ledger, question(epsilon=5e-5, delta=1e-4))
    assert "with probability 99.995 %" in guarantee(answer, ledger, Subject())


@given(
    scale=st.floats(1e-3, 3),
    delta=st.floats(0.3, 0.6),
    epsilon=st.floats(0.01, 0.3),
    falls=st.booleans(),
)
def test_what_the_sentence_says_is_what_was_certified(scale, delta, epsilon, falls):
    """Read back, the threshold and delta are the same numbers, whatever their digits."""
    thresholds = [scale * (step + 1) / 7 for step in range(20)]
    thresholds = thresholds[::-1] if falls else thresholds
    ledger = Ledger(MatrixSource(thresholds, graded_losses(100)))
    answer = calibrate(ledger, question(delta=delta, epsilon=epsilon))
    words = guarantee(answer, ledger, Subject()).split()
    assert float(words[words.index("threshold") + 1]) == thresholds[answer.chosen]
    assert float(words[words.index("below") + 1]) == delta
    assert float(words[words.index("least") + 1]) <= 100 * (1 - epsilon)


def test_a_weaker_promise_is_marked():
    ledger = Ledger(MatrixSource(THRESHOLDS, graded_losses(300), full_model=True))
    losses = graded_losses(300)
    for name in ("clt", "conformal", "naive"):
        sentence = guarantee(calibrate(ledger, question(p_value=name)), ledger, Subject())
        assert "without a guarantee" in sentence
        # Nor where it accepts nothing: no probability is named, and nothing is called certified.
        for full_model in (True, False):
            first = 0 if full_model else 1
            strict = Ledger(MatrixSource(THRESHOLDS[first:], losses[:, first:], None, full_model))
            answer = calibrate(strict, question(p_value=name, delta=0.004))
            sentence = " ".join([guarantee(answer, strict, Subject()), *needs(answer, strict)])
            assert "accepted" in sentence
            assert f"with '{name}', which gives no guarantee" in sentence
            for word in ("probability", "certif", "epsilon"):
                assert word not in sentence
    rows = alternative_rows(alternatives(ledger, question()), ledger, Subject())
    assert {row["p_value"] for row in rows if not row["guarantee"]} == {
        "clt",
        "conformal",
        "naive",
    }
    assert not any(row["certified"] for row in rows if not row["guarantee"])
    assert "it does not cover choosing the most eager" in alternatives_note(rows)
    assert alternatives_note([row for row in rows if not row["guarantee"]]) is None
    assert alternatives_note(rows[:1]) is None


def test_one_threshold_alone_is_the_full_model():
    ledger = Ledger(MatrixSource((1.0,), np.zeros((50, 1)), full_model=True))
    answer = calibrate(ledger, question())
    assert (answer.chosen, answer.certified, answer.failed) == (0, False, None)
    assert needs(answer, ledger) == []


class TestRefusals:
    def test_a_full_model_that_differs_from_itself(self):
        ledger = Ledger(MatrixSource(THRESHOLDS, graded_losses(50) + 0.01, full_model=True))
        with pytest.raises(UsageError, match="full model's losses"):
            calibrate(ledger, question())

    def test_losses_outside_name_row_and_threshold(self):
        losses = graded_losses(50)
        losses[6, 1] = 2.0
        with pytest.raises(UsageError, match=r"row 7.*column '0.95'"):
            calibrate(Ledger(MatrixSource(THRESHOLDS, losses, full_model=True)), question())

    def test_binomial_for_graded_losses(self):
        with pytest.raises(UsageError, match="exactly 0 or 1"):
            calibrate(Ledger(Counted(graded_losses(50))), question(p_value="binomial"))

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"delta": 0.0}, "delta 0.0 is outside"),
            ({"delta": 1.0}, "delta 1.0 is outside"),
            ({"epsilon": 1.5}, "epsilon 1.5 is outside"),
            ({"epsilon": float("nan")}, "epsilon nan is outside"),
            ({"p_value": "hofding"}, "Unknown p-value"),
            ({"procedure": "hollm"}, "Unknown testing procedure"),
            ({"starts": 3}, "--starts says nothing"),
            ({"starts": 0, "procedure": "fixed-sequence-starts"}, "0 starting points"),
        ],
    )
    def test_questions(self, options, message):
        with pytest.raises(UsageError, match=message):
            question(**options)


class TestCurves:
    ledger = Ledger(MatrixSource(THRESHOLDS, graded_losses(300), full_model=True))

    def test_the_sweep_is_one_calibration_per_delta(self):
        deltas = (0.01, 0.05, 0.1, 0.3)
        rows = list(delta_sweep(self.whole(), question(), deltas))
        assert [row["delta"] for row in rows] == list(deltas)
        for row in rows:
            alone = calibrate(self.ledger, question(delta=row["delta"]))
            assert row["index"] == alone.chosen
            assert row["mean_loss"] == chosen_figures(self.ledger, alone.chosen)["mean_loss"]
            assert row["mean_loss"] <= row["delta"]

    def whole(self) -> Ledger:
        ledger = Ledger(self.ledger.source)
        ledger.matrix()
        return ledger

    def test_the_sweep_leaves_out_what_it_cannot_know(self):
        ledger = Ledger(Counted(graded_losses(300)))
        calibrate(ledger, question(delta=0.1))
        rows = list(delta_sweep(ledger, question(), (0.05, 0.1, 0.3)))
        assert [row["delta"] for row in rows] == [0.05, 0.1]

    def test_p_values_along_the_sequence(self):
        answer = calibrate(self.ledger, question())
        rows = list(p_value_rows(answer, THRESHOLDS))
        assert [row["index"] for row in rows] == list(range(1, answer.failed + 1))
        assert rows[-1]["p"] > 0.05 >= rows[-2]["p"]

    @pytest.mark.parametrize("procedure", sorted(PROCEDURES))
    @pytest.mark.parametrize("p_name", ["hoeffding-bentkus", "betting", "clt"])
    def test_a_repeated_split_is_a_calibration_of_its_rows(self, procedure, p_name):
        losses = graded_losses(120)
        layers = np.tile(np.linspace(6, 1, 20), (120, 1)) - losses
        source = MatrixSource(THRESHOLDS, losses, layers, full_model=True)
        asked = question(p_value=p_name, procedure=procedure)
        (splits,) = repeated_splits(source, [asked], n=70, repeats=5, seed=3)
        rng = np.random.default_rng(derive_seed(3, "splits", 70))
        for repeat in range(5):
            order = rng.permutation(120)
            answer = calibrate(Ledger(source.rows(order[:70])), asked)
            rest = order[70:]
            assert splits.chosen[repeat] == answer.chosen
            assert splits.test_losses[repeat] == pytest.approx(losses[rest, answer.chosen].mean())
            assert splits.exit_layers[repeat] == pytest.approx(layers[rest, answer.chosen].mean())

    def test_splits_that_certify_nothing_have_no_figures(self):
        source = MatrixSource(THRESHOLDS, graded_losses(60))
        (splits,) = repeated_splits(source, [question(delta=0.01)], n=30, repeats=4, seed=0)
        assert (splits.chosen == -1).all()
        assert np.isnan(splits.test_losses).all()
        rows = split_rows(source, question(), deltas=(0.01,), sizes=[30], repeats=4, seed=0)
        (row,) = rows
        assert (row["uncertified"], row["answered"], row["violations"]) == (4, 0, 0.0)
        assert row["mean_loss"] is row["mean_exit_layer"] is row["index"] is None

    @pytest.mark.parametrize("full_model", [True, False])
    def test_splits_are_counted_whether_they_certify_or_not(self, full_model):
        """Binary losses at n = 40: some splits accept the second threshold, the others nothing."""
        ones = np.random.default_rng(5).random((160, 1)) < [[0.0, 0.05]]
        losses = np.c_[ones, np.ones(160)].astype(float)[:, 0 if full_model else 1 :]
        source = MatrixSource(THRESHOLDS[: losses.shape[1]], losses, losses + 1, full_model)
        asked = question(delta=0.12, p_value="binomial")
        (row,) = split_rows(source, asked, deltas=(0.12,), sizes=[40], repeats=50, seed=0)
        rng = np.random.default_rng(derive_seed(0, "splits", 40))
        certified = []
        for _ in range(50):
            order = rng.permutation(160)
            column = losses[:, -2]
            if stats.binom.cdf(column[order[:40]].sum(), 40, 0.12) <= 0.05:
                certified.append(column[order[40:]].mean())
        assert 0 < len(certified) < 50
        assert row["uncertified"] == 50 - len(certified)
        assert row["answered"] == (50 if full_model else len(certified))
        assert row["violations"] == np.mean(np.r_[certified] > 0.12) * len(certified) / 50
        if not full_model:
            median = np.quantile(certified, 0.5, method="nearest")
            assert row["mean_loss"] == pytest.approx(median)
            assert row["mean_exit_layer"] == pytest.approx(median + 1)

    def test_bands_hold_the_median(self):
        source = MatrixSource(THRESHOLDS, graded_losses(300), full_model=True)
        rows = list(
            split_rows(source, question(), deltas=(0.1, 0.2), sizes=[50, 200], repeats=20, seed=0)
        )
        assert [(row["n"], row["delta"]) for row in rows] == [
            (50, 0.1), (50, 0.2), (200, 0.1), (200, 0.2),
        ]  # fmt: skip
        for row in rows:
            assert row["index_low"] <= row["index"] <= row["index_high"]
            assert row["mean_loss_low"] <= row["mean_loss"] <= row["mean_loss_high"]
            assert row["mean_exit_layer"] is None
        assert rows[2]["index"] >= rows[0]["index"], "more samples never save less here"

    def test_sizes_fit_the_samples(self):
        assert sample_sizes(2000) == [50, 100, 200, 500, 1000]
        assert sample_sizes(30) == [15]
        assert sample_sizes(1) == [1]


@given(
    scale=st.floats(0.05, 0.9),
    seed=st.integers(0, 5),
    p_value=st.sampled_from(["hoeffding", "betting"]),
)
@settings(max_examples=30, deadline=None)
def test_where_everything_passed_the_named_delta_shows_a_choice(scale, seed, p_value):
    rng = np.random.default_rng(seed)
    losses = np.c_[np.zeros(400), scale * rng.random((400, 3)) * np.array([0.2, 0.5, 1.0])]
    ledger = Ledger(MatrixSource(THRESHOLDS[:4], losses, full_model=True))
    answer = calibrate(ledger, question(delta=0.95, p_value=p_value))
    assert answer.chosen == 3
    (note,) = needs(answer, ledger)
    finer = float(note.rpartition("--delta ")[2].rstrip("."))
    assert 0 < finer < 0.95
    assert calibrate(ledger, question(delta=finer, p_value=p_value)).chosen < 3
    # A choice says nothing of a delta.
    middle = calibrate(ledger, question(delta=finer, p_value=p_value))
    if middle.certified:
        assert needs(middle, ledger) == []


@given(mean=st.floats(0.02, 0.6), seed=st.integers(0, 5))
@settings(max_examples=30, deadline=None)
def test_where_nothing_passed_the_named_delta_certifies_the_first_threshold(mean, seed):
    rng = np.random.default_rng(seed)
    losses = np.c_[np.zeros(300), mean * (0.5 + rng.random(300))]
    ledger = Ledger(MatrixSource(THRESHOLDS[:2], np.clip(losses, 0, 1), full_model=True))
    delta = float(ledger.get(1).losses.mean()) * 0.9
    answer = calibrate(ledger, question(delta=delta))
    note = needs(answer, ledger)[-1]
    larger = float(note.rpartition("--delta ")[2].removesuffix(" would."))
    assert larger > delta
    assert calibrate(ledger, question(delta=larger)).chosen == 1


@pytest.mark.parametrize(
    ("value", "below", "above"),
    [
        (0.0095, 0.009, 0.01),
        (0.01, 0.009, 0.01),
        (0.011, 0.01, 0.012),
        (0.013, 0.012, 0.015),
        (0.017, 0.015, 0.02),
        (0.2, 0.15, 0.2),
        (0.95, 0.9, 1.0),
        (0.00034, 0.0003, 0.0004),
    ],
)
def test_a_suggested_delta_is_a_round_number(value, below, above):
    assert (_round(value, up=False), _round(value, up=True)) == (below, above)
