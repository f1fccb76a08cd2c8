"""A calibration in words and flat numbers."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from eexit_cli.calibration.bounds import samples_needed, samples_needed_at, upper_bound
from eexit_cli.calibration.engine import Answer, Question
from eexit_cli.calibration.losses import FloatArray
from eexit_cli.calibration.sources import Ledger
from eexit_cli.core.digits import at_least, confidence, exact


@dataclass(frozen=True)
class Subject:
    """What is calibrated, in words.

    Attributes:
        knob: what the threshold is called ("entropy threshold", "patience", "threshold").
        loss: what the mean loss is ("the rate of answers that differ from the full model's").
        num_layers: L, whole but for losses that somebody else made; None where nobody knows.
    """

    knob: str = "threshold"
    loss: str = "the mean loss"
    num_layers: float | None = None


def guarantee(answer: Answer, ledger: Ledger, subject: Subject) -> str:
    """The answer in one sentence."""
    question = answer.question
    thresholds = ledger.source.thresholds
    level, delta = confidence(question.epsilon), exact(question.delta)
    if answer.accepted:
        assert answer.chosen is not None
        what = f"{subject.knob} {_number(thresholds[answer.chosen])}"
        if question.void:
            return f"Accepted {what}, without a guarantee: {question.void}."
        if not question.guarantees:
            return (
                f"Accepted {what}, without a guarantee: the promise of '{question.p_value.name}' "
                f"is weaker ({question.p_value.promise})."
            )
        return (
            f"With probability at least {level} over the draw of the {answer.samples} "
            f"calibration samples, {what} keeps {subject.loss} at or below {delta} "
            "on new samples like them."
        )
    weaker = f"with '{question.p_value.name}', which gives no guarantee"
    if question.void:
        weaker = f"(no guarantee either way: {question.void})"
    how = f"with probability {level}" if question.guarantees else weaker
    done = "certified" if question.guarantees else "accepted"
    if answer.chosen is not None:
        return (
            f"No early exit could be {done} at delta {delta} {how}: the answer is the full model "
            f"({subject.knob} {_number(thresholds[answer.chosen])}), whose loss is 0 by definition."
        )
    return (
        f"Nothing {done}: at delta {delta} {how}, not even the first threshold, "
        f"{_number(thresholds[0])}, passes its test."
    )


def needs(answer: Answer, ledger: Ledger) -> list[str]:
    """What it would take, where nothing could be certified, or where everything was."""
    if answer.certified:
        return _finer(answer, ledger)
    question = answer.question
    if answer.accepted and question.void:
        return ["Samples that the model was not trained on give a guarantee."]
    if answer.accepted:
        return [f"'{question.p_value.name}' gives no guarantee; --p-value hoeffding-bentkus does."]
    certify = "certify" if question.guarantees else "accept"
    delta = exact(question.delta)
    asked = f"delta {delta}"
    if question.guarantees:
        asked += f" and epsilon {exact(question.epsilon)}"
    level = _level(question, ledger)
    least = samples_needed(question.p_value, question.delta, level)
    notes = []
    if least is None:
        notes.append(
            f"No number of samples up to 10^12 can {certify} {asked} with "
            f"'{question.p_value.name}'."
        )
    elif answer.samples < least:
        notes.append(
            f"{asked} need{'' if question.guarantees else 's'} at least {least} samples with "
            f"'{question.p_value.name}', even if every loss were 0; there are "
            f"{answer.samples}."
        )
    first = 1 if ledger.source.full_model else 0
    if first >= len(ledger):
        return notes
    losses = ledger.get(first).losses
    mean = float(losses.mean())
    name = _number(ledger.source.thresholds[first])
    if mean >= question.delta:
        notes.append(
            f"The first threshold, {name}, already has a mean loss of {at_least(mean)} on these "
            f"samples, not below delta {delta}: more samples will not help"
            f"{_larger(question, losses, level)}."
        )
    elif answer.samples >= (least or 0):
        more = samples_needed_at(question.p_value, losses, question.delta, level)
        if more is not None:
            notes.append(
                f"About {more} samples like these {answer.samples} would {certify} the first "
                f"threshold, {name} (mean loss {at_least(mean)})."
            )
    return notes


def _level(question: Question, ledger: Ledger) -> float:
    """Of one threshold's test: in a procedure that divides epsilon it gets only its part."""
    hypotheses = len(ledger) - (1 if ledger.source.full_model else 0)
    return question.procedure.level(question.epsilon, max(1, hypotheses), starts=question.starts)


def _larger(question: Question, losses: FloatArray, level: float) -> str:
    """The smallest round delta at which these losses would pass."""
    bound = upper_bound(question.p_value, losses, level)
    larger = _round(bound, up=True)
    return f", --delta {exact(larger)} would" if larger < 1 else ", nor would a larger delta"


def _finer(answer: Answer, ledger: Ledger) -> list[str]:
    """Where every threshold passed: the delta from which on there would be a choice."""
    question, last = answer.question, len(ledger) - 1
    if answer.chosen != last or not answer.rejected.all():
        return []
    bound = upper_bound(question.p_value, ledger.get(last).losses, _level(question, ledger))
    finer = _round(bound, up=False)
    return [
        f"Every threshold passed, the most eager one too: at delta {exact(question.delta)} there "
        f"is nothing to choose. A smaller delta tells more, such as --delta {exact(finer)}."
    ]


def _round(value: float, *, up: bool) -> float:
    """The next number of one digit, or of two from 1 to 2: above, or below."""
    scale = 10.0 ** math.floor(math.log10(value))
    steps = [0.9, 1, 1.2, 1.5, 2, 3, 4, 5, 6, 7, 8, 9, 10]
    rounded = [float(f"{step * scale:.6g}") for step in steps]
    return min(s for s in rounded if s >= value) if up else max(s for s in rounded if s < value)


def metrics(
    answer: Answer, ledger: Ledger, subject: Subject, test: Ledger | None = None
) -> dict[str, Any]:
    """Flat names to numbers, of the accepted threshold and no other.

    Returns:
        ``delta``, ``epsilon``, ``samples``, ``certified``, ``samples_needed``, and, unless nothing
        is accepted, ``threshold`` (where it is a number), ``threshold_index``, ``p_value``,
        ``mean_loss``, depth, and with ``test`` the same figures as ``test_*`` and
        ``test_within_delta``. Where a guarantee is given also ``mean_loss_bound`` and, with
        ``test``, ``test_mean_loss_bound``; each holds with probability
        ``mean_loss_bound_level``, 1 - epsilon, for the threshold that was chosen.

    A bound made from the calibration samples would hold for a threshold fixed beforehand and not
    for the accepted one, which was chosen because its mean was low on them: they promise delta and
    nothing finer. The test samples took no part in the choice. Given it, they are as good as drawn
    afterwards, and the p-value inverted on them is a bound at its full level.
    """
    question = answer.question
    figures: dict[str, Any] = {
        "delta": question.delta,
        "epsilon": question.epsilon,
        "samples": answer.samples,
        "certified": answer.certified,
        "samples_needed": samples_needed(question.p_value, question.delta, question.epsilon),
    }
    if subject.num_layers is not None:
        figures["num_layers"] = subject.num_layers
    if answer.chosen is None:
        return figures
    threshold = ledger.source.thresholds[answer.chosen]
    if isinstance(threshold, (int, float)):
        figures["threshold"] = threshold
    figures["threshold_index"] = answer.chosen
    if answer.accepted:
        figures["p_value"] = float(answer.p_values[answer.chosen])
    if answer.certified or not answer.accepted:
        # The full model's loss is 0 by definition.
        figures["mean_loss_bound"] = question.delta if answer.accepted else 0.0
        figures["mean_loss_bound_level"] = 1 - question.epsilon
    figures |= column_figures(ledger, answer.chosen, subject)
    if test is not None:
        figures |= {
            f"test_{name}": value
            for name, value in column_figures(test, answer.chosen, subject).items()
        }
        figures["test_samples"] = test.source.samples
        figures["test_within_delta"] = figures["test_mean_loss"] <= question.delta
        bound = bound_after(answer, test.get(answer.chosen).losses)
        if bound is not None:
            figures["test_mean_loss_bound"] = bound
    return figures


def bound_after(answer: Answer, losses: FloatArray) -> float | None:
    """A bound on the accepted threshold's mean loss, at level 1 - epsilon.

    Args:
        losses: of samples that took no part in the choice. Shape: [samples].

    Returns:
        None where the p-value gives no guarantee, or is not defined for these losses.
    """
    question = answer.question
    if not answer.accepted:
        return 0.0
    if not question.guarantees or not question.p_value.applies(losses):
        return None
    return upper_bound(question.p_value, losses, question.epsilon)


def bound_words(figures: Mapping[str, Any]) -> str | None:
    """The bound from the test samples in one sentence; None where there is none.

    Args:
        figures: see :func:`metrics`.
    """
    if not figures["certified"] or "test_mean_loss_bound" not in figures:
        return None
    return (
        f"With probability at least {confidence(figures['epsilon'])} over the draw of the "
        f"{figures['test_samples']} test samples, which took no part in the choice, its mean loss "
        f"on new samples like them is at most {at_least(figures['test_mean_loss_bound'])}."
    )


def column_figures(ledger: Ledger, index: int, subject: Subject) -> dict[str, float]:
    """Mean loss and depth of one threshold."""
    column = ledger.get(index)
    figures = {"mean_loss": float(column.losses.mean())}
    mean = column.mean_exit_layer
    if mean is not None:
        figures["mean_exit_layer"] = mean
        if subject.num_layers is not None:
            figures["speedup_layers"] = subject.num_layers / mean
            figures["saved_layers"] = 1 - mean / subject.num_layers
            figures["cost_layers"] = mean / subject.num_layers
    return figures


def threshold_rows(
    answer: Answer, ledger: Ledger, subject: Subject, test: Ledger | None = None
) -> list[dict[str, Any]]:
    """One row per threshold that was run, cautious to eager."""
    rows = []
    for index in ledger.known:
        p = float(answer.p_values[index])
        row: dict[str, Any] = {
            "index": index,
            "threshold": ledger.source.thresholds[index],
            **column_figures(ledger, index, subject),
            "p_value": p if p == p else None,
            "rejected": bool(answer.rejected[index]),
            "chosen": index == answer.chosen,
        }
        if test is not None and index in test.known:
            row |= {
                f"test_{name}": value
                for name, value in column_figures(test, index, subject).items()
            }
        rows.append(row)
    return rows


def alternative_rows(
    answers: Sequence[Answer], ledger: Ledger, subject: Subject, test: Ledger | None = None
) -> list[dict[str, Any]]:
    """What each p-value would have given.

    ``at_least`` is True where the thresholds that were run ended before the procedure did.
    """
    rows = []
    for answer in answers:
        test_of = answer.question.p_value
        row: dict[str, Any] = {
            "p_value": test_of.name,
            "guarantee": answer.question.guarantees,
            "promise": answer.question.void or test_of.promise,
            "threshold": None,
            "certified": answer.certified,
            "at_least": not answer.complete,
        }
        if answer.chosen is not None:
            row["threshold"] = ledger.source.thresholds[answer.chosen]
            row |= column_figures(ledger, answer.chosen, subject)
            if test is not None and (test.source.cheap or answer.chosen in test.known):
                row |= {
                    f"test_{name}": value
                    for name, value in column_figures(test, answer.chosen, subject).items()
                }
        rows.append(row)
    return rows


def alternatives_note(rows: Sequence[Mapping[str, Any]]) -> str | None:
    """What :func:`alternative_rows` do not promise, where several rows promise something."""
    if sum(row["guarantee"] for row in rows) < 2:
        return None
    return (
        "Each p-value's guarantee holds for itself, named beforehand: it does not cover choosing "
        "the most eager of these thresholds afterwards."
    )


def _number(value: float | str) -> str:
    return value if isinstance(value, str) else exact(value)
