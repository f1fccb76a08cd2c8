"""What a p-value is: columns of losses and a delta in, one number per column out."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from eexit_cli.calibration.losses import check_delta, check_losses
from eexit_cli.core.errors import UsageError

FloatArray = NDArray[np.float64]


@dataclass(frozen=True)
class PValue:
    """A test of H: mean loss > delta, for n independent losses in [0, 1].

    Attributes:
        name: the catalog's name.
        promise: what rejecting at level epsilon then guarantees, in a few words.
        valid: P(p <= u) <= u for every n and every distribution with mean > delta.
        columns: (losses, delta) -> one p-value per column, without checks. Shapes:
            [samples, ...] -> [...]. Rows are in the order in which they are looked at.
        all_zero: (n, delta) -> the p-value of n losses that are all 0, the smallest there is;
            it says which n can reject anything.
        binary_only: losses other than 0 and 1 are refused.
    """

    name: str
    promise: str
    valid: bool
    columns: Callable[[FloatArray, float], FloatArray]
    all_zero: Callable[[int, float], float]
    binary_only: bool = False

    def applies(self, losses: NDArray[np.floating]) -> bool:
        """Whether this p-value is defined for these losses."""
        return not self.binary_only or bool(((losses == 0) | (losses == 1)).all())

    def p_values(self, losses: ArrayLike, delta: float) -> FloatArray:
        """One p-value per column.

        Args:
            losses: in [0, 1]. Shape: [samples, thresholds].
            delta: the tolerated mean loss, in (0, 1).

        Returns:
            Shape: [thresholds].

        Raises:
            UsageError: no sample, a loss that is NaN or outside [0, 1], a loss that is neither
                0 nor 1 where only those are allowed, or a delta outside (0, 1).
        """
        matrix = check_losses(losses)
        check_delta(delta)
        self.require_applicable(matrix)
        return self.columns(matrix, delta)

    def require_applicable(self, losses: NDArray[np.floating]) -> None:
        """Raise a :class:`UsageError` unless :meth:`applies`."""
        if not self.applies(losses):
            raise UsageError(
                f"The p-value '{self.name}' is defined for losses of exactly 0 or 1",
                hint="Use --p-value hoeffding-bentkus or --p-value betting",
            )

    def p_value(self, losses: ArrayLike, delta: float) -> float:
        """The p-value of one vector of losses. Shape: [samples] -> a number in [0, 1]."""
        vector = np.asarray(losses, dtype=np.float64)
        if vector.ndim != 1:
            raise UsageError(f"Losses of one threshold are a vector, not of shape {vector.shape}")
        return float(self.p_values(vector[:, None], delta)[0])


SumTest = Callable[[FloatArray, int, float], FloatArray]
"""(sum of the losses, n, delta) -> p-value, elementwise."""


def from_sums(
    name: str, promise: str, sums: SumTest, *, valid: bool = True, binary_only: bool = False
) -> PValue:
    """A p-value that looks at the losses only through their sum."""

    def columns(losses: FloatArray, delta: float) -> FloatArray:
        return sums(losses.sum(axis=0), losses.shape[0], delta)

    def all_zero(n: int, delta: float) -> float:
        return float(sums(np.zeros(1), n, delta)[0])

    return PValue(
        name=name,
        promise=promise,
        valid=valid,
        columns=columns,
        all_zero=all_zero,
        binary_only=binary_only,
    )
