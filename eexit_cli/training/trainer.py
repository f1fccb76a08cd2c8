"""Running one stage on transformers' Trainer, so that accelerate and torchrun work."""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import Sampler
from transformers import Trainer, TrainerCallback, TrainingArguments
from transformers.trainer_callback import PrinterCallback, ProgressCallback

from eexit_cli.core.errors import NotFiniteError, UsageError
from eexit_cli.core.protocols import Progress
from eexit_cli.core.seed import derive_seed
from eexit_cli.training import callbacks
from eexit_cli.training.batches import LengthGroupedBatches, Tokenized
from eexit_cli.training.checkpoints import newest_checkpoint
from eexit_cli.training.quiet import no_bars
from eexit_cli.training.settings import OPTIMIZERS, StepPlan, TrainingSettings

Measured = tuple[Tensor, ...]
"""What a validation batch is reduced to; the first dimension is the sample's."""

LOG_STEPS = 10


class Objective(ABC):
    """What one stage trains in a model, on which loss, and what its validation reports.

    Attributes:
        name: of checkpoint folders, of records and on the screen.
        collator: transformers' class that pads samples to a batch.
        arguments: of the Trainer, where they are others than every stage's.
        callbacks: beside every stage's.
    """

    name: str
    collator: ClassVar[type]
    arguments: ClassVar[Mapping[str, Any]] = {}
    callbacks: Sequence[TrainerCallback] = ()

    @abstractmethod
    def apply(self) -> None:
        """Freeze what does not train, free what does."""

    @abstractmethod
    def loss(
        self, run: nn.Module, inputs: Mapping[str, Tensor], step: int | None
    ) -> tuple[Tensor, Callable[[], Measured]]:
        """The loss of a batch, and what reduces the batch for :meth:`metrics`.

        Args:
            run: the model, maybe wrapped for several processes.
            inputs: the batch, with its ``labels``.
            step: of the optimiser, from 1; None is validation.
        """

    @abstractmethod
    def metrics(self, measured: tuple[np.ndarray, ...], labels: np.ndarray) -> dict[str, float]:
        """Names with ``_exit_<layer>``, from the whole validation set."""


class StageTrainer(Trainer):
    """The Trainer with a stage's loss and an order of samples that resumption cannot change.

    Args:
        objective: what is minimised.
        sampler: the order of the training samples.
        others: the Trainer's own arguments.
    """

    def __init__(
        self, *, objective: Objective, sampler: LengthGroupedBatches, **others: Any
    ) -> None:
        super().__init__(**others)
        self.objective = objective
        self.sampler = sampler
        # The loss is a mean over the micro-batch: the Trainer averages over micro-batches.
        self.model_accepts_loss_kwargs = False

    def compute_loss(
        self,
        model: nn.Module,
        inputs: dict[str, Tensor],
        return_outputs: bool = False,
        num_items_in_batch: Tensor | None = None,
    ) -> Any:
        """The objective's loss at this optimisation step; in validation the reduced batch too.

        Raises:
            NotFiniteError: the loss is NaN or infinite; nothing is learned from there on.
        """
        # global_step counts optimisation steps done, not micro-batches, and survives resumption.
        step = self.state.global_step + 1 if model.training else None
        loss, measure = self.objective.loss(model, inputs, step)
        if not bool(loss.detach().isfinite().all()):
            raise NotFiniteError("The loss is not finite")
        return (loss, dict(enumerate(measure()))) if return_outputs else loss

    def _get_train_sampler(self, train_dataset: Any = None) -> Sampler[int]:
        return self.sampler


def training_arguments(
    settings: TrainingSettings, plan: StepPlan, name: str, folder: Path
) -> TrainingArguments:
    """The Trainer's arguments for one stage.

    Raises:
        UsageError: float16 without a GPU.
    """
    if settings.dtype == "float16" and settings.device != "cuda":
        raise UsageError(
            "float16 trains on a CUDA device only", hint="Use --dtype bfloat16 or float32"
        )
    arguments = TrainingArguments(
        output_dir=str(folder),
        max_steps=plan.total,
        optim=OPTIMIZERS[settings.optimizer],
        learning_rate=settings.learning_rate,
        lr_scheduler_type="linear",
        warmup_steps=plan.warmup,
        weight_decay=settings.weight_decay,
        per_device_train_batch_size=settings.batch_size,
        per_device_eval_batch_size=settings.batch_size,
        gradient_accumulation_steps=settings.gradient_accumulation,
        bf16=settings.dtype == "bfloat16",
        fp16=settings.dtype == "float16",
        use_cpu=settings.device == "cpu",
        seed=derive_seed(settings.seed, "train", name) % 2**32,
        # Validation and checkpoints follow the plan's steps (ScheduleCallback), which also drops
        # old checkpoints: the Trainer's own rotation would drop them before the new one is whole.
        eval_strategy="no",
        save_strategy="no",
        logging_steps=LOG_STEPS,
        logging_strategy="steps",
        disable_tqdm=True,
        report_to="none",
        remove_unused_columns=False,
        label_names=["labels"],
        dataloader_pin_memory=torch.cuda.is_available(),
    )
    # One process drives one GPU; several are torchrun's business, not DataParallel's.
    arguments._n_gpu = min(arguments.n_gpu, 1)
    return arguments


def run_stage(
    model: nn.Module,
    tokenizer: Any,
    objective: Objective,
    training: Tokenized,
    validation: Tokenized,
    settings: TrainingSettings,
    *,
    folder: Path,
    title: str,
    progress: Progress,
    evaluated: callbacks.Evaluated,
) -> None:
    """Train one stage in place, from the newest whole checkpoint in ``folder`` if there is one.

    Args:
        model: in which the objective trains something; in the end nothing is frozen.
        tokenizer: for padding.
        objective: what trains, and on which loss.
        training, validation: the samples.
        settings: optimiser and schedule.
        folder: where checkpoints go.
        title: of the progress bar.
        progress: the display.
        evaluated: told about each validation.

    Raises:
        UsageError: float16 without a GPU.
        NotFiniteError: a loss, or in validation an output, is NaN or infinite.
        OSError: a checkpoint cannot be written.
    """
    model.to(torch.float64 if settings.dtype == "float64" else torch.float32)
    objective.apply()
    order_seed = derive_seed(settings.seed, "batches", objective.name)
    sampler = LengthGroupedBatches(training.lengths, settings.batch_size, order_seed)
    arguments = training_arguments(settings, StepPlan(1, 0, frozenset()), objective.name, folder)
    plan = StepPlan.of(settings, len(training), processes=arguments.world_size)
    arguments.max_steps, arguments.warmup_steps = plan.total, plan.warmup
    for name, value in objective.arguments.items():
        setattr(arguments, name, value)
    padding = copy.copy(tokenizer)
    padding.padding_side = "right"
    display = callbacks.ProgressCallback(progress, title, evaluated)
    trainer = StageTrainer(
        objective=objective,
        sampler=sampler,
        model=model,
        args=arguments,
        # The method alone: the Trainer would save a collator's tokenizer with every checkpoint,
        # which fails where the folder's name is no UTF-8.
        data_collator=objective.collator(padding).__call__,
        train_dataset=training,
        eval_dataset=validation,
        compute_metrics=lambda found: objective.metrics(_parts(found.predictions), found.label_ids),
        callbacks=[callbacks.ScheduleCallback(plan, sampler), *objective.callbacks, display],
    )
    for chatty in (PrinterCallback, ProgressCallback):
        trainer.remove_callback(chatty)
    checkpoint = newest_checkpoint(folder)
    try:
        with no_bars():
            trainer.train(resume_from_checkpoint=None if checkpoint is None else str(checkpoint))
    except NotFiniteError as error:
        raise NotFiniteError(
            f"Training diverged: after {trainer.state.global_step} steps the loss or an output is "
            "not finite",
            hint="Lower --learning-rate, or raise --warmup-ratio",
        ) from error
    finally:
        display.close()
        for parameter in model.parameters():
            parameter.grad = None
            parameter.requires_grad_(True)


def _parts(predictions: Any) -> tuple[np.ndarray, ...]:
    """The Trainer takes the tuple off a single part."""
    return predictions if isinstance(predictions, tuple) else (predictions,)
