"""Leave when consecutive layers agree (PABEE, arXiv:2006.04152)."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from eexit_cli.core.criterion import Criterion, Scale, Shape, margins
from eexit_cli.core.errors import UsageError
from eexit_cli.core.option import ENCODER, EXITS, opt
from eexit_cli.core.protocols import RowState

if TYPE_CHECKING:
    from torch import Tensor

DEFAULT_TAU = 0.5
"""Regression: two neighbouring layers agree when they differ by less than this, in label units."""


@dataclass(frozen=True, kw_only=True)
class PatienceOptions:
    patience: int | None = opt(
        None,
        "Leave when N layers in a row agree with the one before; 0 is the full model.",
        EXITS,
        least=0,
        grid="",
        families=(ENCODER,),
    )
    regression_tolerance: float | None = opt(
        None,
        "With --patience on a regression task: layers agree when they differ by less than X.",
        EXITS,
        least=0,
        families=(ENCODER,),
    )


class PatienceExit(Criterion):
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

    name, option, options = "patience", "patience", PatienceOptions
    needs_classes = False

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
        import torch

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

    @classmethod
    def build(cls, settings: Mapping[str, Any], shape: Shape) -> PatienceExit:
        patience = int(settings["patience"])
        if patience > shape.num_layers:
            raise UsageError(
                f"Patience {patience} is outside 0..{shape.num_layers}",
                hint=f"The model has {shape.num_layers} layers; 0 and {shape.num_layers} mean the "
                "full model",
            )
        tolerance = settings.get("regression_tolerance")
        return cls(patience, tau=DEFAULT_TAU if tolerance is None else float(tolerance))

    @classmethod
    def scale(cls, shape: Shape) -> Scale:
        """Agreements in a row; L of them cannot be had, so L is the full model, as 0 is."""
        values = tuple(float(value) for value in range(shape.num_layers, 0, -1))
        return Scale("patience", float(shape.num_layers), 1.0, values, whole=True, alias=0.0)

    @classmethod
    def at(cls, value: float, *, measure: str | None = None) -> dict[str, Any]:
        return {"criterion": "patience", "patience": int(value)}

    @classmethod
    def grid(cls, shape: Shape) -> list[dict[str, Any]]:
        return [cls.at(value) for value in range(shape.num_layers - 1, 0, -1)]

    def closeness(self, logits: Tensor, exit_layers: Tensor) -> Tensor:
        """1 - the least margin among the exits whose agreement let it leave: one of them
        changing its mind is enough."""
        import torch

        margin = margins(logits)
        layers = torch.arange(1, logits.shape[1] + 1)[None, :]
        # Shape: [batch, exits]
        agreeing = (layers <= exit_layers[:, None]) & (
            layers >= exit_layers[:, None] - self.patience
        )
        return 1 - margin.masked_fill(~agreeing, 1.0).amin(dim=-1)
