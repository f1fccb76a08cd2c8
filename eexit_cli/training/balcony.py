"""Balcony's training (EMNLP 2025, arXiv:2503.05005): exits of their own on a frozen model.

After some layers comes an exit of a decoder layer and a norm, in front of the model's own head.
They alone are trained, to say what the full model says: no weight of the model changes, and so
neither do its own outputs.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from eexit_cli.core.errors import UsageError
from eexit_cli.core.option import CAUSAL
from eexit_cli.training.decoder_strategies import DecoderStrategy, LayersObjective, Recipe
from eexit_cli.training.losses import IGNORED
from eexit_cli.training.trainer import Measured, Objective


@dataclass(frozen=True)
class Balcony(Recipe):
    """Settings of the recipe.

    Attributes:
        exit_layers: layers that get an exit; empty are those that have one, or a quarter, a half
            and three quarters of the layers.
    """

    own_exits: ClassVar[bool] = True
    exit_layers: tuple[int, ...] = ()

    def prepare(self, model: Any) -> None:
        depth, own = model.depth, tuple(model.exit_layers[:-1]) if len(model.exits) else ()
        asked = tuple(sorted(set(self.exit_layers)))
        if own:
            if asked and asked != own:
                raise UsageError(
                    f"The model has exits of its own after layers {', '.join(map(str, own))}",
                    hint="Leave --exit-layers out to train those, or start from the model without "
                    "exits",
                )
            return
        quarters = sorted({round(depth * share / 4) for share in (1, 2, 3)})
        layers = asked or tuple(layer for layer in quarters if 1 <= layer < depth)
        if not layers or not 1 <= layers[0] <= layers[-1] < depth:
            raise UsageError(
                f"--exit-layers {','.join(map(str, layers))} is outside 1..{depth - 1}",
                hint=f"The model has {depth} layers; the last one answers anyway",
            )
        model.add_exits(layers)

    def objective(self, model: Any, name: str, steps: int) -> Objective:
        return BalconyObjective(model, name)


def self_distillation(logits: Sequence[Tensor], taught: Tensor, labels: Tensor) -> Tensor:
    """KL(full model || exit) in nats, its mean over the exits and the target tokens.

    The public code divides a batch's sum by its samples in place of its tokens.

    Args:
        logits: of each exit. Shape: exits x [batch, tokens, vocabulary].
        taught: the full model's. Shape: [batch, tokens, vocabulary].
        labels: -100 where padded. Shape: [batch, tokens].
    """
    kept = labels != IGNORED
    with torch.no_grad():
        wanted = taught[kept].float().softmax(dim=-1)
    losses = [
        F.kl_div(each[kept].float().log_softmax(dim=-1), wanted, reduction="batchmean")
        for each in logits
    ]
    return torch.stack(losses).mean()


class BalconyObjective(LayersObjective):
    """Trains the exits of a model that has parts of its own in them, and nothing else."""

    def __init__(self, decoder: Any, name: str) -> None:
        super().__init__(decoder, name, self._of_exits)

    def apply(self) -> None:
        self.decoder.requires_grad_(False)
        self.decoder.exits.requires_grad_(True)

    def loss(
        self, run: nn.Module, inputs: Mapping[str, Tensor], step: int | None
    ) -> tuple[Tensor, Callable[[], Measured]]:
        # What does not train runs without dropout.
        training = self.decoder.training
        self.decoder.eval()
        self.decoder.exits.train(training)
        return super().loss(run, inputs, step)

    def _of_exits(self, states: Sequence[Tensor], head: Any, labels: Tensor) -> Tensor:
        *exits, last = self.decoder.exit_layers
        logits = self.decoder.layer_logits
        return self_distillation(
            [logits(states[layer - 1], layer) for layer in exits],
            logits(states[last - 1], last),
            labels,
        )


STRATEGY = DecoderStrategy(
    "balcony",
    "Balcony, EMNLP 2025, arXiv:2503.05005",
    "exits of a decoder layer each, taught by the full model, which stays as it is",
    Balcony,
    options=("exit_layers",),
    families=(CAUSAL,),
)
