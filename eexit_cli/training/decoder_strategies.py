"""What a decoder is trained on: a loss over its layers, or confidence classifiers on top."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from torch import Tensor

from eexit_cli.core.errors import UsageError
from eexit_cli.training.decoder_losses import (
    Distillation,
    Head,
    last_cross_entropy,
    layer_distillation,
    shallow_deep_cross_entropy,
    weighted_cross_entropy,
)

LayerLoss = Callable[[Sequence[Tensor], Head, Tensor], Tensor]
"""(states of each layer, LM head, labels) -> a scalar."""

DISTILLATIONS: tuple[Distillation, ...] = ("dynamic", "uniform", "last", "none")


@dataclass(frozen=True)
class ShallowDeep:
    """Settings of FREE's training.

    Attributes:
        shallow_layer: k, the early exit.
        distillation: which layers follow which.
        weight: of the distillation beside the cross-entropies.
    """

    shallow_layer: int
    distillation: Distillation = "dynamic"
    weight: float = 1.0

    def check(self, depth: int) -> None:
        """Fit for a decoder of ``depth`` layers?

        Raises:
            UsageError: a layer or a mapping that cannot be.
        """
        if not 1 <= self.shallow_layer < depth:
            raise UsageError(
                f"--shallow-layer {self.shallow_layer} is outside 1..{depth - 1}",
                hint=f"The decoder has {depth} layers; the deep exit is the last",
            )
        if self.distillation not in DISTILLATIONS:
            raise UsageError(
                f"Unknown distillation '{self.distillation}'",
                hint=f"Available: {', '.join(DISTILLATIONS)}",
            )

    def __call__(self, states: Sequence[Tensor], head: Head, labels: Tensor) -> Tensor:
        loss = shallow_deep_cross_entropy(states, head, labels, shallow=self.shallow_layer)
        if self.distillation == "none" or self.weight == 0:
            return loss
        return loss + self.weight * layer_distillation(
            states, labels, shallow=self.shallow_layer, mapping=self.distillation
        )


@dataclass(frozen=True)
class DecoderStrategy:
    """One entry of the catalog.

    Attributes:
        name: the catalog's.
        source: the paper.
        description: what is trained, in a user's words.
        build: the loss, from FREE's settings; None where no shallow layer was given.
    """

    name: str
    source: str
    description: str
    build: Callable[[ShallowDeep | None], LayerLoss]


def _free(settings: ShallowDeep | None) -> LayerLoss:
    if settings is None:
        raise UsageError(
            "FREE needs its shallow exit", hint="Add --shallow-layer K, for instance 2 of 6"
        )
    return settings


def _only(loss: LayerLoss) -> Callable[[ShallowDeep | None], LayerLoss]:
    def build(settings: ShallowDeep | None) -> LayerLoss:
        if settings is not None:
            raise UsageError("--shallow-layer goes with FREE", hint="Add --strategy free")
        return loss

    return build


WEIGHTED = DecoderStrategy(
    "weighted-ce",
    "CALM, NeurIPS 2022, arXiv:2207.07061",
    "all decoder layers, later ones weigh more",
    _only(weighted_cross_entropy),
)

LAST = DecoderStrategy(
    "last-ce",
    "Raffel et al., 2020, arXiv:1910.10683",
    "the last decoder layer alone: ordinary fine-tuning",
    _only(last_cross_entropy),
)

FREE = DecoderStrategy(
    "free",
    "FREE, EMNLP 2023, arXiv:2310.05424",
    "a shallow and the last exit, the shallow layers distilled from the deep ones",
    _free,
)
