"""A model's losses: the answers of every value of a knob beside the full model's.

An encoder's values are all answered by one pass. A generator's early token changes what follows, so
each value is decoded anew, once, for every delta, epsilon, p-value and n. The full model's answers
are shared by all measures.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from eexit_cli.calibration import CONSISTENCIES, TEXT_METRICS
from eexit_cli.calibration.report import Subject
from eexit_cli.calibration.risks import Consistency, LossFunction, Quality, same_class
from eexit_cli.calibration.sources import Column
from eexit_cli.config.attack import AttackConfig
from eexit_cli.config.calibrate import CalibrateConfig
from eexit_cli.core.answers import Exit, Knob
from eexit_cli.core.digits import exact
from eexit_cli.core.errors import UsageError
from eexit_cli.core.family import Model
from eexit_cli.core.types import Examples, TaskInfo
from eexit_cli.data import task_info
from eexit_cli.families.batches import targets_of, texts_of
from eexit_cli.families.calibrated import conditions_of, names_of
from eexit_cli.families.class_names import warn_below_chance
from eexit_cli.families.data import is_task
from eexit_cli.metrics.latency import NOT_TIMED
from eexit_cli.metrics.task import compute
from eexit_cli.pipelines.attack.subject import as_examples
from eexit_cli.pipelines.calibrate.samples import calibration_examples
from eexit_cli.pipelines.calibrate.subject import FULL_SPEED, Calibratable, Provenance
from eexit_cli.store.calibrations import text_digest, weights_digest

if TYPE_CHECKING:
    from eexit_cli.core.protocols import Progress

_OF_PHONEMES = "phoneme_error_rate"
"""A task that reports this has phonemes for outputs."""


class Part:
    """Samples with the full model's answers: what all measures share.

    Args:
        title: the part's name where its passes are shown.
        likeness: (output, reference) -> [0, 1].
    """

    def __init__(
        self,
        model: Model,
        examples: Examples,
        likeness: Quality,
        *,
        title: str,
        batch_size: int | None,
        progress: Progress,
    ) -> None:
        self.model, self.examples, self.likeness = model, examples, likeness
        self.targets = targets_of(examples)
        self._title = title
        self._progress = progress
        self._inputs = model.inputs(
            examples, batch_size=batch_size, progress=progress, title=f"Full pass, {title}"
        )
        self._full: Column | None = None

    def full(self) -> Column:
        """The full model's answers; it agrees with itself."""
        if self._full is None:
            self._full = self.answers(self.model.full(), "full model")
        return self._full

    def restore(self, full: Column) -> None:
        """Take the full model's answers over from an interrupted run."""
        self._full = full

    def answers(self, exit: Exit, name: str) -> Column:
        """One pass; the losses are not filled in."""
        title = f"{name}, {self._title}"
        found = self.model.answers(self._inputs, exit, progress=self._progress, title=title)
        counts = [len(layers) for layers in found.exit_layers]
        means = [sum(layers) / len(layers) for layers in found.exit_layers]
        texts = self.examples.info.kind == "generation"
        return Column(
            losses=np.zeros(len(found)),
            exit_layers=np.array(means, dtype=np.float64),
            tokens=np.array(counts, dtype=np.float64) if texts else None,
            outputs=found.outputs,
        )


class AnswersSource:
    """Losses of every value of one knob on one part.

    Args:
        part: the samples.
        knob: what is turned.
        consistency: textual (like the full model's answer) or risk (no worse than it).
    """

    full_model = True

    def __init__(self, part: Part, knob: Knob, consistency: Consistency) -> None:
        self.part = part
        self.cheap = part.model.answers_once
        self._knob = knob
        self._consistency = consistency
        self._outputs: dict[int, Sequence[Any]] = {}

    @property
    def thresholds(self) -> Sequence[float | str]:
        return self._knob.values

    @property
    def samples(self) -> int:
        return len(self.part.examples)

    @cached_property
    def _losses(self) -> LossFunction:
        part = self.part
        return LossFunction(
            self._consistency, part.likeness, part.full().outputs or (), part.targets
        )

    def column(self, index: int) -> Column:
        # First of all: an interrupted run has it then.
        column = self.part.full()
        if index > 0:
            exit = self.part.model.exit_from(self._knob.settings[index])
            name = f"{self._knob.measure} {exact(self._knob.values[index])}"
            column = self.part.answers(exit, name)
        outputs = self._outputs[index] = column.outputs or ()
        # A class is made anew sooner than it is read back.
        kept = None if column.tokens is None else column.outputs
        return dataclasses.replace(column, losses=self._losses(outputs), outputs=kept)

    def restore(self, columns: Mapping[int, Column]) -> None:
        """Take over what an interrupted run has decoded."""
        for index, column in columns.items():
            if column.outputs is not None:
                self._outputs[index] = column.outputs
                if index == 0:
                    self.part.restore(column)

    def quality(self, index: int) -> float | None:
        """The task's leading metric for classes, the mean likeness to the best accepted answer
        for texts; None without references."""
        targets, info = self.part.targets, self.part.examples.info
        if targets is None:
            return None
        if index not in self._outputs:
            self.column(index)
        outputs = self._outputs[index]
        if info.kind != "generation":
            return compute(info, np.array(outputs), np.array(targets))[info.metrics[0]]
        return float(np.mean(list(map(self.part.likeness, outputs, targets))))


class ModelSamples:
    """A model with its samples, for every measure."""

    def __init__(self, model: Model, config: CalibrateConfig, progress: Progress) -> None:
        self.model = model
        self.config: CalibrateConfig = self.model.own_data(config, progress)
        self.progress = progress
        self.consistency: Consistency = CONSISTENCIES.load(config.consistency)
        self.knobs = self.model.knobs(config)
        if config.under_attack is not None:
            from eexit_cli.pipelines.attack.plan import plan_recipes

            attack = AttackConfig(model=config.model, recipe=config.under_attack)
            plan_recipes(attack, model.kind).without_gradients(
                model.no_gradients(attack)[0],
                "Attack first (eexit attack --surrogate NAME), and give the run to --verify-on",
            )
            for knob in self.knobs:
                # Refused before the calibration rather than by the attack on its answer.
                self.model.check_attackable(self.model.exit_from(knob.settings[-1]))
        asked = None if config.metric is None else TEXT_METRICS.canonical(config.metric)
        self.examples = calibration_examples(self.config, self._load, progress)
        self.info: TaskInfo = self.examples["calibration"].info
        self.metric = asked or text_metric(self.info, self.model.trained_on)
        self.likeness = _likeness(self.metric)
        if self.consistency.needs_targets and targets_of(self.examples["calibration"]) is None:
            raise UsageError(
                f"Risk consistency needs labels, and '{self.info.name}' has none",
                hint="Use --consistency textual, or give --label-column",
            )
        self.parts = {name: self.part(each, name) for name, each in self.examples.items()}
        self.ids = {
            name: list(map(str, each.dataset["id"])) for name, each in self.examples.items()
        }
        first = self.parts["calibration"]
        if self.info.kind == "classification" and first.targets is not None:
            answers = first.full().outputs or ()
            warn_below_chance(
                self.info.label_names, np.array(answers), np.array(first.targets), progress
            )

    def _load(self, config: CalibrateConfig, default_split: str) -> Examples:
        return self.model.examples(config, default_split=default_split, progress=self.progress)

    def part(self, examples: Examples, title: str) -> Part:
        return Part(
            self.model,
            examples,
            self.likeness,
            title=title,
            batch_size=self.config.batch_size,
            progress=self.progress,
        )

    @cached_property
    def provenance(self) -> Provenance:
        model = self.model
        texts, pairs = texts_of(self.examples["calibration"])
        seconds: Sequence[str | None] = pairs or [None] * len(texts)
        return Provenance(
            ref=model.ref,
            folder=model.folder,
            weights=weights_digest(model.folder),
            task=self.info.name,
            texts=list(map(text_digest, texts, seconds)),
            metric=self.metric,
            conditions=conditions_of(model, model.prefix(self.info))
            | (names_of(model) if self.consistency.needs_targets else {}),
        )


def text_metric(info: TaskInfo, trained_on: str | None) -> str | None:
    """ROUGE-L for texts, where nobody asks for another.

    Phonemes, which the task's outputs or those of the task that the model was trained on may be,
    are a word's right ones or not: parts of a pronunciation cannot be spoken.
    """
    if info.kind != "generation":
        return None
    known = trained_on is not None and is_task(trained_on)
    own = task_info(trained_on).metrics if known and trained_on is not None else ()
    return "exact-match" if _OF_PHONEMES in (*info.metrics, *own) else "rouge-l"


def _likeness(metric: str | None) -> Quality:
    """Equality of classes; of texts the metric, against whichever accepted answer suits best."""
    if metric is None:
        return same_class
    quality = TEXT_METRICS.load(metric)

    def best(output: str, references: str | Sequence[str]) -> float:
        answers = [references] if isinstance(references, str) else references
        return max(quality(output, answer) for answer in answers)

    return best


class ModelCalibration(Calibratable):
    """A model under one measure; an attacker's texts can be run through it."""

    def __init__(self, samples: ModelSamples, knob: Knob) -> None:
        self._samples = samples
        self.knob = knob
        self.measure = knob.measure
        self._sources = {name: self._source(part) for name, part in samples.parts.items()}
        self.calibration, self.test = self._sources["calibration"], self._sources.get("test")
        self.ids = samples.ids
        words = _OF_CLASSES if samples.metric is None else _OF_TEXTS
        named = _METRIC_WORDS.get(str(samples.metric), samples.metric)
        loss = words[samples.consistency.name].format(metric=named)
        self.subject = Subject(knob=knob.name, loss=loss, num_layers=samples.model.num_layers)
        first, test = samples.examples["calibration"], samples.examples.get("test")
        file = samples.config.data_file
        self.described = {
            "task": samples.config.task,
            "source_prefix": samples.config.source_prefix,
            # Of a model's own file too, which no option names.
            "data": None if file is None else Path(file).name,
            "calibration_split": first.split,
            "test_split": None if test is None else test.split,
            "criterion": knob.criterion,
            "confidence": knob.measure,
            "metric": samples.metric,
            "training_rows": first.training_rows,
            # An exported model's, which no option names.
            "runtime": samples.config.runtime,
        }
        defaults = samples.model.exit_defaults
        if defaults.get("adaptive_threshold") or defaults.get("adaptive"):
            self.notes = [
                "The model's own threshold adapts to the data; a fixed one was calibrated."
            ]

    def _source(self, part: Part) -> AnswersSource:
        return AnswersSource(part, self.knob, self._samples.consistency)

    def settings(self, index: int) -> dict[str, Any]:
        return dict(self.knob.settings[index])

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
        timed = samples.examples.get("test", samples.examples["calibration"])
        exit = samples.model.exit_from(self.knob.settings[index])
        return samples.model.speed(timed, exit, samples.config, samples.progress)

    def quality(self, index: int, part: str) -> float | None:
        source = self._sources.get(part)
        return None if source is None else source.quality(index)

    def provenance(self) -> Provenance:
        return self._samples.provenance

    def inputs(self, part: str) -> list[tuple[str, str | None]]:
        """The texts of ``calibration`` or ``test``, each with the second one of a pair."""
        texts, pairs = texts_of(self._samples.examples[part])
        seconds: Sequence[str | None] = pairs or [None] * len(texts)
        return list(zip(texts, seconds, strict=True))

    def of_records(
        self, records: Sequence[Mapping[str, Any]], key: str, title: str
    ) -> AnswersSource:
        """Losses of an attack's texts, as they were (``text``) or became (``perturbed_text``),
        both texts of a pair.

        Args:
            records: an attack run's; see ``pipelines.attack.run``.
            key: the column with the text.
            title: what is shown while they run.

        Raises:
            UsageError: records without what the consistency needs.
        """
        examples = as_examples(records, key, self._samples.info)
        if self._samples.consistency.needs_targets and targets_of(examples) is None:
            raise UsageError(
                "Risk consistency needs labels or references, and the attack's records have none",
                hint="Use --consistency textual",
            )
        return self._source(self._samples.part(examples, title))


_OF_CLASSES = {
    "textual": "the rate of answers that differ from the full model's",
    "risk": "the error rate's excess over the full model's (clipped at 0 per sample)",
}
_OF_TEXTS = {
    "textual": "the mean dissimilarity from the full model's output (1 - {metric})",
    "risk": "the mean excess of the error 1 - {metric} over the full model's "
    "(clipped at 0 per sample)",
}
_METRIC_WORDS = {
    "rouge-l": "ROUGE-L F1",
    "rouge-l-tokens": "ROUGE-L F1 over symbols",
    "exact-match": "exact match",
}
