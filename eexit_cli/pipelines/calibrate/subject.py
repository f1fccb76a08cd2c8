"""What can be calibrated: a model under a measure, or somebody's losses."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from eexit_cli.calibration.report import Subject
from eexit_cli.calibration.sources import Column, LossSource
from eexit_cli.store.models import ModelRef

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


class Calibratable:
    """A prepared subject under one measure: its losses, and what only a model can tell beside.

    Attributes:
        subject: what is calibrated, in words.
        calibration: losses of the calibration samples, in a seeded order.
        test: losses of the test samples; None where there are none.
        ids: ``calibration`` and ``test``: the samples' ids in the order of the losses.
        described: what the run's configuration says beside the options: splits, task, criterion.
        measure: the confidence measure that is calibrated; None where there is none.
        notes: what a reader of the result should know beside it.
    """

    subject: Subject
    calibration: LossSource
    test: LossSource | None
    ids: Mapping[str, Sequence[str]]
    described: dict[str, Any]
    measure: str | None = None
    notes: Sequence[str] = ()

    def restore(self, part: str, columns: Mapping[int, Column]) -> None:
        """Take over what an interrupted run has of ``calibration`` or ``test``."""

    def settings(self, index: int) -> dict[str, Any] | None:
        """The exit criterion of a threshold, as ``exit_defaults`` writes it; None for losses."""
        return None

    def speed(self, index: int) -> dict[str, Any]:
        """Measured wall-clock of a threshold; empty where nothing can be run."""
        return {}

    def quality(self, index: int, part: str) -> float | None:
        """How good a threshold's answers are, higher is better, on ``calibration`` or ``test``:
        the task's leading metric for classes, the mean of ``metric`` for texts."""
        return None

    def provenance(self) -> Provenance | None:
        """What a stored threshold belongs to; None where nothing is stored."""
        return None
