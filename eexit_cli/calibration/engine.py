"""Learn then Test over thresholds (arXiv:2110.01052, arXiv:2207.07061 appendix E).

The engine asks for one threshold's losses at a time, cautious to eager, and a fixed sequence
stops at its first failure.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from eexit_cli.calibration import PROCEDURES
from eexit_cli.calibration.losses import check_delta
from eexit_cli.calibration.p_values import P_VALUES
from eexit_cli.calibration.p_values.base import PValue
from eexit_cli.calibration.sources import Ledger
from eexit_cli.calibration.testing import Procedure, last_rejected
from eexit_cli.core.errors import UsageError

DEFAULT_STARTS = 5


@dataclass(frozen=True)
class Question:
    """What is to be guaranteed, and how it is tested.

    Attributes:
        delta: the tolerated risk, in (0, 1).
        epsilon: the tolerated probability that the risk is above delta all the same, in (0, 1).
        p_value: how one threshold is tested.
        procedure: how many are tested together.
        starts: starting points of a fixed sequence with several.
        void: why no test can promise anything on these samples; empty where one can.
    """

    delta: float
    epsilon: float
    p_value: PValue
    procedure: Procedure
    starts: int = 1
    void: str = ""

    @property
    def guarantees(self) -> bool:
        """The answer carries the promise P(risk <= delta) >= 1 - epsilon."""
        return self.p_value.valid and not self.void


def ask(
    *, delta: float, epsilon: float, p_value: str, procedure: str, starts: int | None = None
) -> Question:
    """A question from the names and numbers of the command line.

    Raises:
        UsageError: an unknown name, delta or epsilon outside (0, 1), or starting points for a
            procedure that has none.
    """
    check_delta(delta)
    check_delta(epsilon, "epsilon")
    test: PValue = P_VALUES.load(p_value)
    how: Procedure = PROCEDURES.load(procedure)
    if starts is not None and not how.starts:
        raise UsageError(
            f"--starts says nothing with the procedure '{how.name}'",
            hint="Add --procedure fixed-sequence-starts",
        )
    if starts is not None and starts < 1:
        raise UsageError(f"{starts} starting points", hint="Give --starts 1 or more")
    return Question(delta, epsilon, test, how, starts or (DEFAULT_STARTS if how.starts else 1))


@dataclass(frozen=True)
class Answer:
    """What a calibration found.

    Attributes:
        question: what was asked.
        samples: n.
        chosen: index of the accepted threshold; the full model's where nothing else could be
            rejected; None where there is no full model either: nothing certified.
        rejected: which thresholds hold, the full model among them. Shape: [thresholds].
        p_values: NaN for those that were not run. Shape: [thresholds].
        failed: index of the threshold at which a fixed sequence stopped; None otherwise.
        complete: False where the run thresholds ended before the procedure did, so that the
            answer might be more eager.
    """

    question: Question
    samples: int
    chosen: int | None
    rejected: NDArray[np.bool_]
    p_values: NDArray[np.float64]
    failed: int | None
    complete: bool = True

    @property
    def accepted(self) -> bool:
        """A test accepted the chosen threshold: it is neither nothing nor just the full model."""
        return self.chosen is not None and bool(np.isfinite(self.p_values[self.chosen]))

    @property
    def certified(self) -> bool:
        """A test that gives a guarantee accepted it."""
        return self.accepted and self.question.guarantees


def calibrate(ledger: Ledger, question: Question, *, run_all: bool = False) -> Answer:
    """Find the most eager threshold whose risk is at most delta, with probability 1 - epsilon.

    The full model, where the source has one, is not tested: its loss is 0 by definition, so it
    holds with certainty, costs Bonferroni and Holm nothing, and is the answer when nothing else
    is rejected.

    Args:
        ledger: the calibration samples' losses, in a seeded order.
        question: what to guarantee.
        run_all: run every threshold, for curves, also past a failure.

    Raises:
        UsageError: losses outside [0, 1], or not of the kind that the p-value is defined for.
    """
    first = 1 if ledger.source.full_model else 0
    count = len(ledger)
    lazy = question.procedure.sequential and not question.procedure.starts and not run_all
    p_values = np.full(count, np.nan)
    if ledger.source.full_model:
        ledger.get(0)
    for index in range(first, count):
        p_values[index] = _p_value(ledger, question, index)
        if lazy and p_values[index] > question.epsilon:
            break
    return _decide(ledger, question, p_values, first)


def among_known(ledger: Ledger, question: Question) -> Answer:
    """What a question's answer is on the thresholds that have been run, running no other.

    ``complete`` is False where the answer might be more eager had more been run.
    """
    first = 1 if ledger.source.full_model else 0
    p_values = np.full(len(ledger), np.nan)
    for index in ledger.known:
        if index >= first:
            p_values[index] = _p_value(ledger, question, index)
    return _decide(ledger, question, p_values, first)


def _p_value(ledger: Ledger, question: Question, index: int) -> float:
    losses = ledger.get(index).losses[:, None]
    question.p_value.require_applicable(losses)
    return float(question.p_value.columns(losses, question.delta)[0])


def _decide(
    ledger: Ledger, question: Question, p_values: NDArray[np.float64], first: int
) -> Answer:
    # What was not run is not rejected: p = 1.
    tested = np.where(np.isnan(p_values), 1.0, p_values)[first:]
    rejected = np.zeros(len(ledger), dtype=bool)
    if tested.size:
        rejected[first:] = question.procedure.reject(
            tested, question.epsilon, starts=question.starts
        )
    rejected[:first] = True
    failed = None
    complete = not np.isnan(p_values[first:]).any()
    if question.procedure.sequential and not question.procedure.starts:
        failures = np.flatnonzero(~rejected)
        if failures.size:
            failed = int(failures[0])
            complete = not np.isnan(p_values[failed])
            failed = failed if complete else None
    return Answer(
        question=question,
        samples=ledger.source.samples,
        chosen=last_rejected(rejected),
        rejected=rejected,
        p_values=p_values,
        failed=failed,
        complete=complete,
    )


def alternatives(ledger: Ledger, question: Question) -> list[Answer]:
    """The same question under every p-value that is defined for these losses.

    Runs further thresholds only where they cost nothing.
    """
    indices = range(len(ledger)) if ledger.source.cheap else ledger.known
    answers = []
    test: PValue
    for _, test in P_VALUES.working():
        if test.binary_only and not all(test.applies(ledger.get(i).losses) for i in indices):
            continue
        other = replace(question, p_value=test)
        cheap = ledger.source.cheap
        answers.append(calibrate(ledger, other) if cheap else among_known(ledger, other))
    return answers
