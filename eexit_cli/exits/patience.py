"""Leave when consecutive layers agree (PABEE, arXiv:2006.04152)."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from eexit_cli.core.errors import UsageError
from eexit_cli.core.protocols import RowState

DEFAULT_TAU = 0.5
"""Regression: two neighbouring layers agree when they differ by less than this, in label units."""


class PatienceExit:
    """Leave when ``patience`` consecutive layers agree with the one before them.

    The earliest exit is therefore layer patience + 1. Each row has a counter of its own: the
    public code keeps one per batch, which any sample's disagreement resets. As there, patience 0
    means the full model; so do patience L - 1 and beyond, by counting.

    Args:
        patience: agreements in a row that are needed; 0 is the full model.
        tau: for one output (regression), "agree" means |difference| < tau.

    Raises:
        UsageError: a negative patience or a tau that is not a positive number.
    """

    def __init__(self, patience: int, *, tau: float = DEFAULT_TAU) -> None:
        if patience < 0:
            raise UsageError(
                f"Patience {patience} is outside its range", hint="Give a whole number, at least 0"
            )
        if not math.isfinite(tau) or tau <= 0:
            raise UsageError(
                f"Regression tolerance {tau} is outside its range",
                hint="Give --regression-tolerance a number above 0",
            )
        self.patience = patience
        self.tau = tau

    def step(self, layer: int, logits: Tensor, state: RowState) -> Tensor:
        regression = logits.shape[-1] == 1
        # Shape: [rows]
        current = logits.squeeze(-1) if regression else logits.argmax(dim=-1)
        if "previous" not in state:
            state["count"] = torch.zeros_like(current, dtype=torch.int64)
        else:
            previous = state["previous"]
            agree = (current - previous).abs() < self.tau if regression else current == previous
            state["count"] = torch.where(agree, state["count"] + 1, 0)
        state["previous"] = current
        if self.patience == 0:
            return torch.zeros_like(state["count"], dtype=torch.bool)
        return state["count"] >= self.patience

    def describe(self) -> dict[str, Any]:
        return {
            "criterion": "patience",
            "patience": self.patience,
            "regression_tolerance": self.tau,
        }
