"""Training a decoder's layers, or classifiers on its frozen layers, on transformers' Trainer."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from sklearn.metrics import roc_auc_score
from torch import Tensor, nn
from torch.utils.data import Sampler
from transformers import Trainer

from eexit_cli.core.protocols import Progress
from eexit_cli.core.seed import derive_seed
from eexit_cli.training import callbacks
from eexit_cli.training.batches import LengthGroupedBatches
from eexit_cli.training.decoder_batches import PadPairs, TokenizedPairs
from eexit_cli.training.decoder_losses import IGNORED, agreement_loss
from eexit_cli.training.decoder_strategies import LayerLoss
from eexit_cli.training.settings import StepPlan, TrainingSettings
from eexit_cli.training.trainer import check_finite, train_to_the_end, training_arguments

Measured = tuple[Tensor, ...]
"""What a validation batch is reduced to; the first dimension is the sample's."""


class Decoder(Protocol):
    """The part of ``models.seq2seq.MultiExitT5`` that training uses."""

    cm_heads: nn.ModuleDict

    @property
    def depth(self) -> int: ...
    def exit_logits(self, state: Tensor) -> Tensor: ...
    def shift_right(self, labels: Tensor) -> Tensor: ...


class Objective(Protocol):
    """What is minimised, and what validation reports."""

    name: str

    def apply(self, decoder: Any) -> None:
        """Freeze what does not train, free what does."""
        ...

    def loss(self, decoder: Any, states: list[Tensor], labels: Tensor) -> tuple[Tensor, Any]:
        """The loss, and whatever :meth:`measure` needs beside it.

        Args:
            decoder: the model.
            states: what the LM head reads. Shape: layers x [batch, tokens, d].
            labels: -100 where padded. Shape: [batch, tokens].
        """
        ...

    def measure(self, decoder: Any, states: list[Tensor], labels: Tensor, extra: Any) -> Measured:
        """A validation batch, reduced."""
        ...

    def metrics(self, measured: tuple[np.ndarray, ...]) -> dict[str, float]:
        """Names with ``_exit_<layer>`` from the whole validation set."""
        ...


class LayersObjective:
    """Train the whole model on a loss over its layers; validation gives token accuracies."""

    def __init__(self, name: str, layer_loss: LayerLoss) -> None:
        self.name = name
        self.layer_loss = layer_loss

    def apply(self, decoder: Any) -> None:
        decoder.requires_grad_(True)
        decoder.cm_heads.requires_grad_(False)

    def loss(self, decoder: Any, states: list[Tensor], labels: Tensor) -> tuple[Tensor, Any]:
        return self.layer_loss(states, decoder.exit_logits, labels), None

    def measure(self, decoder: Any, states: list[Tensor], labels: Tensor, extra: Any) -> Measured:
        kept = labels != IGNORED
        # Shape: [batch, layers]
        hits = torch.stack(
            [
                ((decoder.exit_logits(state).argmax(dim=-1) == labels) & kept).sum(dim=1)
                for state in states
            ],
            dim=1,
        )
        return hits, kept.sum(dim=1)

    def metrics(self, measured: tuple[np.ndarray, ...]) -> dict[str, float]:
        hits, tokens = measured
        shares = hits.sum(axis=0) / tokens.sum()
        return {
            f"token_accuracy_exit_{layer}": float(share) for layer, share in enumerate(shares, 1)
        }


class ClassifiersObjective:
    """Train confidence classifiers on a frozen decoder, each on its own loss, in one pass.

    Their sum is minimised; since no weight is shared, each learns what it would learn alone.

    Args:
        names: classifiers of ``decoder.cm_heads``.
    """

    name = "classifiers"

    def __init__(self, names: tuple[str, ...]) -> None:
        self.names = names

    def apply(self, decoder: Any) -> None:
        decoder.requires_grad_(False)
        for name in self.names:
            decoder.cm_heads[name].requires_grad_(True)

    def loss(self, decoder: Any, states: list[Tensor], labels: Tensor) -> tuple[Tensor, Any]:
        mask = labels != IGNORED
        with torch.no_grad():
            # Shape: [batch, tokens, layers]
            tokens = torch.stack(
                [decoder.exit_logits(state).argmax(dim=-1) for state in states], dim=-1
            )
        agreement = tokens == tokens[..., -1:]
        logits = {
            name: [decoder.cm_heads[name](state) for state in states[:-1]] for name in self.names
        }
        total = torch.stack(
            [agreement_loss(each, agreement, mask) for each in logits.values()]
        ).sum()
        return total, (logits, agreement, mask)

    def measure(self, decoder: Any, states: list[Tensor], labels: Tensor, extra: Any) -> Measured:
        logits, agreement, mask = extra
        # Shape: [batch, tokens, classifiers, layers - 1]
        margins = torch.stack(
            [
                torch.stack([one[..., 1] - one[..., 0] for one in logits[name]], dim=-1)
                for name in self.names
            ],
            dim=2,
        )
        # The Trainer pads shorter batches with -100 too.
        # Shape: [batch, tokens, layers - 1]
        wanted = agreement[..., :-1].to(torch.int8).masked_fill(~mask.unsqueeze(-1), IGNORED)
        return margins, wanted

    def metrics(self, measured: tuple[np.ndarray, ...]) -> dict[str, float]:
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


class DecoderTrainer(Trainer):
    """The Trainer with an objective over the layers, and an order that resumption cannot change.

    Args:
        objective: what is minimised.
        sampler: the order of the training samples.
        frozen: the decoder itself does not train, so it runs without dropout.
        others: the Trainer's own arguments.
    """

    def __init__(
        self, *, objective: Objective, sampler: LengthGroupedBatches, frozen: bool, **others: Any
    ) -> None:
        super().__init__(**others)
        self.objective = objective
        self.sampler = sampler
        self.frozen = frozen
        # The loss is a mean over the micro-batch: the Trainer averages over micro-batches.
        self.model_accepts_loss_kwargs = False

    def compute_loss(
        self,
        model: nn.Module,
        inputs: dict[str, Tensor],
        return_outputs: bool = False,
        num_items_in_batch: Tensor | None = None,
    ) -> Any:
        """The objective's loss; in validation with the reduced batch beside it."""
        decoder: Any = self.accelerator.unwrap_model(model)
        labels = inputs["labels"]
        if self.frozen:
            decoder.eval()
        layers = model(
            inputs["input_ids"],
            inputs["attention_mask"],
            decoder.shift_right(labels),
            per_layer=True,
        )
        loss, extra = self.objective.loss(decoder, layers.states, labels)
        check_finite(loss)
        if not return_outputs:
            return loss
        measured = self.objective.measure(decoder, layers.states, labels, extra)
        return loss, dict(enumerate(measured))

    def _get_train_sampler(self, train_dataset: Any = None) -> Sampler[int]:
        return self.sampler


def run_decoder_stage(
    model: Any,
    objective: Objective,
    training: TokenizedPairs,
    validation: TokenizedPairs,
    settings: TrainingSettings,
    *,
    pad: int,
    folder: Path,
    title: str,
    progress: Progress,
    evaluated: Callable[[dict[str, float]], None],
) -> int:
    """Train in place, from the newest whole checkpoint in ``folder`` if there is one.

    Args:
        model: a ``MultiExitT5``.
        objective: what trains, and on which loss.
        training, validation: the samples.
        settings: optimiser and schedule.
        pad: the tokenizer's padding id.
        folder: where checkpoints go.
        title: of the progress bar.
        progress: the display.
        evaluated: told about each validation.

    Returns:
        Number of weights that were trained.

    Raises:
        UsageError: float16 without a GPU.
        OSError: a checkpoint cannot be written.
    """
    model.to(torch.float64 if settings.dtype == "float64" else torch.float32)
    objective.apply(model)
    trained = sum(weight.numel() for weight in model.parameters() if weight.requires_grad)
    order_seed = derive_seed(settings.seed, "batches", objective.name)
    sampler = LengthGroupedBatches(training.lengths, settings.batch_size, order_seed)
    arguments = training_arguments(settings, StepPlan(1, 0, frozenset()), objective.name, folder)
    plan = StepPlan.of(settings, len(training), processes=arguments.world_size)
    arguments.max_steps, arguments.warmup_steps = plan.total, plan.warmup
    # Everything that trains is used at every step, but heads and classifiers are called on the
    # states after the wrapped forward has returned, which a search through its graph would miss.
    arguments.ddp_find_unused_parameters = False
    if isinstance(objective, ClassifiersObjective):
        # A common bound on the gradient would let one classifier slow the others down.
        arguments.max_grad_norm = 0.0
    display = callbacks.ProgressCallback(progress, title, evaluated)
    trainer = DecoderTrainer(
        objective=objective,
        sampler=sampler,
        frozen=isinstance(objective, ClassifiersObjective),
        model=model,
        args=arguments,
        data_collator=PadPairs(pad),
        train_dataset=training,
        eval_dataset=validation,
        compute_metrics=lambda prediction: objective.metrics(prediction.predictions),
        callbacks=[callbacks.ScheduleCallback(plan, sampler), display],
    )
    train_to_the_end(trainer, model, folder, display)
    return trained
