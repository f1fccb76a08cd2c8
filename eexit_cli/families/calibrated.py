"""``--threshold calibrated``: the threshold that was stored with the model."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

from eexit_cli.core.errors import UsageError
from eexit_cli.core.types import Examples
from eexit_cli.families.batches import texts_of
from eexit_cli.families.loading import folds_case
from eexit_cli.store.calibrations import (
    BESIDE_THRESHOLD,
    StoredCalibration,
    find,
    text_digest,
)
from eexit_cli.store.conditions import (
    TOKENIZER,
    not_noted,
    tokenizer_digest,
)

if TYPE_CHECKING:
    from eexit_cli.core.family import Model
    from eexit_cli.core.protocols import Progress

CALIBRATED = "calibrated"


def with_calibrated(
    config: Any,
    model: Model,
    *,
    task: str | None,
    prefix: str = "",
    progress: Progress | None = None,
) -> Any:
    """The configuration with the stored criterion in place of the word ``calibrated``.

    Args:
        config: with the attributes of ``config.common.ExitConfig``; returned as it is unless its
            ``threshold`` is a word.
        model: the model.
        task: the name of the task that the threshold is used on; None where there is none.
        prefix: what stands before each source of a decoder.
        progress: told what the stored threshold promises.

    Raises:
        MissingArtifactError: no calibration, or a stale one; the hint is the command to run.
        UsageError: another word than ``calibrated`` or ``calibrated:RUN``.
    """
    if not isinstance(config.threshold, str):
        return config
    stored = stored_for(config, model, task, prefix)
    if progress is not None:
        progress.message(_said(stored, conditions_of(model, prefix)))
    return model.with_stored(config, stored.settings)


def without_calibration_samples(
    examples: Examples,
    config: Any,
    model: Model,
    *,
    prefix: str = "",
    progress: Progress | None = None,
) -> Examples:
    """The samples that the stored threshold was not calibrated on: only those can test it.

    Args:
        config: as it was before :func:`with_calibrated`; with a number for a threshold all samples
            are kept.

    Raises:
        MissingArtifactError, UsageError: as :func:`with_calibrated`, or no sample is left.
    """
    if not isinstance(config.threshold, str):
        return examples
    seen = set(stored_for(config, model, examples.info.name, prefix).texts)
    texts, pairs = texts_of(examples)
    kept = [
        row
        for row, text in enumerate(texts)
        if text_digest(text, None if pairs is None else pairs[row]) not in seen
    ]
    if not kept:
        raise UsageError(
            "Every one of these samples was used to calibrate the threshold",
            hint="Evaluate on others: --split or --data-file, or calibrate on fewer (--limit)",
        )
    if len(kept) < len(texts) and progress is not None:
        progress.message(
            f"Left out {len(texts) - len(kept)} of {len(texts)} samples: "
            "the threshold was calibrated on them"
        )
    return dataclasses.replace(examples, dataset=examples.dataset.select(kept))


def conditions_of(model: Model, prefix: str = "") -> dict[str, Any]:
    """What a promise on this model holds for beside its weights; see ``store.conditions``.

    Args:
        prefix: what stands before each source of a decoder.
    """
    found = {
        "max_length": model.max_length,
        "dtype": str(model.dtype).removeprefix("torch."),
        "lower_case": folds_case(model.tokenizer),
        TOKENIZER: tokenizer_digest(model.folder),
    }
    return found | model.conditions(prefix)


def _said(stored: StoredCalibration, now: dict[str, Any]) -> str:
    """Which calibration it is, what it promises, and what of that nobody can check."""
    said = f"Calibrated in run {stored.run_id}. {stored.guarantee}"
    missing = not_noted(stored.conditions, now)
    if not missing:
        return said
    return (
        f"{said} That is an older calibration, which did not note its {', '.join(missing)}: "
        "whether the promise holds for those of now is not known; calibrate again to be sure."
    )


def stored_for(config: Any, model: Model, task: str | None, prefix: str) -> StoredCalibration:
    """The calibration that ``config.threshold`` names; errors as of :func:`with_calibrated`."""
    word, _, run = config.threshold.partition(":")
    if word != CALIBRATED:
        raise UsageError(
            f"Threshold '{config.threshold}' is no number",
            hint="Give a number, --threshold calibrated, or --threshold calibrated:RUN",
        )
    asked, runtimes = getattr(config, "runtime", None), getattr(model, "runtimes", ())
    if isinstance(asked, str) and runtimes and asked != runtimes[0]:
        raise UsageError(
            f"--threshold calibrated is a promise on one runtime, not on {' and '.join(runtimes)}",
            hint="Give --runtime one value beside it",
        )
    if getattr(config, "adaptive_threshold", None):
        raise UsageError(
            "--adaptive-threshold and --threshold calibrated exclude each other",
            hint="A threshold that moves with the data keeps no promise: give one of them",
        )
    data_file = getattr(config, "data_file", None)
    return find(
        model.ref,
        model.folder,
        task=task,
        data_options=None if data_file is None else f"--data-file {data_file}",
        confidence=None if config.confidence is None else model.measure(config.confidence),
        wanted={
            name: value
            for name in BESIDE_THRESHOLD
            if (value := getattr(config, name, None)) is not None
        },
        # A text that is typed in has no label that another name could change.
        conditions=conditions_of(model, prefix) | ({} if task is None else names_of(model)),
        run=run or None,
    )


def names_of(model: Model) -> dict[str, str]:
    """What a classifier's outputs are called, as a promise about labels notes it."""
    names = model.label_names
    return {} if names is None else {"label_names": ",".join(names)}
