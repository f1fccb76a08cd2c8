"""What a decoder is trained on: a loss over its layers, or confidence classifiers on top."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, get_args

import numpy as np
import torch
from sklearn.metrics import roc_auc_score
from torch import Tensor, nn
from transformers import DataCollatorForSeq2Seq

from eexit_cli.core.errors import UsageError
from eexit_cli.core.option import CAUSAL, SEQ2SEQ
from eexit_cli.training.losses import (
    IGNORED,
    Distillation,
    Head,
    LayerLoss,
    agreement_loss,
    last_cross_entropy,
    layer_distillation,
    shallow_deep_cross_entropy,
    weighted_cross_entropy,
)
from eexit_cli.training.trainer import Measured, Objective

DISTILLATIONS: tuple[Distillation, ...] = get_args(Distillation)


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
        loss: None where FREE's or LayerSkip's settings are the loss.
        families: that it trains; empty is all.
    """

    name: str
    source: str
    description: str
    loss: LayerLoss | None = None
    families: tuple[str, ...] = ()

    def build(self, free: ShallowDeep | None) -> LayerLoss:
        """The loss.

        Raises:
            UsageError: FREE without its settings, or they with another strategy.
        """
        if self.loss is not None and free is not None:
            raise UsageError("--shallow-layer goes with FREE", hint="Add --strategy free")
        loss = self.loss or free
        if loss is None:
            raise UsageError(
                "FREE needs its shallow exit", hint="Add --shallow-layer K, for instance 2 of 6"
            )
        return loss


WEIGHTED = DecoderStrategy(
    "weighted-ce",
    "CALM, NeurIPS 2022, arXiv:2207.07061",
    "all decoder layers, later ones weigh more",
    weighted_cross_entropy,
)

LAST = DecoderStrategy(
    "last-ce",
    "Raffel et al., 2020, arXiv:1910.10683",
    "the last decoder layer alone: ordinary fine-tuning",
    last_cross_entropy,
)

FREE = DecoderStrategy(
    "free",
    "FREE, EMNLP 2023, arXiv:2310.05424",
    "a shallow and the last exit, the shallow layers distilled from the deep ones",
    families=(SEQ2SEQ,),
)

LAYERSKIP = DecoderStrategy(
    "layerskip",
    "LayerSkip, ACL 2024, arXiv:2404.16710",
    "all layers, later ones weigh more, deep ones are dropped at random",
    families=(CAUSAL,),
)


class DecoderObjective(Objective):
    """A stage of a decoder's training: what its layers say of the target, all in one pass.

    Args:
        decoder: a ``MultiExitT5``.
    """

    collator = DataCollatorForSeq2Seq
    # Everything that trains is used at every step, but heads and classifiers are called on the
    # states after the wrapped forward has returned, which a search through its graph would miss.
    arguments: ClassVar[Mapping[str, Any]] = {"ddp_find_unused_parameters": False}

    def __init__(self, decoder: Any) -> None:
        self.decoder = decoder

    def loss(
        self, run: nn.Module, inputs: Mapping[str, Tensor], step: int | None
    ) -> tuple[Tensor, Callable[[], Measured]]:
        labels = inputs["labels"]
        layers = run(
            inputs["input_ids"],
            inputs["attention_mask"],
            self.decoder.shift_right(labels),
            per_layer=True,
        )
        return self.of_states(layers.states, labels)

    @abstractmethod
    def of_states(
        self, states: list[Tensor], labels: Tensor
    ) -> tuple[Tensor, Callable[[], Measured]]:
        """The loss, and what reduces the batch.

        Args:
            states: what the LM head reads. Shape: layers x [batch, tokens, d].
            labels: -100 where padded. Shape: [batch, tokens].
        """

    def answers(self, states: list[Tensor]) -> Tensor:
        """Each layer's token. Shape: [batch, tokens, layers]."""
        return torch.stack(
            [self.decoder.exit_logits(state).argmax(dim=-1) for state in states], dim=-1
        )


class LayersObjective(DecoderObjective):
    """Train the whole model on a loss over its layers; validation gives token accuracies."""

    def __init__(self, decoder: Any, name: str, layer_loss: LayerLoss) -> None:
        super().__init__(decoder)
        self.name = name
        self.layer_loss = layer_loss

    def apply(self) -> None:
        self.decoder.requires_grad_(True)
        self.decoder.cm_heads.requires_grad_(False)

    def of_states(
        self, states: list[Tensor], labels: Tensor
    ) -> tuple[Tensor, Callable[[], Measured]]:
        def measure() -> Measured:
            kept = labels != IGNORED
            hits = (self.answers(states) == labels.unsqueeze(-1)) & kept.unsqueeze(-1)
            # Shape: [batch, layers] and [batch]
            return hits.sum(dim=1), kept.sum(dim=1)

        return self.layer_loss(states, self.decoder.exit_logits, labels), measure

    def metrics(self, measured: tuple[np.ndarray, ...], labels: np.ndarray) -> dict[str, float]:
        hits, tokens = measured
        shares = hits.sum(axis=0) / tokens.sum()
        return {
            f"token_accuracy_exit_{layer}": float(share) for layer, share in enumerate(shares, 1)
        }


class ClassifiersObjective(DecoderObjective):
    """Train confidence classifiers on a frozen decoder, each on its own loss, in one pass.

    Their sum is minimised; since no weight is shared, each learns what it would learn alone.

    Args:
        names: classifiers of ``decoder.cm_heads``.
    """

    name = "classifiers"
    # A common bound on the gradient would let one classifier slow the others down.
    arguments: ClassVar[Mapping[str, Any]] = {
        **DecoderObjective.arguments,
        "max_grad_norm": 0.0,
    }

    def __init__(self, decoder: Any, names: Sequence[str]) -> None:
        super().__init__(decoder)
        self.names = names

    def apply(self) -> None:
        self.decoder.requires_grad_(False)
        for name in self.names:
            self.decoder.cm_heads[name].requires_grad_(True)

    def loss(
        self, run: nn.Module, inputs: Mapping[str, Tensor], step: int | None
    ) -> tuple[Tensor, Callable[[], Measured]]:
        # What does not train runs without dropout.
        self.decoder.eval()
        return super().loss(run, inputs, step)

    def of_states(
        self, states: list[Tensor], labels: Tensor
    ) -> tuple[Tensor, Callable[[], Measured]]:
        mask = labels != IGNORED
        with torch.no_grad():
            tokens = self.answers(states)
        agreement = tokens == tokens[..., -1:]
        logits = [
            [self.decoder.cm_heads[name](state) for state in states[:-1]] for name in self.names
        ]

        def measure() -> Measured:
            # Shape: [batch, tokens, classifiers, layers - 1]
            margins = torch.stack(
                [torch.stack([one[..., 1] - one[..., 0] for one in each], -1) for each in logits],
                dim=2,
            )
            # The Trainer pads shorter batches with -100 too.
            # Shape: [batch, tokens, layers - 1]
            wanted = agreement[..., :-1].to(torch.int8).masked_fill(~mask.unsqueeze(-1), IGNORED)
            return margins, wanted

        losses = [agreement_loss(each, agreement, mask) for each in logits]
        return torch.stack(losses).sum(), measure

    def metrics(self, measured: tuple[np.ndarray, ...], labels: np.ndarray) -> dict[str, float]:
        """``auroc_<classifier>_exit_<layer>``; nan where a layer never or always agrees."""
        margins, wanted = measured
        mask = wanted[..., 0] != IGNORED
        # Shape: [tokens, classifiers, layers - 1] and [tokens, layers - 1]
        scores, agrees = margins[mask], wanted[mask]
        return {
            f"auroc_{name}_exit_{layer}": _ranks(scores[:, index, layer - 1], agrees[:, layer - 1])
            for index, name in enumerate(self.names)
            for layer in range(1, agrees.shape[1] + 1)
        }


def _ranks(scores: np.ndarray, agrees: np.ndarray) -> float:
    """The chance that a token that agrees scores above one that differs; 0.5 is no better."""
    if agrees.min() == agrees.max():
        return math.nan
    return float(roc_auc_score(agrees, scores))
