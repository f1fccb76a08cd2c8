"""The threshold on decoder tokens, with CALM's decay over positions (arXiv:2207.07061).

The comparison of confidence and threshold for decoder tokens is made here and nowhere else.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from torch import Tensor

from eexit_cli.core.catalog import unknown_name
from eexit_cli.core.errors import UsageError


def paper_decay(threshold: float, decayed: float) -> float:
    """0.9 lambda + 0.1 exp(-tau t / N): the second term does not know lambda."""
    return 0.9 * threshold + 0.1 * decayed


def code_decay(threshold: float, decayed: float) -> float:
    """lambda (0.9 + 0.1 exp(-tau t / N)), as in FREE's and DL2-CALM's code."""
    return 0.9 * threshold + 0.1 * threshold * decayed


_FORMS: dict[str, tuple[Callable[[float, float], float], int]] = {
    # form -> (formula, t of the first token): the paper predicts token t + 1 from state t, the
    # code counts the tokens so far, the start token included.
    "paper": (paper_decay, 0),
    "code": (code_decay, 1),
}
DECAY_FORMS = tuple(_FORMS)


class TokenThreshold:
    """Leave when the confidence is strictly above the threshold at this position.

    Without a temperature the threshold is constant, and 1 is exactly the full model. With one it
    decays, also from 1: the full model is then a setting of its own.

    Args:
        threshold: lambda, in [0, 1].
        temperature: tau, at least 0; None is no decay.
        max_length: N, the longest output in tokens; needed with a temperature.
        form: ``paper`` or ``code``.

    Raises:
        UsageError: a setting outside its range.
    """

    def __init__(
        self,
        threshold: float,
        *,
        temperature: float | None = None,
        max_length: int | None = None,
        form: str = "paper",
    ) -> None:
        if not 0 <= threshold <= 1:
            raise UsageError(
                f"Threshold {threshold} is outside [0, 1]",
                hint="1 is the full model; smaller values leave earlier",
            )
        if form not in _FORMS:
            raise unknown_name("threshold decay", form, _FORMS)
        if temperature is not None:
            if not math.isfinite(temperature) or temperature < 0:
                raise UsageError(
                    f"Decay temperature {temperature} is outside its range",
                    hint="Give a number, at least 0; CALM uses 4",
                )
            if max_length is None or max_length < 1:
                raise UsageError(
                    "A decaying threshold needs the longest output's length",
                    hint="Give the number of tokens that a generation may have, at least 1",
                )
        self.threshold = threshold
        self.temperature = temperature
        self.max_length = max_length
        self.form = form

    def at(self, position: int) -> float:
        """The threshold for the token at this position, in [0, 1].

        Args:
            position: place of the token in the output, from 0.
        """
        if self.temperature is None or self.max_length is None:
            return self.threshold
        formula, first = _FORMS[self.form]
        decayed = math.exp(-self.temperature * (position + first) / self.max_length)
        return min(1.0, max(0.0, formula(self.threshold, decayed)))

    def leave(self, confidence: Tensor, position: int | Tensor) -> Tensor:
        """True where the token leaves.

        Args:
            confidence: Shape: [rows].
            position: as in :meth:`at`, or one of each row. Shape: [rows], int64.
        """
        if isinstance(position, int):
            return confidence > self.at(position)
        if self.temperature is None:
            return confidence > self.threshold
        return confidence > confidence.new_tensor([self.at(place) for place in position.tolist()])

    def describe(self) -> dict[str, Any]:
        settings: dict[str, Any] = {"threshold": self.threshold}
        if self.temperature is not None:
            settings |= {
                "decay": self.form,
                "decay_temperature": self.temperature,
                "decay_length": self.max_length,
            }
        return settings
