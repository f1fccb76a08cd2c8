"""Threshold grids from cautious to eager, and the check of a user's own.

Cautious is the full model: a confidence's threshold 1 and an entropy's 0 (both comparisons are
strict), a patience of L or, as in the public code, 0.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

from eexit_cli.core.digits import even_grid, exact
from eexit_cli.core.errors import UsageError

ENTROPY_STEPS = 40


@dataclass(frozen=True)
class Scale:
    """The thresholds of one exit criterion.

    Attributes:
        knob: what the threshold is called, in words.
        full: the setting that is the full model.
        eager: the bound in the other direction.
        kind: confidence (descends), entropy (ascends) or patience (descends, whole numbers).
    """

    knob: str
    full: float
    eager: float
    kind: Literal["confidence", "entropy", "patience"]

    @property
    def descends(self) -> bool:
        return self.full > self.eager


def confidence_scale(name: str) -> Scale:
    """A measure that rises with certainty, in [0, 1]."""
    return Scale(f"{name} threshold", 1.0, 0.0, "confidence")


def entropy_scale(num_classes: int) -> Scale:
    """Entropy in nats, at most ln K."""
    return Scale("entropy threshold", 0.0, math.log(num_classes), "entropy")


def patience_scale(num_layers: int) -> Scale:
    """Agreements in a row; L of them cannot be had, so L is the full model."""
    return Scale("patience", float(num_layers), 1.0, "patience")


def default_grid(scale: Scale) -> tuple[float, ...]:
    """The seed's grid for confidences (1, then 0.95 to 0.05 by 0.05); 0 to ln K in 40 steps of
    four decimals for entropy; L to 1 for patience."""
    if scale.kind == "patience":
        return tuple(float(value) for value in range(int(scale.full), 0, -1))
    if scale.kind == "entropy":
        return tuple(even_grid(scale.full, scale.eager, ENTROPY_STEPS))
    return tuple(step / 20 for step in range(20, 0, -1))


def check_grid(thresholds: Sequence[float], scale: Scale) -> tuple[float, ...]:
    """A user's own thresholds, with patience 0 understood as L.

    Raises:
        UsageError: a value outside the criterion's range, not in order from cautious to eager,
            or without the full model as the first.
    """
    values = [float(value) for value in thresholds]
    if scale.kind == "patience" and values and values[0] == 0:
        values[0] = scale.full
    low, high = sorted((scale.full, scale.eager))
    # More nats than ln K are harmless: everything leaves at the first exit.
    top = math.inf if scale.kind == "entropy" else high
    for value in values:
        whole = scale.kind != "patience" or value.is_integer()
        if not (math.isfinite(value) and low <= value <= top and whole):
            bounds = "0 or more" if scale.kind == "entropy" else f"{low:g} to {high:g}"
            raise UsageError(
                f"{exact(value)} is no {scale.knob}",
                hint=f"Give {'whole numbers, ' if scale.kind == 'patience' else ''}{bounds}",
            )
    way = "descend" if scale.descends else "ascend"
    example = f"--thresholds {','.join(map(exact, default_grid(scale)[:4]))},..."
    for before, after in pairwise(values):
        if (after >= before) if scale.descends else (after <= before):
            raise UsageError(
                "Thresholds are not in order from cautious to eager: "
                f"{exact(after)} after {exact(before)}",
                hint=f"For this criterion they must {way}: {example}",
            )
    if not values or values[0] != scale.full:
        first = f"they begin with {exact(values[0])}" if values else "there are none"
        raise UsageError(
            f"Thresholds lack the full model: {first}",
            hint=f"The first {scale.knob} must be {exact(scale.full)}: {example}",
        )
    return tuple(values)
