"""Training strategies: which loss moves which parameters, in which order.

A strategy is a sequence of stages. Parameters are told apart by their names in
``MultiExitClassifier``: ``backbone.*``, ``poolers.<index>.*``, ``classifiers.<index>.*``, and
``last_ramp.*`` (DeeBERT's leftover highway, which nobody trains).

Every strategy works for both families. Two-stage with a shared pooler (PABEE's) trains that
pooler in the first stage with the last classifier; in the second it is frozen, so the ramps'
classifiers read the last exit's pooler.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from torch import Tensor, nn
from transformers import DataCollatorWithPadding

from eexit_cli.training.callbacks import RestCallback
from eexit_cli.training.losses import (
    ExitLoss,
    final_loss,
    joint_loss,
    ramps_loss,
    weighted_loss,
)
from eexit_cli.training.trainer import Measured, Objective

ExitSelector = Callable[[int, int], bool]
"""(exit layer 1..L, L) -> do this exit's own head parameters train?"""


def _last(layer: int, num_exits: int) -> bool:
    return layer == num_exits


def _ramps(layer: int, num_exits: int) -> bool:
    return layer < num_exits


def _every(layer: int, num_exits: int) -> bool:
    return True


@dataclass(frozen=True)
class Stage:
    """One run of the optimiser.

    Attributes:
        name: used for checkpoint folders, records and the screen.
        loss: what is minimised, and what validation reports.
        backbone: whether the backbone trains.
        heads: whose classifiers and own poolers train.
        odd_loss: minimised in place of ``loss`` at odd optimisation steps, counted from 1.
        odd_heads: whose heads move at those steps.
    """

    name: str
    loss: ExitLoss
    backbone: bool = True
    heads: ExitSelector = _every
    odd_loss: ExitLoss | None = None
    odd_heads: ExitSelector = _every

    def trains(self, parameter: str, *, num_exits: int, shared_pooler: bool) -> bool:
        """Does this parameter train in this stage?

        Args:
            parameter: its name in ``model.named_parameters()``.
            num_exits: L.
            shared_pooler: one pooler serves all exits; it trains where the last exit does.
        """
        return self._moves(parameter, self.heads, num_exits, shared_pooler)

    def moves_at(self, step: int, parameter: str, *, num_exits: int, shared_pooler: bool) -> bool:
        """Does optimisation step ``step`` (from 1) move this parameter?"""
        heads = self.odd_heads if self.odd_loss is not None and step % 2 == 1 else self.heads
        return self._moves(parameter, heads, num_exits, shared_pooler)

    def loss_at(self, step: int | None, logits: Tensor, labels: Tensor) -> Tensor:
        """The loss of optimisation step ``step``, counted from 1; None is validation.

        Args:
            logits: Shape: [batch, exits, classes].
            labels: Shape: [batch].
        """
        if step is not None and step % 2 == 1 and self.odd_loss is not None:
            return self.odd_loss(logits, labels)
        return self.loss(logits, labels)

    def _moves(
        self, parameter: str, heads: ExitSelector, num_exits: int, shared_pooler: bool
    ) -> bool:
        part, _, rest = parameter.partition(".")
        if part == "backbone":
            return self.backbone
        if part == "poolers" and shared_pooler:
            return heads(num_exits, num_exits)
        if part in ("poolers", "classifiers"):
            return heads(int(rest.partition(".")[0]) + 1, num_exits)
        if part == "last_ramp":
            return False
        raise ValueError(f"no strategy knows the parameter '{parameter}'")


@dataclass(frozen=True)
class Strategy:
    """A named sequence of stages, each starting from the weights of the one before.

    Attributes:
        name: the catalog's.
        source: the paper.
        stages: run in order.
    """

    name: str
    source: str
    stages: tuple[Stage, ...]


class ExitsObjective(Objective):
    """A stage of a classifier's training; validation gives each exit's accuracy or squared error.

    Args:
        stage: which parameters train, and on which loss.
        model: with ``num_exits``; its full pass returns ``logits``, Shape: [batch, exits, classes].
        shared_pooler: whether one pooler serves all exits.
        freeze: parameters kept as they are, whatever the stage says.
    """

    collator = DataCollatorWithPadding

    def __init__(
        self,
        stage: Stage,
        model: nn.Module,
        *,
        shared_pooler: bool,
        freeze: Sequence[nn.Parameter] = (),
    ) -> None:
        self.name = stage.name
        self.stage = stage
        self.model = model
        self.freeze = freeze
        self.layout: dict[str, Any] = {
            "num_exits": model.num_exits,
            "shared_pooler": shared_pooler,
        }
        self.callbacks = (
            RestCallback(lambda step, name: stage.moves_at(step, name, **self.layout)),
        )

    def apply(self) -> None:
        for name, parameter in self.model.named_parameters():
            parameter.requires_grad_(self.stage.trains(name, **self.layout))
        for parameter in self.freeze:
            parameter.requires_grad_(False)

    def loss(
        self, run: nn.Module, inputs: Mapping[str, Tensor], step: int | None
    ) -> tuple[Tensor, Callable[[], Measured]]:
        given = {name: value for name, value in inputs.items() if name != "labels"}
        logits = run(**given).logits
        return self.stage.loss_at(step, logits, inputs["labels"]), lambda: (logits,)

    def metrics(self, measured: tuple[np.ndarray, ...], labels: np.ndarray) -> dict[str, float]:
        return exit_accuracy(measured[0], labels)


def exit_accuracy(logits: np.ndarray, labels: np.ndarray) -> dict[str, float]:
    """Accuracy of each exit, or its mean squared error when there is one output.

    Args:
        logits: Shape: [samples, exits, classes].
        labels: Shape: [samples].
    """
    if logits.shape[-1] == 1:
        name, values = "mse", np.square(logits[..., 0] - labels[:, None]).mean(axis=0)
    else:
        name, values = "accuracy", (logits.argmax(axis=-1) == labels[:, None]).mean(axis=0)
    return {f"{name}_exit_{layer}": float(value) for layer, value in enumerate(values, start=1)}


TWO_STAGE = Strategy(
    "two-stage",
    "DeeBERT, ACL 2020, arXiv:2004.12993",
    (
        Stage("backbone", final_loss, heads=_last),
        Stage("ramps", ramps_loss, backbone=False, heads=_ramps),
    ),
)

JOINT = Strategy("joint", "BERxiT, EACL 2021", (Stage("joint", joint_loss),))

# In the public code the ramps' gradients are zero in odd steps, not absent, so that Adam's momentum
# and the weight decay still move them. Here they rest: "the last classifier alone".
ALTERNATING = Strategy(
    "alternating",
    "BERxiT, EACL 2021",
    (Stage("alternating", joint_loss, odd_loss=final_loss, odd_heads=_last),),
)

WEIGHTED_JOINT = Strategy(
    "weighted-joint",
    "PABEE, NeurIPS 2020, arXiv:2006.04152",
    (Stage("weighted-joint", weighted_loss),),
)
