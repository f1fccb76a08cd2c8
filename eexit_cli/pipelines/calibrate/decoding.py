"""Losses of a decoder's thresholds: each decoded once, beside the full model's outputs."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from eexit_cli.calibration.risks import Consistency, LossFunction
from eexit_cli.calibration.sources import Column
from eexit_cli.calibration.text_metrics import TextQuality
from eexit_cli.calibration.thresholds import Scale
from eexit_cli.core.digits import exact
from eexit_cli.core.types import Examples
from eexit_cli.families.seq2seq.decoding import (
    DecodedSet,
    Sources,
    decode_examples,
    prepare_sources,
)
from eexit_cli.families.seq2seq.exits import (
    FULL,
    full_model,
    settings_from,
)
from eexit_cli.families.seq2seq.model import Seq2SeqModel
from eexit_cli.metrics.generation import References
from eexit_cli.models.decoding.settings import DecodeSettings

if TYPE_CHECKING:
    from eexit_cli.core.protocols import Progress


@dataclasses.dataclass(frozen=True)
class DecoderKnob:
    """What is turned: the threshold on a measure, and what stays as it is beside it.

    Attributes:
        confidence: the measure.
        fixed: first layer, top-k propagation, decay and the like, as ``exit_defaults`` has them.
        scale: the threshold's range and direction.
        thresholds: cautious to eager; the first is the full model.
    """

    confidence: str
    fixed: Mapping[str, Any]
    scale: Scale
    thresholds: tuple[float, ...]

    def settings(self, index: int) -> dict[str, Any]:
        """The exit at a threshold, as ``exit_defaults`` writes it.

        A decaying threshold of 1 falls below 1, so the full model is a setting of its own.
        """
        if index == 0:
            return {**self.fixed, "criterion": FULL}
        return {**self.fixed, "threshold": self.thresholds[index]}


class DecoderPart:
    """Sources of one part with the full model's outputs: what all measures share.

    Args:
        loaded: the decoder.
        sources: texts as the model reads them.
        references: the accepted answers of each; None where they are not known.
        title: the part's name where decoding is shown.
    """

    def __init__(
        self,
        loaded: Seq2SeqModel,
        sources: Sequence[str] | Examples,
        references: Sequence[References] | None,
        *,
        title: str,
        batch_size: int | None,
        progress: Progress,
    ) -> None:
        self.loaded = loaded
        self.references = references
        self._title = title
        self._progress = progress
        self._sources: Sources = prepare_sources(
            loaded, sources, batch_size=batch_size, progress=progress
        )
        self._full: Column | None = None

    def __len__(self) -> int:
        return len(self._sources)

    def full(self) -> Column:
        """The full model's outputs; it agrees with itself."""
        if self._full is None:
            self._full = self.decode(full_model(self.loaded), "full model")
        return self._full

    def restore(self, full: Column) -> None:
        """Take the full model's outputs over from an interrupted run."""
        self._full = full

    def decode(self, settings: DecodeSettings, name: str) -> Column:
        """One pass; the losses are not filled in."""
        decoded: DecodedSet = decode_examples(
            self.loaded,
            self._sources,
            settings,
            progress=self._progress,
            title=f"{name}, {self._title}",
        )
        return Column(
            losses=np.zeros(len(decoded)),
            exit_layers=np.array([np.mean(layers) for layers in decoded.exit_layers]),
            tokens=np.array([len(layers) for layers in decoded.exit_layers], dtype=np.float64),
            outputs=decoded.outputs,
        )


class DecoderSource:
    """Losses of every threshold of one measure on one part.

    Args:
        part: the samples.
        knob: the thresholds.
        consistency: textual (like the full model's output) or risk (no worse than it).
        quality: (output, reference) -> [0, 1].
    """

    full_model = True
    cheap = False

    def __init__(
        self, part: DecoderPart, knob: DecoderKnob, consistency: Consistency, quality: TextQuality
    ) -> None:
        self._part = part
        self._knob = knob
        self._consistency = consistency
        self._quality = quality
        self._outputs: dict[int, Sequence[str]] = {}

    @property
    def thresholds(self) -> Sequence[float | str]:
        return self._knob.thresholds

    @property
    def samples(self) -> int:
        return len(self._part)

    @cached_property
    def _losses(self) -> LossFunction:
        return LossFunction(
            self._consistency,
            self._best,
            self._part.full().outputs or (),
            self._part.references,
        )

    def _best(self, output: str, references: str | References) -> float:
        """Quality against whichever accepted answer suits best."""
        answers = [references] if isinstance(references, str) else references
        return max(self._quality(output, answer) for answer in answers)

    def column(self, index: int) -> Column:
        # First of all: an interrupted run has it then.
        column = self._part.full()
        if index > 0:
            name = f"{self._knob.confidence} {exact(self._knob.thresholds[index])}"
            settings = settings_from(self._knob.settings(index), self._part.loaded)
            column = self._part.decode(settings, name)
        self._outputs[index] = column.outputs or ()
        return dataclasses.replace(column, losses=self._losses(self._outputs[index]))

    def restore(self, columns: Mapping[int, Column]) -> None:
        """Take over what an interrupted run has decoded."""
        for index, column in columns.items():
            self._outputs[index] = column.outputs or ()
            if index == 0:
                self._part.restore(column)

    def quality(self, index: int) -> float | None:
        """Mean quality of a threshold's outputs that have been decoded; None without references."""
        if self._part.references is None:
            return None
        if index not in self._outputs:
            self.column(index)
        pairs = zip(self._outputs[index], self._part.references, strict=True)
        return float(np.mean([self._best(output, answers) for output, answers in pairs]))
