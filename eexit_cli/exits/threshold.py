"""Leave when a confidence measure passes a threshold (DeeBERT's entropy, probability, margin)."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from eexit_cli.core.criterion import Criterion, Scale, Shape, confidence_scale
from eexit_cli.core.digits import even_grid
from eexit_cli.core.errors import UsageError
from eexit_cli.core.option import EXITS, opt
from eexit_cli.core.protocols import Measure, RowState

if TYPE_CHECKING:
    from torch import Tensor

STEPS = 40
"""Of a sweep, and of the calibration of a measure that falls."""


@dataclass(frozen=True, kw_only=True)
class ThresholdOptions:
    confidence: str | None = opt(
        None,
        "What --threshold is on: entropy, max-prob or margin for classifiers; softmax, saturation "
        "or a trained classifier (linear, mlp, transformer_...) for CALM.",
        EXITS,
        names="any confidence measure",
        grid="",
    )
    threshold: float | str | None = opt(
        None,
        "Leave at the first exit whose confidence passes X; 'calibrated' is the last that eexit "
        "calibrate certified, 'calibrated:RUN' that of a run.",
        EXITS,
        parse="threshold",
        metavar="X|calibrated",
        grid=" Several (0.9,0.5) give one row each.",
    )


class ThresholdExit(Criterion):
    """Leave at the first layer whose confidence is strictly beyond the threshold.

    A measure that rises leaves above, one that falls (entropy) below. The comparison is strict,
    so a threshold of 1 on a probability, or 0 on an entropy, is exactly the full model.

    Args:
        measure: the confidence measure.
        threshold: in [0, 1] for measures that rise, at least 0 for entropy (nats).
        num_classes: checked when given: the entropy of a single logit is always 0, that of K at
            most ln K.

    Raises:
        UsageError: a threshold outside its range, or an entropy threshold for a regression task.
    """

    name, option, options = "threshold", "threshold", ThresholdOptions
    measured = True

    def __init__(
        self, measure: Measure, threshold: float, *, num_classes: int | None = None
    ) -> None:
        if num_classes == 1:
            raise UsageError(
                f"A threshold on {measure.name} means nothing with one output (regression)",
                hint="Use --patience N or --static-layer N",
            )
        if not math.isfinite(threshold) or threshold < 0:
            raise UsageError(
                f"Threshold {threshold} is outside the range of {measure.name}",
                hint="Give a finite number, at least 0",
            )
        if measure.rises and threshold > 1:
            raise UsageError(
                f"Threshold {threshold} is outside the range of {measure.name}, [0, 1]",
                hint="1 is the full model; smaller values leave earlier",
            )
        if not measure.rises and num_classes is not None:
            low, high = measure.bounds(num_classes)
            # Everything leaves above the bound: a little more than it, as scripts that go through
            # even steps write it, says that; far more is another measure's number.
            if threshold > math.ceil(10 * high) / 10:
                raise UsageError(
                    f"Threshold {threshold:g} is outside the range of {measure.name} with "
                    f"{num_classes} classes, [{low:g}, {high:.4g}]",
                    hint=f"{low:g} is the full model; larger values leave earlier",
                )
        self.measure = measure
        self.threshold = threshold

    def step(self, layer: int, logits: Tensor, state: RowState) -> Tensor:
        # Shape: [rows, classes] -> [rows]
        confidence = self.measure(logits)
        return confidence > self.threshold if self.measure.rises else confidence < self.threshold

    def describe(self) -> dict[str, Any]:
        return {
            "criterion": "threshold",
            "confidence": self.measure.name,
            "threshold": self.threshold,
        }

    @classmethod
    def build(cls, settings: Mapping[str, Any], shape: Shape) -> ThresholdExit:
        assert shape.measure is not None
        return cls(shape.measure, float(settings["threshold"]), num_classes=shape.num_classes)

    @classmethod
    def scale(cls, shape: Shape) -> Scale:
        """1 to 0.05 for a measure that rises; for one that falls, 0 to its largest value."""
        measure = shape.measure
        assert measure is not None
        if measure.rises:
            return confidence_scale(measure.name)
        eager = measure.bounds(shape.num_classes)[1]
        values = tuple(even_grid(0.0, eager, STEPS))
        return Scale(f"{measure.name} threshold", 0.0, eager, values, open_ended=True)

    @classmethod
    def at(cls, value: float, *, measure: str | None = None) -> dict[str, Any]:
        return {"criterion": "threshold", "confidence": measure, "threshold": value}

    @classmethod
    def grid(cls, shape: Shape) -> list[dict[str, Any]]:
        assert shape.measure is not None
        values = threshold_grid(shape.measure, shape.num_classes)
        return [cls.at(value, measure=shape.measure.name) for value in values]

    def closeness(self, logits: Tensor, exit_layers: Tensor) -> Tensor:
        """How far the exit that fired was beyond the threshold, as a share of the way to
        certainty."""
        import torch

        # Shape: [batch, classes]
        fired = logits[torch.arange(len(logits)), exit_layers - 1]
        certain = self.measure.bounds(logits.shape[-1])[1 if self.measure.rises else 0]
        span = self.threshold - certain
        if span == 0:
            return fired.new_zeros(len(fired))
        return (self.measure(fired) - certain) / span


def threshold_grid(measure: Measure, num_classes: int, steps: int = STEPS) -> list[float]:
    """Thresholds from the most cautious (the full model) to the most eager, ``steps`` + 1 of them.

    A confidence descends from 1 to its lower bound, entropy ascends from 0 to ln K; with few
    digits, to be retyped.
    """
    low, high = measure.bounds(num_classes)
    cautious, eager = (1.0, low) if measure.rises else (0.0, high)
    return even_grid(cautious, eager, steps)
