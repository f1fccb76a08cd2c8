"""A calibration in words and flat numbers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from eexit_cli.calibration.bounds import samples_needed, samples_needed_at, upper_bound
from eexit_cli.calibration.engine import Answer
from eexit_cli.calibration.sources import Ledger
from eexit_cli.core.digits import at_least, confidence, exact


@dataclass(frozen=True)
class Subject:
    """What is calibrated, in words.

    Attributes:
        knob: what the threshold is called ("entropy threshold", "patience", "threshold").
        loss: what the mean loss is ("the rate of answers that differ from the full model's").
        num_layers: L; None where nobody knows.
    """

    knob: str = "threshold"
    loss: str = "the mean loss"
    num_layers: int | None = None


def guarantee(answer: Answer, ledger: Ledger, subject: Subject) -> str:
    """The answer in one sentence."""
    question = answer.question
    thresholds = ledger.source.thresholds
    level, delta = confidence(question.epsilon), exact(question.delta)
    if answer.certified:
        assert answer.chosen is not None
        what = f"{subject.knob} {_number(thresholds[answer.chosen])}"
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
    if answer.chosen is not None:
        return (
            f"No early exit could be certified at delta {delta} with probability "
            f"{level}: the answer is the full model ({subject.knob} "
            f"{_number(thresholds[answer.chosen])}), whose loss is 0 by definition."
        )
    return (
        f"Nothing certified: at delta {delta} with probability {level} not even "
        f"the first threshold, {_number(thresholds[0])}, passes its test."
    )


def needs(answer: Answer, ledger: Ledger) -> list[str]:
    """What it would take, where nothing could be rejected."""
    if answer.certified:
        return []
    question = answer.question
    delta, epsilon = exact(question.delta), exact(question.epsilon)
    # In a procedure that divides epsilon, a single hypothesis gets only its part.
    hypotheses = len(ledger) - (1 if ledger.source.full_model else 0)
    level = question.procedure.level(question.epsilon, max(1, hypotheses), starts=question.starts)
    least = samples_needed(question.p_value, question.delta, level)
    notes = []
    if least is None:
        notes.append(
            f"No number of samples up to 10^12 can certify delta {delta} at epsilon "
            f"{epsilon} with '{question.p_value.name}'."
        )
    elif answer.samples < least:
        notes.append(
            f"delta {delta} and epsilon {epsilon} need at least {least} "
            f"samples with '{question.p_value.name}', even if every loss were 0; there are "
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
            f"samples, not below delta {delta}: more samples will not help, a larger delta may."
        )
    elif answer.samples >= (least or 0):
        more = samples_needed_at(question.p_value, losses, question.delta, level)
        if more is not None:
            notes.append(
                f"About {more} samples like these {answer.samples} would certify the first "
                f"threshold, {name} (mean loss {at_least(mean)})."
            )
    return notes


def metrics(
    answer: Answer, ledger: Ledger, subject: Subject, test: Ledger | None = None
) -> dict[str, Any]:
    """Flat names to numbers, of the accepted threshold and no other.

    Returns:
        ``delta``, ``epsilon``, ``samples``, ``certified``, ``samples_needed``, and, unless nothing
        is certified, ``threshold`` (where it is a number), ``threshold_index``, ``p_value``,
        ``mean_loss``, ``mean_loss_bound`` (holds with probability 1 - epsilon for this threshold
        taken alone), depth, and with ``test`` the same figures as ``test_*`` and
        ``test_within_delta``.
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
    column = ledger.get(answer.chosen)
    if answer.certified:
        figures["p_value"] = float(answer.p_values[answer.chosen])
        figures["mean_loss_bound"] = upper_bound(question.p_value, column.losses, question.epsilon)
    else:
        figures["mean_loss_bound"] = 0.0
    figures |= column_figures(ledger, answer.chosen, subject)
    if test is not None:
        figures |= {
            f"test_{name}": value
            for name, value in column_figures(test, answer.chosen, subject).items()
        }
        figures["test_samples"] = test.source.samples
        figures["test_within_delta"] = figures["test_mean_loss"] <= question.delta
    return figures


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
            "guarantee": test_of.valid,
            "promise": test_of.promise,
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


def _number(value: float | str) -> str:
    return value if isinstance(value, str) else exact(value)
