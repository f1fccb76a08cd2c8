"""Leave when a confidence measure passes a threshold (DeeBERT's entropy, probability, margin)."""

from __future__ import annotations

import math
from typing import Any

from torch import Tensor

from eexit_cli.core.errors import UsageError
from eexit_cli.core.protocols import Measure, RowState


class ThresholdExit:
    """Leave at the first layer whose confidence is strictly beyond the threshold.

    A measure that rises leaves above, one that falls (entropy) below. The comparison is strict,
    so a threshold of 1 on a probability, or 0 on an entropy, is exactly the full model.

    Args:
        measure: the confidence measure.
        threshold: in [0, 1] for measures that rise, at least 0 for entropy (nats).
        num_classes: checked when given: the entropy of a single logit is always 0.

    Raises:
        UsageError: a threshold outside its range, or an entropy threshold for a regression task.
    """

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
