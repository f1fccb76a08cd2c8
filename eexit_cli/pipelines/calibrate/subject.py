"""What can be calibrated: a model under a measure, or somebody's losses."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from eexit_cli.calibration.report import Subject
from eexit_cli.calibration.sources import Column, LossSource
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
