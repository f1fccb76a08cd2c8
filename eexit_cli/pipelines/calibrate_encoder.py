"""Calibration of encoder classifiers: one pass in all, every threshold replayed over its trace."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from eexit_cli.calibration import CONSISTENCIES
from eexit_cli.calibration.report import Subject
from eexit_cli.calibration.risks import Consistency, LossFunction, same_class
from eexit_cli.calibration.sources import Column
from eexit_cli.calibration.thresholds import (
    Scale,
    check_grid,
    confidence_scale,
    default_grid,
    entropy_scale,
    patience_scale,
)
from eexit_cli.confidence import MEASURES
from eexit_cli.config.calibrate import CalibrateConfig
from eexit_cli.config.evaluate import EvaluateConfig
from eexit_cli.core.catalog import unknown_name
from eexit_cli.core.errors import UsageError
from eexit_cli.core.stepping import replay
from eexit_cli.core.types import Decision, Examples, TaskInfo, Trace
from eexit_cli.data import TASKS, load_examples
from eexit_cli.metrics.task import compute
from eexit_cli.pipelines.calibrate_subjects import divide, shuffled
from eexit_cli.pipelines.exiting import DEFAULT_MEASURE, criterion_from
from eexit_cli.pipelines.loading import LoadedModel, load_model
from eexit_cli.pipelines.tracing import (
    check_fits,
    labels_of,
    model_label_names,
    record_trace,
    task_of,
    texts_of,
)
from eexit_cli.store.calibrations import text_digest, weights_digest

if TYPE_CHECKING:
    from eexit_cli.core.protocols import Progress

CALIBRATED = ("threshold", "patience")
"""Criteria with one number to calibrate."""

_CRITERION_OF_FAMILY = {"deebert": "threshold", "pabee": "patience"}


@dataclasses.dataclass(frozen=True)
class Knob:
    """What is turned: the criterion, its measure, and its thresholds from cautious to eager."""

    criterion: str
    confidence: str | None
    scale: Scale
    thresholds: tuple[float, ...]

    def settings(self, threshold: float) -> dict[str, Any]:
        """The criterion at a threshold, as ``exit_defaults`` writes it."""
        if self.criterion == "patience":
            return {"criterion": "patience", "patience": int(threshold)}
        return {
            "criterion": "threshold",
            "confidence": self.confidence,
            "threshold": threshold,
        }


def choose_knob(config: CalibrateConfig, loaded: LoadedModel) -> Knob:
    """The criterion that the options ask for, or else the model's own.

    Raises:
        UsageError: a criterion without a threshold to calibrate, options that contradict each
            other, a regression model, or thresholds that are out of range or order.
    """
    if loaded.num_classes == 1:
        raise UsageError(
            f"Model '{loaded.ref.name}' is a regression model: its losses have no bound",
            hint="Calibrate a classifier, or bring losses in [0, 1] of your own: --losses FILE",
        )
    defaults = loaded.exit_defaults
    family = str(loaded.model.config.family)
    own = str(defaults.get("criterion") or _CRITERION_OF_FAMILY[family])
    criterion = config.criterion or ("threshold" if config.confidence is not None else own)
    if criterion not in CALIBRATED:
        if config.criterion is not None:
            raise unknown_name("criterion to calibrate", criterion, CALIBRATED)
        raise UsageError(
            f"The model's own exit criterion, '{criterion}', has no threshold to calibrate",
            hint="Give --criterion threshold or --criterion patience",
        )
    if criterion == "patience":
        if config.confidence is not None:
            raise UsageError(
                "--confidence says nothing with --criterion patience", hint="Drop one of them"
            )
        scale, confidence = patience_scale(loaded.num_layers), None
    else:
        asked = config.confidence or str(defaults.get("confidence") or DEFAULT_MEASURE)
        measure = MEASURES.load(asked)
        confidence = measure.name
        scale = confidence_scale(confidence) if measure.rises else entropy_scale(loaded.num_classes)
    grid = check_grid(config.thresholds, scale) if config.thresholds else default_grid(scale)
    return Knob(criterion, confidence, scale, grid)


class TraceSource:
    """Losses of every threshold from one trace.

    Args:
        trace: a full pass over the samples, in the order in which they are to be looked at.
        knob: the thresholds.
        consistency: textual (the early class is the full model's) or risk (no worse than it).
    """

    full_model = True
    cheap = True

    def __init__(self, trace: Trace, knob: Knob, consistency: Consistency) -> None:
        self.trace = trace
        self.knob = knob
        full = replay(trace.logits, None).predictions.tolist()
        targets = None if trace.labels is None else trace.labels.tolist()
        self._losses = LossFunction(consistency, same_class, full, targets)

    @property
    def thresholds(self) -> Sequence[float | str]:
        return self.knob.thresholds

    @property
    def samples(self) -> int:
        return len(self.trace.ids)

    def decision(self, index: int) -> Decision:
        """Where every sample leaves at a threshold, and with what answer."""
        criterion = criterion_from(
            self.knob.settings(self.knob.thresholds[index]),
            num_layers=self.trace.num_exits,
            num_classes=int(self.trace.logits.shape[-1]),
        )
        return replay(self.trace.logits, criterion)

    def column(self, index: int) -> Column:
        decision = self.decision(index)
        return Column(
            losses=self._losses(decision.predictions.tolist()),
            exit_layers=decision.exit_layers.numpy().astype(np.float64),
        )


class EncoderCalibration:
    """A DeeBERT or PABEE classifier with its calibration and test samples.

    Calibration and test come from two splits where the task has one for calibration, else they
    are disjoint, seeded parts of one: the test split, as validation chose the model's defaults.
    """

    def __init__(self, config: CalibrateConfig, progress: Progress) -> None:
        self._loaded = load_model(config, progress=progress)
        self._config: CalibrateConfig = task_of(config, self._loaded)
        self._progress = progress
        self._consistency: Consistency = CONSISTENCIES.load(config.consistency)
        self.knob = choose_knob(config, self._loaded)
        examples = _examples(self._config, self._loaded, progress)
        self._examples = examples
        self._info: TaskInfo = examples["calibration"].info
        if self._consistency.needs_targets and labels_of(examples["calibration"]) is None:
            raise UsageError(
                f"Risk consistency needs labels, and '{self._info.name}' has none",
                hint="Use --consistency textual, or give --label-column",
            )
        self._sources = {
            part: TraceSource(
                record_trace(
                    self._loaded,
                    samples,
                    batch_size=config.batch_size,
                    progress=progress,
                    title=f"Full pass, {part}",
                ),
                self.knob,
                self._consistency,
            )
            for part, samples in examples.items()
        }

    @property
    def loaded(self) -> LoadedModel:
        return self._loaded

    @property
    def consistency(self) -> Consistency:
        return self._consistency

    @property
    def info(self) -> TaskInfo:
        return self._info

    @property
    def subject(self) -> Subject:
        return Subject(
            knob=self.knob.scale.knob,
            loss=_LOSS_WORDS[self._consistency.name],
            num_layers=self._loaded.num_layers,
        )

    @property
    def calibration(self) -> TraceSource:
        return self._sources["calibration"]

    @property
    def test(self) -> TraceSource | None:
        return self._sources.get("test")

    @property
    def ids(self) -> dict[str, Sequence[str]]:
        return {part: source.trace.ids for part, source in self._sources.items()}

    @property
    def described(self) -> dict[str, Any]:
        test = self._examples.get("test")
        return {
            "task": self._config.task,
            "calibration_split": self._examples["calibration"].split,
            "test_split": None if test is None else test.split,
            "criterion": self.knob.criterion,
            "confidence": self.knob.confidence,
            # Only generated texts have one.
            "metric": None,
        }

    def texts(self, part: str) -> list[str]:
        """The first texts of ``calibration`` or ``test``."""
        return list(self._examples[part].dataset["text"])

    def settings(self, index: int) -> dict[str, Any]:
        return self.knob.settings(self.knob.thresholds[index])

    def speed(self, index: int) -> dict[str, Any]:
        if self._config.latency_samples <= 0:
            self._progress.message("Wall-clock times not measured (--latency-samples 0)")
            return {}
        # A pipeline of its own already measures live exits against the full model.
        from eexit_cli.pipelines.evaluate import measure_speed

        criterion = criterion_from(
            self.settings(index),
            num_layers=self._loaded.num_layers,
            num_classes=self._loaded.num_classes,
        )
        samples = self._examples.get("test", self._examples["calibration"])
        timing = EvaluateConfig(
            latency_samples=self._config.latency_samples, batch_size=self._config.batch_size
        )
        return measure_speed(self._loaded, samples, criterion, timing, self._progress)

    def quality(self, index: int, part: str) -> float | None:
        source = self._sources.get(part)
        if source is None or source.trace.labels is None:
            return None
        predictions = source.decision(index).predictions.numpy()
        scores = compute(self._info, predictions, source.trace.labels.numpy())
        return scores[self._info.metrics[0]]

    def provenance(self) -> dict[str, Any]:
        texts, pairs = texts_of(self._examples["calibration"])
        return {
            "texts": [
                text_digest(text, None if pairs is None else pairs[row])
                for row, text in enumerate(texts)
            ],
            "ref": self._loaded.ref,
            "folder": self._loaded.folder,
            "weights": weights_digest(self._loaded.folder),
            "task": self._info.name,
        }


_LOSS_WORDS = {
    "textual": "the rate of answers that differ from the full model's",
    "risk": "the error rate's excess over the full model's (clipped at 0 per sample)",
}


def _examples(
    config: CalibrateConfig, loaded: LoadedModel, progress: Progress
) -> dict[str, Examples]:
    """``calibration`` and, unless it is empty, ``test``; both in a seeded order."""
    names = model_label_names(loaded)
    splits = _two_splits(config)
    if splits is not None and config.test_limit != 0:
        progress.message(f"Calibrating on the {splits[0]} split, testing on the {splits[1]} split")
        limits = (config.limit, config.test_limit)
        parts = [
            load_examples(
                dataclasses.replace(config, split=split, limit=limit),
                default_split=split,
                label_names=names,
                progress=progress,
            )
            for split, limit in zip(splits, limits, strict=True)
        ]
        for part, limit, flag in zip(parts, limits, ("--limit", "--test-limit"), strict=True):
            if limit is not None and limit > part.total:
                raise UsageError(
                    f"The {part.split} split of '{part.info.name}' has {part.total} samples, "
                    f"fewer than asked: {flag} {limit}",
                    hint=f"Give {flag} {part.total} or less",
                )
        chosen = {
            name: _take(part, shuffled(len(part), config.seed))
            for name, part in zip(("calibration", "test"), parts, strict=True)
        }
    else:
        default = splits[0] if splits is not None else _only_split(config)
        whole = load_examples(
            dataclasses.replace(config, limit=None),
            default_split=default,
            label_names=names,
            progress=progress,
        )
        parts_of = divide(
            len(whole),
            limit=config.limit,
            test_limit=config.test_limit,
            seed=config.seed,
            what=f"The {whole.split} split of '{whole.info.name}'",
        )
        chosen = {"calibration": _take(whole, parts_of.calibration)}
        if parts_of.test:
            chosen["test"] = _take(whole, parts_of.test)
    for part in chosen.values():
        check_fits(part.info, loaded)
    return chosen


def _take(examples: Examples, rows: Sequence[int]) -> Examples:
    return dataclasses.replace(examples, dataset=examples.dataset.select(list(rows)))


def _two_splits(config: CalibrateConfig) -> tuple[str, str] | None:
    """A split made to calibrate on, and one to test on; None where one must be divided."""
    if config.data_file is not None or config.split is not None or config.task is None:
        return None
    splits = _public_splits(config.task)
    return ("calibration", "test") if {"calibration", "test"} <= splits else None


def _only_split(config: CalibrateConfig) -> str:
    """What is divided: a file as a whole, or the last of a task's splits that has labels."""
    if config.data_file is not None or config.task is None:
        return "test"
    return "test" if "test" in _public_splits(config.task) else "validation"


def _public_splits(name: str) -> set[str]:
    """What people call the splits of a task whose labels are public."""
    task = TASKS.load(name)
    known = {split for split in task.splits if split not in task.hidden}
    return known | {said for said, split in task.renamed.items() if split in known}
