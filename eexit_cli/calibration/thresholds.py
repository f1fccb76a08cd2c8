"""The check of a user's own thresholds, from cautious to eager.

Cautious is the full model: a confidence's threshold 1 and an entropy's 0 (both comparisons are
strict), a patience of L or, as in the public code, 0.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

from eexit_cli.core.criterion import Scale as Scale
from eexit_cli.core.criterion import confidence_scale as confidence_scale
from eexit_cli.core.digits import exact
from eexit_cli.core.errors import UsageError


def check_grid(thresholds: Sequence[float], scale: Scale) -> tuple[float, ...]:
    """A user's own thresholds, with another way to write the full model (patience 0) understood.

    Raises:
        UsageError: a value outside the criterion's range, not in order from cautious to eager,
            or without the full model as the first.
    """
    values = [float(value) for value in thresholds]
    if values and values[0] == scale.alias:
        values[0] = scale.full
    low, high = scale.bounds
    for value in values:
        whole = value.is_integer() if scale.whole else True
        if not (math.isfinite(value) and low <= value <= high and whole):
            raise UsageError(
                f"{exact(value)} is no {scale.knob}",
                hint=f"Give {'whole numbers, ' if scale.whole else ''}{_range(low, high)}",
            )
    way = "descend" if scale.descends else "ascend"
    example = f"--thresholds {','.join(map(exact, scale.values[:4]))},..."
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


def _range(low: float, high: float) -> str:
    if math.isinf(high):
        return f"{low:g} or more"
    return f"{high:g} or less" if math.isinf(low) else f"{low:g} to {high:g}"
