"""Losses that a guarantee can be built on: numbers in [0, 1], or a clear no."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from eexit_cli.core.errors import UsageError

FloatArray = NDArray[np.float64]

_ROUNDING = 1e-6
"""How far beyond [0, 1] a loss may lie and still count as rounding, for example float32's."""


def check_losses(losses: ArrayLike, names: Sequence[str] | None = None) -> FloatArray:
    """Losses as a float64 matrix whose values are in [0, 1].

    Values up to 1e-6 outside the interval are rounding and are clipped.

    Args:
        losses: Shape: [samples, thresholds].
        names: of the columns, for the error message.

    Raises:
        UsageError: not a matrix, empty, or values that are NaN or outside [0, 1]; the message
            names the first rows, counted from 1.
    """
    matrix = np.asarray(losses, dtype=np.float64)
    if matrix.ndim != 2:
        raise UsageError(
            f"Losses have shape {matrix.shape}",
            hint="Give a table with one row per sample and one column per threshold",
        )
    if 0 in matrix.shape:
        raise UsageError(
            f"There are no losses: {matrix.shape[0]} samples, {matrix.shape[1]} thresholds",
            hint="Give at least one sample and one threshold",
        )
    # NaN fails both comparisons, so it is bad without a case of its own.
    bad = ~((matrix >= -_ROUNDING) & (matrix <= 1 + _ROUNDING))
    if bad.any():
        rows = np.flatnonzero(bad.any(axis=1))
        row = int(rows[0])
        column = int(np.flatnonzero(bad[row])[0])
        where = f" in column '{names[column]}'" if names is not None else ""
        raise UsageError(
            f"{len(rows)} of {len(matrix)} rows have losses that are not in [0, 1]: "
            f"{describe_rows(rows)} (row {row + 1}{where} has {matrix[row, column]:g})",
            hint=_repair(matrix[bad]),
        )
    return np.clip(matrix, 0.0, 1.0)


def _repair(values: FloatArray) -> str:
    """What to do about losses that are outside; leaving samples out comes last, as it biases."""
    if (values < 0).any():
        return (
            "Clip differences per sample: max(0, R(early) - R(full)) is 0 where leaving early was "
            "no worse; dropping such rows would bias the result"
        )
    if (values > 1).any():
        return "Divide by the largest possible loss; dropping such rows would bias the result"
    return "Every sample needs a loss; dropping those without one would bias the result"


def describe_rows(rows: NDArray[np.integer], *, at_most: int = 5) -> str:
    """``rows 3, 4, 9 and 12 more``: 0-based indices, shown counted from 1."""
    shown = ", ".join(str(int(row) + 1) for row in rows[:at_most])
    more = len(rows) - at_most
    word = "row" if len(rows) == 1 else "rows"
    return f"{word} {shown}" + (f" and {more} more" if more > 0 else "")


def check_delta(delta: float, name: str = "delta") -> float:
    """A tolerance or an error probability: strictly between 0 and 1.

    Raises:
        UsageError: otherwise, NaN included.
    """
    if not 0 < delta < 1:
        raise UsageError(f"{name} {delta} is outside (0, 1)", hint=f"Give --{name} 0.1, say")
    return delta
