"""What can be calibrated: a family of models, or somebody's losses."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from eexit_cli.calibration.report import Subject
from eexit_cli.calibration.sources import Column, LossSource
from eexit_cli.core.errors import UsageError
from eexit_cli.core.seed import stream
from eexit_cli.store.models import ModelRef

Records = Sequence[Mapping[str, Any]]
FULL_SPEED = {"speedup_seconds": 1.0}
"""The full model against itself: nothing to measure."""


@dataclass(frozen=True)
class Provenance:
    """What a stored threshold belongs to.

    Attributes:
        ref: what ``--model`` meant.
        folder: the model's files.
        weights: their digest.
        task: where the calibration samples came from.
        texts: digests of the calibration samples, which must not test the threshold.
        metric: what makes a generated text good; None for classes.
        conditions: what else the promise holds for; see ``store.calibrations``.
    """

    ref: ModelRef
    folder: Path
    weights: str
    task: str
    texts: Sequence[str]
    metric: str | None = None
    conditions: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Parts:
    """Rows of one source for calibration and, disjoint from it, for testing."""

    calibration: list[int]
    test: list[int]


class Calibratable(Protocol):
    """A prepared subject under one measure: its losses, and what only its family can measure."""

    @property
    def measure(self) -> str | None:
        """The confidence measure that is calibrated; None where there is none."""
        ...

    @property
    def subject(self) -> Subject: ...

    @property
    def calibration(self) -> LossSource:
        """Losses of the calibration samples, in a seeded order."""
        ...

    @property
    def test(self) -> LossSource | None:
        """Losses of the test samples; None where there are none."""
        ...

    @property
    def ids(self) -> dict[str, Sequence[str]]:
        """``calibration`` and ``test``: the samples' ids in the order of the losses."""
        ...

    @property
    def described(self) -> dict[str, Any]:
        """What the run's configuration says beside the options: splits, task, criterion."""
        ...

    @property
    def notes(self) -> list[str]:
        """What a reader of the result should know beside it."""
        ...

    def restore(self, part: str, columns: Mapping[int, Column]) -> None:
        """Take over what an interrupted run has of ``calibration`` or ``test``."""
        ...

    def settings(self, index: int) -> dict[str, Any] | None:
        """The exit criterion of a threshold, as ``exit_defaults`` writes it; None for losses."""
        ...

    def speed(self, index: int) -> dict[str, Any]:
        """Measured wall-clock of a threshold; empty where nothing can be run."""
        ...

    def quality(self, index: int, part: str) -> float | None:
        """How good a threshold's answers are, higher is better, on ``calibration`` or ``test``:
        the task's leading metric for classes, the mean of ``metric`` for texts."""
        ...

    def provenance(self) -> Provenance | None:
        """What a stored threshold belongs to; None where nothing is stored."""
        ...


class Attackable(Calibratable, Protocol):
    """A model: an attacker's texts can be run through it."""

    def inputs(self, part: str) -> list[tuple[str, str | None]]:
        """The texts of ``calibration`` or ``test``, each with the second one of a pair."""
        ...

    def of_records(self, records: Records, key: str, title: str) -> LossSource:
        """Losses of an attack's texts, as they were (``text``) or became (``perturbed_text``),
        both texts of a pair.

        Args:
            records: an attack run's; see ``pipelines.attack.run``.
            key: the column with the text.
            title: what is shown while they run.

        Raises:
            UsageError: records of another kind of model, or without what the consistency needs.
        """
        ...


def divide(
    total: int,
    *,
    limit: int | None,
    test_limit: int | None,
    test_share: float | None,
    seed: int,
    what: str,
    halves: bool,
) -> Parts:
    """Disjoint calibration and test rows of one source, drawn by the seed.

    Args:
        total: rows that there are.
        limit: calibration rows; None or 0 is all that the test leaves.
        test_limit: test rows; 0 is none.
        test_share: test rows as a share of all.
        what: the source, for the error message.
        halves: where nobody says anything, half of the rows test; else none of them does.

    Raises:
        UsageError: there are fewer rows than asked.
    """
    tests = test_limit if test_share is None else round(test_share * total)
    count = limit or 0
    if tests is None:
        nobody_says = total // 2 if halves else 0
        tests = total - count if count else nobody_says
    count = count or total - tests
    if count < 1 or tests < 0 or count + tests > total:
        asked = f"{limit or 'no'} calibration" + (f" and {tests} test" if tests > 0 else "")
        raise UsageError(
            f"{what} has {total} samples, fewer than asked: {asked}",
            hint="Lower --limit, --test-limit or --test-share; --test-limit 0 goes without a test",
        )
    order = list(range(total))
    # The order of --limit (data.loading): an attack or an evaluation of the first N samples with
    # the same seed then finds test samples, as calibration takes from the other end.
    stream(seed, "data.limit").shuffle(order)
    return Parts(order[::-1][:count], order[:tests])


def parted(parts: Parts, total: int, what: str) -> str:
    """Which rows do what, in a line."""
    count, tests = len(parts.calibration), len(parts.test)
    if not tests:
        how = f"all {total}" if count == total else f"{count} of {total}"
        return (
            f"Calibrating on {how} samples of {what}; none tests (--test-share X sets some aside)"
        )
    if count + tests == total and count - tests in (0, 1):
        return (
            f"Calibrating on one half of {what}, {count} samples, testing on the other, {tests}: "
            "no sample is in both"
        )
    return (
        f"Calibrating on {count} of {total} samples of {what}, testing on {tests} others: "
        "no sample is in both"
    )


def shuffled(total: int, seed: int) -> list[int]:
    """All rows in a seeded order: betting looks at samples one by one."""
    order = list(range(total))
    stream(seed, "calibration.order").shuffle(order)
    return order
