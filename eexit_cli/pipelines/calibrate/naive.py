"""Is calibration necessary? Calibrated thresholds beside naively searched ones, as in DL2-CALM."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from eexit_cli.calibration.engine import Answer
from eexit_cli.calibration.report import column_figures
from eexit_cli.calibration.sources import Ledger
from eexit_cli.core.errors import UsageError
from eexit_cli.pipelines.calibrate.subject import Calibratable

SHARES = (0.9, 0.95)
"""The naive search keeps this much of the full model's quality."""


def naive_choice(subject: Calibratable, ledger: Ledger, share: float) -> int:
    """The most eager threshold whose quality on the calibration samples is at least ``share`` of
    the full model's.

    Raises:
        UsageError: the samples have no labels to measure quality with.
    """
    full = subject.quality(0, "calibration")
    if full is None:
        raise UsageError(
            "A naive search needs labels", hint="Drop --compare-naive, or give --label-column"
        )
    kept = [
        index
        for index in ledger.known
        if (quality := subject.quality(index, "calibration")) is not None
        and quality >= share * full
    ]
    return max(kept, default=0)


def compare_naive(
    subject: Calibratable,
    ledger: Ledger,
    test: Ledger | None,
    answer: Answer,
    timed: Mapping[str, Any],
) -> list[dict[str, Any]]:
    """One row per way of choosing: the threshold, and what it does on calibration and test.

    Args:
        timed: the accepted threshold's speed, which needs no second measurement.

    Returns:
        ``choice``, ``guarantee``, ``threshold``, ``quality``, ``mean_loss``, depth, measured
        speedup where timing is on, and the same on the test samples as ``test_*``, with
        ``test_within_delta``.
    """
    choices: list[tuple[str, int | None, bool]] = [
        ("full model", 0, True),
        ("calibrated", answer.chosen, answer.question.guarantees),
        *(
            (f"keeps {100 * share:g} % of the quality", naive_choice(subject, ledger, share), False)
            for share in SHARES
        ),
    ]
    speeds = {} if answer.chosen is None else {answer.chosen: dict(timed)}
    rows = []
    for choice, index, promised in choices:
        if index is None:
            continue
        if index not in speeds:
            speeds[index] = subject.speed(index)
        row: dict[str, Any] = {
            "choice": choice,
            "guarantee": promised,
            "threshold": ledger.source.thresholds[index],
            "quality": subject.quality(index, "calibration"),
            **column_figures(ledger, index, subject.subject),
        }
        if test is not None:
            figures = column_figures(test, index, subject.subject)
            row |= {f"test_{name}": value for name, value in figures.items()}
            row["test_quality"] = subject.quality(index, "test")
            row["test_within_delta"] = figures["mean_loss"] <= answer.question.delta
        rows.append(row | {k: v for k, v in speeds[index].items() if k.startswith("speedup")})
    return rows
