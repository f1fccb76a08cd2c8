"""Training strategies: which loss moves which parameters, in which order.

A strategy is a sequence of stages. Parameters are told apart by their names in
``MultiExitClassifier``: ``backbone.*``, ``poolers.<index>.*``, ``classifiers.<index>.*``, and
``last_ramp.*`` (DeeBERT's leftover highway, which nobody trains).

Every strategy works for both families. Two-stage with a shared pooler (PABEE's) trains that
pooler in the first stage with the last classifier; in the second it is frozen, so the ramps'
classifiers read the last exit's pooler.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor, nn

from eexit_cli.training.losses import (
    ExitLoss,
    final_loss,
    joint_loss,
    ramps_loss,
    weighted_loss,
)

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
        description: what is trained, in a user's words.
        loss: what is minimised, and what validation reports.
        backbone: whether the backbone trains.
        heads: whose classifiers and own poolers train.
        odd_loss: minimised in place of ``loss`` at odd optimisation steps, counted from 1.
        odd_heads: whose heads move at those steps.
    """

    name: str
    description: str
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

    def apply(self, model: nn.Module, *, num_exits: int, shared_pooler: bool) -> int:
        """Freeze what does not train, free what does; returns the number of trained weights."""
        trained = 0
        for name, parameter in model.named_parameters():
            parameter.requires_grad_(
                self.trains(name, num_exits=num_exits, shared_pooler=shared_pooler)
            )
            trained += parameter.numel() if parameter.requires_grad else 0
        return trained

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


TWO_STAGE = Strategy(
    "two-stage",
    "DeeBERT, ACL 2020, arXiv:2004.12993",
    (
        Stage(
            "backbone",
            "the backbone and the last exit",
            final_loss,
            heads=_last,
        ),
        Stage(
            "ramps",
            "the exits before the last; the rest is frozen",
            ramps_loss,
            backbone=False,
            heads=_ramps,
        ),
    ),
)

JOINT = Strategy(
    "joint",
    "BERxiT, EACL 2021",
    (Stage("joint", "the backbone and all exits", joint_loss),),
)

# In the public code the ramps' gradients are zero in odd steps, not absent, so that Adam's momentum
# and the weight decay still move them. Here they rest: "the last classifier alone".
ALTERNATING = Strategy(
    "alternating",
    "BERxiT, EACL 2021",
    (
        Stage(
            "alternating",
            "the backbone with the last exit (odd steps) or all exits (even steps)",
            joint_loss,
            odd_loss=final_loss,
            odd_heads=_last,
        ),
    ),
)

WEIGHTED_JOINT = Strategy(
    "weighted-joint",
    "PABEE, NeurIPS 2020, arXiv:2006.04152",
    (Stage("weighted-joint", "the backbone and all exits, later ones weigh more", weighted_loss),),
)
