"""Calibration of encoder classifiers: one pass in all, every threshold replayed over its trace."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from eexit_cli.calibration import CONSISTENCIES
from eexit_cli.calibration.report import Subject
from eexit_cli.calibration.risks import Consistency, LossFunction, same_class
from eexit_cli.calibration.sources import Column
from eexit_cli.calibration.thresholds import (
    Scale,
    confidence_scale,
    entropy_scale,
    patience_scale,
)
from eexit_cli.confidence import MEASURES
from eexit_cli.config.calibrate import CalibrateConfig
from eexit_cli.config.field import ENCODER, refuse_unread
from eexit_cli.core.catalog import unknown_name
from eexit_cli.core.errors import UsageError
from eexit_cli.core.stepping import replay
from eexit_cli.core.types import Decision, Examples, TaskInfo, Trace
from eexit_cli.families.batches import labels_of, texts_of
from eexit_cli.families.calibrated import conditions_of, names_of
from eexit_cli.families.class_names import warn_below_chance
from eexit_cli.families.encoder.exits import DEFAULT_MEASURE, criterion_from
from eexit_cli.families.encoder.model import EncoderModel, load_model
from eexit_cli.metrics.latency import NOT_TIMED
from eexit_cli.metrics.task import compute
from eexit_cli.pipelines.attack.records import as_examples
from eexit_cli.pipelines.calibrate.options import distinct, grid_of, measures_of
from eexit_cli.pipelines.calibrate.samples import calibration_examples
from eexit_cli.pipelines.calibrate.subject import FULL_SPEED, Provenance, Records
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


def choose_knobs(config: CalibrateConfig, loaded: EncoderModel) -> list[Knob]:
    """The criterion that the options ask for, one for each measure, or else the model's own.

    Raises:
        UsageError: a criterion without a threshold to calibrate, options that contradict each
            other or are for decoders, a regression model, or thresholds that are out of range or
            order.
    """
    if loaded.num_classes == 1:
        raise UsageError(
            f"Model '{loaded.ref.name}' is a regression model: its losses have no bound",
            hint="Calibrate a classifier, or bring losses in [0, 1] of your own: --losses FILE",
        )
    refuse_unread(config, ENCODER, model=loaded.ref.name)
    defaults = loaded.exit_defaults
    family = str(loaded.model.config.family)
    own = str(defaults.get("criterion") or _CRITERION_OF_FAMILY[family])
    asked = measures_of(config)
    criterion = config.criterion or ("threshold" if asked else own)
    if criterion not in CALIBRATED:
        if config.criterion is not None:
            raise unknown_name("criterion to calibrate", criterion, CALIBRATED)
        raise UsageError(
            f"The model's own exit criterion, '{criterion}', has no threshold to calibrate",
            hint="Give --criterion threshold or --criterion patience",
        )
    if criterion == "patience":
        if asked:
            raise UsageError(
                "--confidence says nothing with --criterion patience", hint="Drop one of them"
            )
        scale = patience_scale(loaded.num_layers)
        return [Knob(criterion, None, scale, grid_of(config, scale))]
    names = asked or (str(defaults.get("confidence") or DEFAULT_MEASURE),)
    knobs = []
    for name in distinct([MEASURES.canonical(name) for name in names]):
        measure = MEASURES.load(name)
        scale = confidence_scale(name) if measure.rises else entropy_scale(loaded.num_classes)
        knobs.append(Knob(criterion, name, scale, grid_of(config, scale)))
    return knobs


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


class EncoderSamples:
    """A DeeBERT or PABEE classifier with its samples: one pass in all, for every measure."""

    def __init__(self, config: CalibrateConfig, progress: Progress) -> None:
        self.loaded: EncoderModel = load_model(config, progress=progress)
        self.config: CalibrateConfig = self.loaded.own_data(config, progress)
        self.progress = progress
        self.consistency: Consistency = CONSISTENCIES.load(config.consistency)
        self.knobs = choose_knobs(config, self.loaded)
        self.examples = calibration_examples(self.config, self._load, progress)
        self.info: TaskInfo = self.examples["calibration"].info
        if self.consistency.needs_targets and labels_of(self.examples["calibration"]) is None:
            raise UsageError(
                f"Risk consistency needs labels, and '{self.info.name}' has none",
                hint="Use --consistency textual, or give --label-column",
            )
        self.traces = {
            part: self.trace(samples, f"Full pass, {part}")
            for part, samples in self.examples.items()
        }
        trace = self.traces["calibration"]
        if trace.labels is not None:
            full = replay(trace.logits, None).predictions.numpy()
            warn_below_chance(self.info.label_names, full, trace.labels.numpy(), progress)

    def _load(self, config: CalibrateConfig, default_split: str) -> Examples:
        return self.loaded.examples(config, default_split=default_split, progress=self.progress)

    def trace(self, examples: Examples, title: str) -> Trace:
        """A full pass."""
        return self.loaded.trace(
            examples,
            batch_size=self.config.batch_size,
            progress=self.progress,
            title=title,
        )

    @cached_property
    def provenance(self) -> Provenance:
        texts, pairs = texts_of(self.examples["calibration"])
        return Provenance(
            ref=self.loaded.ref,
            folder=self.loaded.folder,
            weights=weights_digest(self.loaded.folder),
            task=self.info.name,
            texts=[
                text_digest(text, None if pairs is None else pairs[row])
                for row, text in enumerate(texts)
            ],
            conditions=conditions_of(self.loaded)
            | (names_of(self.loaded) if self.consistency.needs_targets else {}),
        )


class EncoderCalibration:
    """A classifier under one measure; see :class:`Attackable`."""

    def __init__(self, samples: EncoderSamples, knob: Knob) -> None:
        self._samples = samples
        self.knob = knob
        self._sources = {
            part: TraceSource(trace, knob, samples.consistency)
            for part, trace in samples.traces.items()
        }

    @property
    def measure(self) -> str | None:
        return self.knob.confidence

    @property
    def subject(self) -> Subject:
        return Subject(
            knob=self.knob.scale.knob,
            loss=_LOSS_WORDS[self._samples.consistency.name],
            num_layers=self._samples.loaded.num_layers,
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
        test = self._samples.examples.get("test")
        return {
            "task": self._samples.config.task,
            "calibration_split": self._samples.examples["calibration"].split,
            "test_split": None if test is None else test.split,
            "criterion": self.knob.criterion,
            "confidence": self.knob.confidence,
            # Only generated texts have one.
            "metric": None,
            "training_rows": self._samples.examples["calibration"].training_rows,
        }

    @property
    def notes(self) -> list[str]:
        return []

    def settings(self, index: int) -> dict[str, Any]:
        return self.knob.settings(self.knob.thresholds[index])

    def restore(self, part: str, columns: Mapping[int, Column]) -> None:
        """Nothing to save: the one pass is made anew."""

    def speed(self, index: int) -> dict[str, Any]:
        samples = self._samples
        if samples.config.latency_samples <= 0:
            samples.progress.message(NOT_TIMED)
            return {}
        if index == 0:
            return dict(FULL_SPEED)
        timed = samples.examples.get("test", samples.examples["calibration"])
        exit = samples.loaded.exit_from(self.settings(index))
        return samples.loaded.speed(timed, exit, samples.config, samples.progress)

    def quality(self, index: int, part: str) -> float | None:
        source = self._sources.get(part)
        if source is None or source.trace.labels is None:
            return None
        predictions = source.decision(index).predictions.numpy()
        info = self._samples.info
        return compute(info, predictions, source.trace.labels.numpy())[info.metrics[0]]

    def provenance(self) -> Provenance:
        return self._samples.provenance

    def inputs(self, part: str) -> list[tuple[str, str | None]]:
        texts, pairs = texts_of(self._samples.examples[part])
        seconds: Sequence[str | None] = pairs or [None] * len(texts)
        return list(zip(texts, seconds, strict=True))

    def of_records(self, records: Records, key: str, title: str) -> TraceSource:
        examples = as_examples(records, key, self._samples.info)
        return TraceSource(
            self._samples.trace(examples, title), self.knob, self._samples.consistency
        )


_LOSS_WORDS = {
    "textual": "the rate of answers that differ from the full model's",
    "risk": "the error rate's excess over the full model's (clipped at 0 per sample)",
}
