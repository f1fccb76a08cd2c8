"""What can be calibrated: a model under a measure, or losses of anybody's, without torch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from eexit_cli.calibration.external import LossTable, falls, read_losses
from eexit_cli.calibration.report import Subject
from eexit_cli.calibration.sources import Column, LossSource, MatrixSource
from eexit_cli.config.calibrate import CalibrateConfig
from eexit_cli.core.digits import exact
from eexit_cli.core.errors import UsageError
from eexit_cli.pipelines.calibrate.samples import divide, parted
from eexit_cli.store.models import ModelRef

if TYPE_CHECKING:
    from eexit_cli.core.protocols import Progress


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


class ExternalLosses(Calibratable):
    """Losses from a file, one column per threshold, cautious to eager.

    Nothing is known about the thresholds but their order. Where no column is said to be the full
    model, none is: if the first cannot be certified, nothing is.
    """

    def __init__(self, config: CalibrateConfig, progress: Progress) -> None:
        assert config.losses is not None
        table = read_losses(config.losses, config.exit_layers, config.full_model)
        self.subject = Subject(num_layers=_num_layers(table, config.num_layers, progress))
        what = f"'{config.losses.name}'"
        parts = divide(
            len(table.losses),
            limit=config.limit,
            test_limit=config.test_limit,
            test_share=config.test_share,
            seed=config.seed,
            what=what,
            halves=False,
        )
        progress.message(parted(parts, len(table.losses), what))
        source = MatrixSource(
            table.thresholds, table.losses, table.exit_layers, full_model=table.full_model
        )
        self.calibration = source.rows(np.array(parts.calibration, dtype=np.int64))
        self.test = source.rows(np.array(parts.test, dtype=np.int64)) if parts.test else None
        self.ids = {
            "calibration": [table.ids[row] for row in parts.calibration],
            "test": [table.ids[row] for row in parts.test],
        }
        # The model's name would be read as "these are that model's losses"; the consistency and
        # the metric are whatever made them.
        self.described = {"model": None, "consistency": None, "metric": None}
        if not (table.full_model or table.exit_layers is not None) and falls(table.losses):
            first, last = table.thresholds[0], table.thresholds[-1]
            self.notes = [
                f"Mean losses fall from column '{first}' to column '{last}': the columns seem to "
                "run from eager to cautious. They are tested in the order of the file, which must "
                "be from cautious to eager."
            ]


def _num_layers(table: LossTable, given: float | None, progress: Progress) -> float | None:
    """The full depth as it is; depths averaged over tokens need not be whole."""
    if table.exit_layers is None:
        if given is not None:
            raise UsageError(
                "--num-layers says nothing without exit layers",
                hint="Add --exit-layers FILE, or columns exit_layer_<threshold>",
            )
        return None
    largest = float(table.exit_layers.max())
    if given is None:
        whose, depth = "the largest exit layer", largest
        if table.full_model:
            of_full = table.exit_layers[:, 0]
            # A mean of equal numbers is that number only up to rounding.
            same = bool((of_full == of_full[0]).all())
            whose, depth = "the full model's", float(of_full[0] if same else of_full.mean())
        progress.message(f"Taking {whose}, {exact(depth)}, as the full depth")
        return _whole(depth)
    if given < largest:
        raise UsageError(
            f"There are exit layers up to {exact(largest)}, above --num-layers {exact(given)}",
            hint=f"Give --num-layers {exact(largest)} or more",
        )
    return _whole(given)


def _whole(depth: float) -> float:
    return int(depth) if float(depth).is_integer() else depth
