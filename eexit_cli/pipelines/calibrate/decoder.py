"""Calibration of decoders: one decoding pass per threshold at most.

An early token changes what follows, so nothing can be replayed: each threshold is decoded anew,
once, for every delta, epsilon, p-value and n. The full model's pass is shared by all measures.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any

from eexit_cli.calibration import CONSISTENCIES, TEXT_METRICS
from eexit_cli.calibration.report import Subject
from eexit_cli.calibration.risks import Consistency
from eexit_cli.calibration.sources import Column
from eexit_cli.calibration.text_metrics import TextQuality
from eexit_cli.calibration.thresholds import confidence_scale
from eexit_cli.config.calibrate import CalibrateConfig
from eexit_cli.config.common import DecoderConfig, DecoderExitConfig, ExitConfig
from eexit_cli.config.field import SEQ2SEQ, refuse_unread
from eexit_cli.core.errors import UsageError
from eexit_cli.core.types import Examples, TaskInfo
from eexit_cli.data import task_info
from eexit_cli.families.batches import prefix_in, references_of
from eexit_cli.families.calibrated import conditions_of
from eexit_cli.families.data import is_task
from eexit_cli.families.seq2seq.attack_exits import exit_reader
from eexit_cli.families.seq2seq.decoding import (
    sources_of,
)
from eexit_cli.families.seq2seq.exits import (
    full_model,
    resolve_settings,
    settings_from,
)
from eexit_cli.families.seq2seq.model import Seq2SeqModel, load_decoder
from eexit_cli.metrics.generation import References
from eexit_cli.metrics.latency import NOT_TIMED
from eexit_cli.pipelines.calibrate.decoding import DecoderKnob, DecoderPart, DecoderSource
from eexit_cli.pipelines.calibrate.options import distinct, grid_of, measures_of
from eexit_cli.pipelines.calibrate.samples import calibration_examples
from eexit_cli.pipelines.calibrate.subject import FULL_SPEED, Provenance, Records
from eexit_cli.store.calibrations import text_digest, weights_digest

if TYPE_CHECKING:
    from eexit_cli.core.protocols import Progress

_OF_PHONEMES = "phoneme_error_rate"
"""A task that reports this has phonemes for outputs."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Asked(ExitConfig, DecoderExitConfig):
    """Exit options as ``families.seq2seq.exits`` reads them."""


def choose_knobs(config: CalibrateConfig, loaded: Seq2SeqModel) -> list[DecoderKnob]:
    """A threshold to calibrate for each measure asked for, or else on the model's own measure.

    Raises:
        UsageError: a criterion or an option that a decoder lacks, an adaptive threshold, a
            classifier that the model has not got, or thresholds that are out of range or order.
    """
    name = loaded.ref.name
    refuse_unread(config, SEQ2SEQ, model=name)
    if config.criterion not in (None, "threshold"):
        raise UsageError(
            f"--criterion {config.criterion} is for classifiers; model '{name}' is a decoder",
            hint="Drop --criterion: a decoder is calibrated on a threshold",
        )
    if config.adaptive_threshold:
        raise UsageError(
            "An adaptive threshold moves with the data: no value of it can be calibrated",
            hint="Drop --adaptive-threshold; --shallow-layer calibrates FREE's fixed threshold",
        )
    options = {item.name: getattr(config, item.name) for item in dataclasses.fields(DecoderConfig)}
    options |= {"adaptive_threshold": False, "top_k_propagation": config.top_k_propagation}
    knobs = []
    for measure in measures_of(config) or (None,):
        # The threshold is a stand-in for those of the grid.
        asked = _Asked(confidence=measure, threshold=1.0, **options)
        fixed = resolve_settings(asked, loaded.exit_defaults, model=name)
        settings_from(fixed, loaded)
        for part in ("threshold", "adaptive_threshold"):
            fixed.pop(part, None)
        scale = confidence_scale(str(fixed["confidence"]))
        knobs.append(DecoderKnob(fixed["confidence"], fixed, scale, grid_of(config, scale)))
    distinct([knob.confidence for knob in knobs])
    return knobs


class DecoderSamples:
    """A decoder with its samples; the full model's outputs are made once, for every measure."""

    def __init__(self, config: CalibrateConfig, progress: Progress) -> None:
        self.loaded: Seq2SeqModel = load_decoder(config, progress=progress)
        self.config: CalibrateConfig = self.loaded.own_data(config, progress)
        self.progress = progress
        self.consistency: Consistency = CONSISTENCIES.load(config.consistency)
        self.knobs = choose_knobs(config, self.loaded)
        if config.under_attack is not None:
            for knob in self.knobs:
                # Refused before the calibration rather than by the attack on its answer.
                exit_reader(self.loaded, settings_from(knob.settings(-1), self.loaded))
        asked = None if config.metric is None else TEXT_METRICS.canonical(config.metric)
        self.examples = calibration_examples(self.config, self._load, progress)
        self.metric = asked or text_metric(self.examples["calibration"].info, self.loaded)
        self.quality: TextQuality = TEXT_METRICS.load(self.metric)
        self.parts = {
            part: self.part(samples, references_of(samples), part)
            for part, samples in self.examples.items()
        }

    def _load(self, config: CalibrateConfig, default_split: str) -> Examples:
        return self.loaded.examples(config, default_split=default_split, progress=self.progress)

    def part(
        self,
        sources: Sequence[str] | Examples,
        references: Sequence[References] | None,
        title: str,
    ) -> DecoderPart:
        return DecoderPart(
            self.loaded,
            sources,
            references,
            title=title,
            batch_size=self.config.batch_size,
            progress=self.progress,
        )

    @cached_property
    def provenance(self) -> Provenance:
        examples = self.examples["calibration"]
        return Provenance(
            ref=self.loaded.ref,
            folder=self.loaded.folder,
            weights=weights_digest(self.loaded.folder),
            task=examples.info.name,
            texts=[text_digest(text) for text in sources_of(examples)],
            metric=self.metric,
            conditions=conditions_of(self.loaded, prefix_in(examples.info)),
        )


def text_metric(info: TaskInfo, loaded: Seq2SeqModel) -> str:
    """ROUGE-L, where nobody asks for another: over phonemes where the task's outputs, or those of
    the task that the model was trained on, are that."""
    task = loaded.trained_on
    own = () if task is None or not is_task(task) else task_info(task).metrics
    return "rouge-l-tokens" if _OF_PHONEMES in (*info.metrics, *own) else "rouge-l"


class DecoderCalibration:
    """A decoder under one measure; see :class:`Attackable`."""

    def __init__(self, samples: DecoderSamples, knob: DecoderKnob) -> None:
        self._samples = samples
        self.knob = knob
        self._sources = {part: self._source(given) for part, given in samples.parts.items()}

    def _source(self, part: DecoderPart) -> DecoderSource:
        return DecoderSource(part, self.knob, self._samples.consistency, self._samples.quality)

    @property
    def measure(self) -> str:
        return self.knob.confidence

    @property
    def subject(self) -> Subject:
        name = self._samples.metric
        return Subject(
            knob=self.knob.scale.knob,
            loss=_LOSS_WORDS[self._samples.consistency.name].format(
                metric=_METRIC_WORDS.get(name, name)
            ),
            num_layers=self._samples.loaded.num_layers,
        )

    @property
    def calibration(self) -> DecoderSource:
        return self._sources["calibration"]

    @property
    def test(self) -> DecoderSource | None:
        return self._sources.get("test")

    @property
    def ids(self) -> dict[str, Sequence[str]]:
        return {part: list(each.dataset["id"]) for part, each in self._samples.examples.items()}

    @property
    def described(self) -> dict[str, Any]:
        samples = self._samples
        test = samples.examples.get("test")
        return {
            "task": samples.config.task,
            "source_prefix": samples.config.source_prefix,
            "calibration_split": samples.examples["calibration"].split,
            "test_split": None if test is None else test.split,
            "criterion": "threshold",
            "confidence": self.knob.confidence,
            "metric": samples.metric,
            "training_rows": samples.examples["calibration"].training_rows,
        }

    @property
    def notes(self) -> list[str]:
        defaults = self._samples.loaded.exit_defaults
        if defaults.get("adaptive_threshold") or defaults.get("adaptive"):
            return ["The model's own threshold adapts to the data; a fixed one was calibrated."]
        return []

    def settings(self, index: int) -> dict[str, Any]:
        return self.knob.settings(index)

    def restore(self, part: str, columns: Mapping[int, Column]) -> None:
        if part in self._sources:
            self._sources[part].restore(columns)

    def speed(self, index: int) -> dict[str, Any]:
        samples = self._samples
        if samples.config.latency_samples <= 0:
            samples.progress.message(NOT_TIMED)
            return {}
        if index == 0:
            return dict(FULL_SPEED)
        from eexit_cli.families.seq2seq.latency import time_singles

        timed = {
            "live": settings_from(self.settings(index), samples.loaded),
            "full": full_model(samples.loaded),
        }
        data = samples.examples.get("test", samples.examples["calibration"])
        return time_singles(samples.loaded, data, timed, "full", samples.config, samples.progress)[
            "live"
        ]

    def quality(self, index: int, part: str) -> float | None:
        source = self._sources.get(part)
        return None if source is None else source.quality(index)

    def provenance(self) -> Provenance:
        return self._samples.provenance

    def inputs(self, part: str) -> list[tuple[str, str | None]]:
        return [(source, None) for source in sources_of(self._samples.examples[part])]

    def of_records(self, records: Records, key: str, title: str) -> DecoderSource:
        references = [_answers(record) for record in records]
        known = [answers for answers in references if answers is not None]
        whole = len(known) == len(records)
        if self._samples.consistency.needs_targets and not whole:
            raise UsageError(
                "Risk consistency needs references, and the attack's records have none",
                hint="Use --consistency textual",
            )
        texts = [str(record[key]) for record in records]
        return self._source(self._samples.part(texts, known if whole else None, title))


def _answers(record: Mapping[str, Any]) -> References | None:
    """The accepted answers of an attacked sample; None where the record has none."""
    if record.get("references"):
        return [str(answer) for answer in record["references"]]
    return None if record.get("target") is None else [str(record["target"])]


_LOSS_WORDS = {
    "textual": "the mean dissimilarity from the full model's output (1 - {metric})",
    "risk": "the mean excess of the error 1 - {metric} over the full model's "
    "(clipped at 0 per sample)",
}
_METRIC_WORDS = {
    "rouge-l": "ROUGE-L F1",
    "rouge-l-tokens": "ROUGE-L F1 over symbols",
    "exact-match": "exact match",
}
