"""Per-sample losses of leaving early (CALM, arXiv:2207.07061, section 3.1).

With a quality q(prediction, reference) in [0, 1] (ROUGE-L F1 for texts, equality for classes):

- textual consistency: D(early, full) = 1 - q(early, full);
- risk consistency: max(0, R(early, target) - R(full, target)), R = 1 - q, clipped per sample:
  a sample that leaving early happens to improve does not pay for one that it spoils.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from eexit_cli.core.errors import UsageError

FloatArray = NDArray[np.float64]
Quality = Callable[[Any, Any], float]


@dataclass(frozen=True)
class Consistency:
    """What "as good as the full model" means.

    Attributes:
        name: the catalog's name.
        needs_targets: the samples must have references or labels.
        meaning: one sentence for the output.
    """

    name: str
    needs_targets: bool
    meaning: str


TEXTUAL = Consistency(
    name="textual",
    needs_targets=False,
    meaning="loss = dissimilarity of the early and the full output",
)
RISK = Consistency(
    name="risk",
    needs_targets=True,
    meaning="loss = how much worse than the full output, clipped at 0 per sample",
)


def same_class(prediction: Any, reference: Any) -> float:
    """1 if two classes are equal, else 0: the quality behind the 0-1 error."""
    return float(prediction == reference)


class LossFunction:
    """Losses of early outputs against one set of full outputs and targets.

    Args:
        consistency: textual or risk.
        quality: (prediction, reference) -> [0, 1], 1 is best.
        full: the full model's outputs, one per sample.
        targets: references, one per sample; only risk consistency looks at them.

    Raises:
        UsageError: risk consistency without targets, lengths that differ, or a quality outside
            [0, 1] or NaN (no guarantee can be built on such a metric).
    """

    def __init__(
        self,
        consistency: Consistency,
        quality: Quality,
        full: Sequence[Any],
        targets: Sequence[Any] | None = None,
    ) -> None:
        self.consistency = consistency
        self._quality = quality
        self._full = full
        self._targets: Sequence[Any] | None = None
        self._full_quality: FloatArray | None = None
        if consistency.needs_targets:
            if targets is None:
                raise UsageError(
                    f"{consistency.name.capitalize()} consistency needs labels or references, "
                    "and these samples have none",
                    hint="Use --consistency textual, which compares with the full model",
                )
            if len(targets) != len(full):
                raise UsageError(f"{len(full)} outputs but {len(targets)} references")
            self._targets = targets
            self._full_quality = self._score(full, targets)

    def __call__(self, early: Sequence[Any]) -> FloatArray:
        """One loss in [0, 1] per sample. Shape: [samples]."""
        if len(early) != len(self._full):
            raise UsageError(f"{len(early)} early outputs but {len(self._full)} full ones")
        if self._targets is None or self._full_quality is None:
            return 1.0 - self._score(early, self._full)
        # R(early) - R(full) = q(full) - q(early).
        return np.maximum(0.0, self._full_quality - self._score(early, self._targets))

    def _score(self, predictions: Sequence[Any], references: Sequence[Any]) -> FloatArray:
        values = np.array(
            [self._quality(a, b) for a, b in zip(predictions, references, strict=True)],
            dtype=np.float64,
        )
        outside = ~((values >= -1e-9) & (values <= 1 + 1e-9))
        if outside.any():
            value = values[int(np.flatnonzero(outside)[0])]
            raise UsageError(
                f"The metric gave {value:g}; calibration needs values in [0, 1]",
                hint="Use --metric rouge-l, or rescale the metric",
            )
        return np.clip(values, 0.0, 1.0)
