"""Bounds on the mean loss of the threshold that was chosen: they hold after the choice."""

from __future__ import annotations

import math

import numpy as np
import pytest

from eexit_cli.calibration.bounds import upper_bound
from eexit_cli.calibration.engine import Answer, ask, calibrate
from eexit_cli.calibration.p_values import P_VALUES
from eexit_cli.calibration.report import Subject, bound_words, metrics
from eexit_cli.calibration.sources import Ledger, MatrixSource

DELTA, MEAN, EPSILON = 0.5, 0.48, 0.05
"""Every threshold's true mean loss is below delta: whatever is accepted keeps its promise."""
SAMPLES, COLUMNS, REPEATS, WANTED = 60, 10, 8_000, 300


def losses(rng: np.random.Generator, kind: str, shape: tuple[int, ...]) -> np.ndarray:
    if kind == "binary":
        return (rng.random(shape) < MEAN).astype(np.float64)
    # Nearly all of it close to 0 or 1: graded losses of a large variance.
    return rng.beta(0.1 * MEAN, 0.1 * (1 - MEAN), shape)


def accepted(name: str, kind: str) -> list[tuple[Answer, Ledger, Ledger]]:
    """Calibrations under Holm that accepted a threshold, each with test samples of its own."""
    rng = np.random.default_rng(7)
    drawn = losses(rng, kind, (SAMPLES, REPEATS, COLUMNS))
    asked = ask(delta=DELTA, epsilon=EPSILON, p_value=name, procedure="holm")
    p_values = asked.p_value.columns(drawn, DELTA)
    found = []
    for repeat in np.flatnonzero((p_values <= EPSILON / COLUMNS).any(axis=1))[:WANTED]:
        names = [str(column) for column in range(COLUMNS)]
        ledger = Ledger(MatrixSource(names, drawn[:, repeat]))
        test = Ledger(MatrixSource(names, losses(rng, kind, (SAMPLES, COLUMNS))))
        found.append((calibrate(ledger, asked, run_all=True), ledger, test))
    return found


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        *((name, kind) for name in ("hoeffding", "hoeffding-bentkus", "betting")
          for kind in ("binary", "graded")),
        ("binomial", "binary"),
    ],
)  # fmt: skip
def test_the_bound_holds_after_the_choice_and_one_from_the_calibration_samples_does_not(name, kind):
    cases = accepted(name, kind)
    assert len(cases) >= 40, "too few to tell"
    exceeded, former = 0, 0
    for answer, ledger, test in cases:
        assert answer.certified
        figures = metrics(answer, ledger, Subject(), test)
        assert figures["mean_loss_bound"] == DELTA
        assert figures["mean_loss_bound_level"] == 1 - EPSILON
        exceeded += figures["test_mean_loss_bound"] < MEAN
        column = ledger.get(answer.chosen).losses
        former += upper_bound(answer.question.p_value, column, EPSILON) < MEAN
    margin = 4 * math.sqrt(EPSILON * (1 - EPSILON) / len(cases))
    assert exceeded / len(cases) <= EPSILON + margin
    # What was called the bound before: right for a threshold fixed beforehand alone.
    assert former / len(cases) > EPSILON + margin


@pytest.mark.parametrize("name", sorted(P_VALUES))
def test_who_gives_no_guarantee_gives_no_bound(name):
    rng = np.random.default_rng(0)
    matrix = (rng.random((400, 3)) < [0.0, 0.02, 0.03]).astype(float)
    names = (1.0, 0.9, 0.8)
    ledger = Ledger(MatrixSource(names, matrix[:200], full_model=True))
    test = Ledger(MatrixSource(names, matrix[200:], full_model=True))
    asked = ask(delta=0.3, epsilon=EPSILON, p_value=name, procedure="fixed-sequence")
    answer = calibrate(ledger, asked)
    figures = metrics(answer, ledger, Subject(), test)
    assert answer.accepted
    given = P_VALUES.load(name).valid
    assert answer.certified == figures["certified"] == given
    for key in ("mean_loss_bound", "mean_loss_bound_level", "test_mean_loss_bound"):
        assert (key in figures) == given
    words = bound_words(figures)
    assert (words is not None) == given
    if words is not None:
        assert words.startswith("With probability at least 95 % over the draw of the 200 test")
        assert figures["test_mean_loss"] < figures["test_mean_loss_bound"] < 0.3
        shown = float(words.split()[-1].rstrip("."))
        assert figures["test_mean_loss_bound"] <= shown


def test_the_full_models_bound_is_zero_by_definition():
    matrix = np.c_[np.zeros(20), np.ones(20)]
    ledger = Ledger(MatrixSource((1.0, 0.5), matrix, full_model=True))
    asked = ask(delta=0.1, epsilon=EPSILON, p_value="hoeffding", procedure="fixed-sequence")
    figures = metrics(calibrate(ledger, asked), ledger, Subject(), ledger)
    assert figures["mean_loss_bound"] == figures["test_mean_loss_bound"] == 0
    assert bound_words(figures) is None


def test_a_bound_that_is_not_defined_for_the_test_losses_is_left_out():
    names = (1.0, 0.5)
    ledger = Ledger(MatrixSource(names, np.zeros((100, 2)), full_model=True))
    test = Ledger(MatrixSource(names, np.c_[np.zeros(5), np.full(5, 0.5)], full_model=True))
    asked = ask(delta=0.1, epsilon=EPSILON, p_value="binomial", procedure="fixed-sequence")
    figures = metrics(calibrate(ledger, asked), ledger, Subject(), test)
    assert figures["certified"]
    assert "test_mean_loss_bound" not in figures


def test_without_test_samples_delta_is_all_that_is_promised():
    ledger = Ledger(MatrixSource((1.0, 0.5), np.zeros((100, 2)), full_model=True))
    asked = ask(delta=0.1, epsilon=EPSILON, p_value="betting", procedure="fixed-sequence")
    figures = metrics(calibrate(ledger, asked), ledger, Subject())
    assert figures["mean_loss_bound"] == 0.1
    assert bound_words(figures) is None
