"""What a decoder is trained on: a loss over its layers, or confidence classifiers on top."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar, get_args

import numpy as np
import torch
from sklearn.metrics import roc_auc_score
from torch import Tensor, nn
from transformers import DataCollatorForSeq2Seq

from eexit_cli.core.errors import UsageError
from eexit_cli.core.option import SEQ2SEQ, flag
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


class Recipe(ABC):
    """A strategy with its settings.

    Attributes:
        own_exits: it trains exits that have parts of their own; the others train a model whose
            layers share its norm and head.
        exit: settings of the trained model's exit beside measure and threshold.
    """

    own_exits: ClassVar[bool] = False

    @property
    def exit(self) -> dict[str, Any]:
        return {}

    def prepare(self, model: Any) -> None:  # noqa: B027 - most have nothing to check
        """Check or change the model, an ``ExitDecoder``, before it trains.

        Raises:
            UsageError: settings that do not fit it.
        """

    @abstractmethod
    def objective(self, model: Any, name: str, steps: int) -> Objective:
        """Of the one stage.

        Args:
            name: the strategy's.
            steps: of the optimizer, in all.
        """


@dataclass(frozen=True)
class Layers(Recipe):
    """A loss over the layers, without settings."""

    loss: LayerLoss

    def objective(self, model: Any, name: str, steps: int) -> Objective:
        return LayersObjective(model, name, self.loss)


@dataclass(frozen=True)
class ShallowDeep(Recipe):
    """Settings of FREE's training.

    Attributes:
        shallow_layer: k, the early exit.
        distillation: which layers follow which.
        distillation_weight: of the distillation beside the cross-entropies.
    """

    shallow_layer: int
    distillation: Distillation = "dynamic"
    distillation_weight: float = 1.0

    @property
    def exit(self) -> dict[str, Any]:
        return {"shallow_layer": self.shallow_layer}

    def prepare(self, model: Any) -> None:
        depth = model.depth
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

    def objective(self, model: Any, name: str, steps: int) -> Objective:
        return LayersObjective(model, name, self)

    def __call__(self, states: Sequence[Tensor], head: Head, labels: Tensor) -> Tensor:
        loss = shallow_deep_cross_entropy(states, head, labels, shallow=self.shallow_layer)
        if self.distillation == "none" or self.distillation_weight == 0:
            return loss
        return loss + self.distillation_weight * layer_distillation(
            states, labels, shallow=self.shallow_layer, mapping=self.distillation
        )


@dataclass(frozen=True)
class DecoderStrategy:
    """One entry of the catalog.

    Attributes:
        name: the catalog's.
        source: the paper, its method's name first.
        description: what is trained, in a user's words.
        recipe: makes it of the ``options`` that were given, by name.
        options: of ``config.train.TrainConfig``, that it alone reads.
        needs: one of them that has no default, and what it may be.
        families: that it trains; empty is all.
        scratch: an argument of ``recipe``: is the model trained from scratch?
    """

    name: str
    source: str
    description: str
    recipe: Callable[..., Recipe]
    options: tuple[str, ...] = ()
    needs: tuple[str, str] | None = None
    families: tuple[str, ...] = ()
    scratch: str | None = None

    @property
    def method(self) -> str:
        """What the field calls it."""
        return self.source.partition(",")[0]

    @property
    def asked(self) -> str:
        """The options that ask for it."""
        if self.needs is None:
            return f"--strategy {self.name}"
        option, example = self.needs
        return f"--strategy {self.name} {flag(option)} {example.partition(',')[0]}"

    def build(self, options: Mapping[str, Any], *, from_scratch: bool = False) -> Recipe:
        """The recipe.

        Args:
            options: those that were given, by their names in the configuration.

        Raises:
            UsageError: what it needs is not among them, or a value that cannot be.
        """
        if self.needs is not None and self.needs[0] not in options:
            option, example = self.needs
            raise UsageError(
                f"{self.method} needs its {option.replace('_', ' ')}",
                hint=f"Add {flag(option)} {example}",
            )
        scratch = {} if self.scratch is None else {self.scratch: from_scratch}
        return self.recipe(**options, **scratch)


WEIGHTED = DecoderStrategy(
    "weighted-ce",
    "CALM, NeurIPS 2022, arXiv:2207.07061",
    "all decoder layers, later ones weigh more",
    partial(Layers, weighted_cross_entropy),
)

LAST = DecoderStrategy(
    "last-ce",
    "Raffel et al., 2020, arXiv:1910.10683",
    "the last decoder layer alone: ordinary fine-tuning",
    partial(Layers, last_cross_entropy),
)

FREE = DecoderStrategy(
    "free",
    "FREE, EMNLP 2023, arXiv:2310.05424",
    "a shallow and the last exit, the shallow layers distilled from the deep ones",
    ShallowDeep,
    options=("shallow_layer", "distillation", "distillation_weight"),
    needs=("shallow_layer", "K, for instance 2 of 6"),
    families=(SEQ2SEQ,),
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
        """Each exit's token. Shape: [batch, tokens, exits]."""
        decoder = self.decoder
        logits = (decoder.layer_logits(states[layer - 1], layer) for layer in decoder.exit_layers)
        return torch.stack([each.argmax(dim=-1) for each in logits], dim=-1)


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
            # Shape: [batch, exits] and [batch]
            return hits.sum(dim=1), kept.sum(dim=1)

        return self.layer_loss(states, self.decoder.exit_logits, labels), measure

    def metrics(self, measured: tuple[np.ndarray, ...], labels: np.ndarray) -> dict[str, float]:
        hits, tokens = measured
        shares = hits.sum(axis=0) / tokens.sum()
        return {
            f"token_accuracy_exit_{layer}": float(share)
            for layer, share in zip(self.decoder.exit_layers, shares, strict=True)
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
