"""``--threshold calibrated``: the threshold that was stored with the model."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

from eexit_cli.confidence import MEASURES
from eexit_cli.core.errors import UsageError
from eexit_cli.store.calibrations import StoredCalibration, find

if TYPE_CHECKING:
    from eexit_cli.core.protocols import Progress
    from eexit_cli.pipelines.loading import LoadedModel

CALIBRATED = "calibrated"


def with_calibrated(
    config: Any, loaded: LoadedModel, *, task: str | None, progress: Progress | None = None
) -> Any:
    """The configuration with the stored criterion in place of the word.

    Args:
        config: with the attributes of ``config.common.ExitConfig``; returned as it is unless its
            ``threshold`` is ``"calibrated"``.
        loaded: the model.
        task: the name of the task that the threshold is used on; None where there is none.
        progress: told what the stored threshold promises.

    Raises:
        MissingArtifactError: no calibration, or a stale one; the hint is the command to run.
        UsageError: another word than ``calibrated``.
    """
    if not isinstance(config.threshold, str):
        return config
    if config.threshold != CALIBRATED:
        raise UsageError(
            f"Threshold '{config.threshold}' is no number",
            hint="Give a number, or --threshold calibrated",
        )
    confidence = None if config.confidence is None else MEASURES.canonical(config.confidence)
    data_file = getattr(config, "data_file", None)
    stored: StoredCalibration = find(
        loaded.ref,
        loaded.folder,
        task=task,
        data_options=None if data_file is None else f"--data-file {data_file}",
        confidence=confidence,
    )
    if progress is not None:
        progress.message(f"Calibrated in run {stored.run_id}. {stored.guarantee}")
    settings = stored.settings
    return dataclasses.replace(
        config,
        threshold=settings.get("threshold"),
        patience=settings.get("patience"),
        confidence=settings.get("confidence"),
    )
