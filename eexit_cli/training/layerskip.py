"""LayerSkip's training (ACL 2024, arXiv:2404.16710): layer dropout and an early-exit loss.

Layers are dropped per sample, deeper ones more often; every layer is trained to answer through the
model's own final norm and head, the last one most, under a curriculum that says which layers'
losses count at a step.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn

from eexit_cli.core.errors import UsageError
from eexit_cli.core.option import CAUSAL
from eexit_cli.training.decoder_strategies import DecoderStrategy, LayersObjective, Recipe
from eexit_cli.training.losses import Head, token_cross_entropy
from eexit_cli.training.trainer import Measured, Objective

Curriculum = Literal["rotating", "gradual", "none"]
CURRICULA: tuple[Curriculum, ...] = get_args(Curriculum)

Weights = Sequence[float]
"""Of each layer's loss, summing to 1; 0 leaves it out."""


@dataclass(frozen=True)
class LayerSkip(Recipe):
    """Settings of the recipe.

    Attributes:
        layer_dropout: p_max, how often the last layer is dropped.
        early_exit_scale: e_scale, what the earlier layers' losses weigh.
        curriculum: which losses count: ``rotating``, every R-th layer's in turn and the last;
            ``gradual``, from the last layer down, all of them from half of the steps on; ``none``,
            all.
        curriculum_interval: R of the rotating curriculum.
        from_scratch: the dropout rises over the steps; in continued training it is constant.
    """

    layer_dropout: float = 0.1
    early_exit_scale: float = 1.0
    curriculum: Curriculum = "rotating"
    curriculum_interval: int = 2
    from_scratch: bool = False

    def __post_init__(self) -> None:
        if not 0 <= self.layer_dropout < 1:
            raise UsageError(
                f"--layer-dropout {self.layer_dropout} is outside its range",
                hint="Give 0 to below 1",
            )
        if self.early_exit_scale < 0:
            raise UsageError(
                f"--early-exit-scale {self.early_exit_scale} is negative", hint="Give 0 or more"
            )
        if self.curriculum not in CURRICULA:
            raise UsageError(
                f"Unknown curriculum '{self.curriculum}'",
                hint=f"Available: {', '.join(CURRICULA)}",
            )
        if self.curriculum_interval < 1:
            raise UsageError(
                f"--curriculum-interval {self.curriculum_interval} is too small",
                hint="Give 1 or more",
            )

    def objective(self, model: Any, name: str, steps: int) -> Objective:
        return LayerSkipObjective(model, name, self, steps)

    def drop_rates(self, depth: int, step: int, steps: int) -> list[float]:
        """How often each layer is dropped at a step: p_max * D(l) * S(t).

        D(l) = exp(l ln 2 / (L - 1)) - 1 for l = 0..L-1, from 0 to 1; S(t) is 1 in continued
        training and exp(t ln 2 / (T - 1)) - 1 from scratch.

        Args:
            depth: L.
            step: t, from 0.
            steps: T.
        """
        rise = _exponential(step, steps) if self.from_scratch else 1.0
        return [self.layer_dropout * _exponential(layer, depth) * rise for layer in range(depth)]

    def weights(self, depth: int, step: int, steps: int) -> list[float]:
        """What each layer's loss weighs at a step, summing to 1.

        e(l) = e_scale * (0 + ... + l) for l < L - 1, and L - 1 + e_scale * (0 + ... + L-2) for the
        last, times whether the curriculum counts it.
        """
        last = depth - 1
        scaled = [self.early_exit_scale * layer * (layer + 1) / 2 for layer in range(last)]
        scaled.append(last + (scaled[-1] if scaled else 0.0))
        if depth == 1:
            return [1.0]
        kept = [
            weight if layer == last or self._counts(layer, depth, step, steps) else 0.0
            for layer, weight in enumerate(scaled)
        ]
        total = sum(kept)
        return [weight / total for weight in kept]

    def _counts(self, layer: int, depth: int, step: int, steps: int) -> bool:
        if self.curriculum == "rotating":
            return layer % self.curriculum_interval == step % self.curriculum_interval
        if self.curriculum == "gradual":
            # One more layer every T / 2L steps.
            return layer >= depth - 1 - 2 * depth * step // max(steps, 1)
        return True


def _exponential(index: int, count: int) -> float:
    """From 0 at the first of ``count`` to 1 at the last."""
    return math.expm1(index * math.log(2) / (count - 1)) if count > 1 else 0.0


def weighted_sum(states: Sequence[Tensor], head: Head, labels: Tensor, weights: Weights) -> Tensor:
    """The layers' cross-entropies, weighted; the head runs on those that count.

    Args:
        states: Shape: layers x [batch, tokens, d].
        labels: -100 where padded. Shape: [batch, tokens].
    """
    losses = [
        weight * token_cross_entropy(head(state), labels)
        for state, weight in zip(states, weights, strict=True)
        if weight
    ]
    return torch.stack(losses).sum()


class LayerSkipObjective(LayersObjective):
    """Trains all layers by :class:`LayerSkip`.

    Args:
        decoder: with ``layers``, transformers' modules.
        steps: of the optimizer, in all.
    """

    def __init__(self, decoder: Any, name: str, settings: LayerSkip, steps: int) -> None:
        super().__init__(decoder, name, self._of_step)
        self.settings = settings
        self.steps = steps
        self._step: int | None = None

    def _of_step(self, states: Sequence[Tensor], head: Head, labels: Tensor) -> Tensor:
        """The loss of the current step; of validation all layers' that the recipe ends with."""
        step = self.steps if self._step is None else self._step
        return weighted_sum(
            states, head, labels, self.settings.weights(len(states), step, self.steps)
        )

    def loss(
        self, run: nn.Module, inputs: Mapping[str, Tensor], step: int | None
    ) -> tuple[Tensor, Callable[[], Measured]]:
        self._step = None if step is None else step - 1
        rates = [0.0]
        if self._step is not None:
            rates = self.settings.drop_rates(self.decoder.depth, self._step, self.steps)
        handles = [
            layer.register_forward_hook(_dropping(rate), with_kwargs=True)
            for layer, rate in zip(self.decoder.layers, rates, strict=False)
            if rate > 0
        ]
        try:
            return super().loss(run, inputs, step)
        finally:
            for handle in handles:
                handle.remove()


def _dropping(rate: float) -> Callable[[nn.Module, Any, Any, Any], Any]:
    """A hook after which some samples have passed the layer by."""

    def drop(module: nn.Module, inputs: Any, named: Any, output: Any) -> Any:
        before = inputs[0] if inputs else named["hidden_states"]
        made = output[0] if isinstance(output, tuple) else output
        # Shape: [batch, 1, 1]
        gone = torch.rand(before.shape[0], 1, 1, device=before.device) < rate
        kept = torch.where(gone, before, made)
        return (kept, *output[1:]) if isinstance(output, tuple) else kept

    return drop


STRATEGY = DecoderStrategy(
    "layerskip",
    "LayerSkip, ACL 2024, arXiv:2404.16710",
    "all layers, later ones weigh more, deep ones are dropped at random",
    LayerSkip,
    options=("layer_dropout", "early_exit_scale", "curriculum", "curriculum_interval"),
    families=(CAUSAL,),
    scratch="from_scratch",
)
