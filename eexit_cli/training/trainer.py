"""Running one stage on transformers' Trainer, so that accelerate and torchrun work."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import Sampler
from transformers import Trainer, TrainingArguments
from transformers.trainer_callback import PrinterCallback, ProgressCallback

from eexit_cli.core.errors import NotFiniteError, UsageError
from eexit_cli.core.protocols import Progress
from eexit_cli.core.seed import derive_seed
from eexit_cli.training import callbacks
from eexit_cli.training.batches import LengthGroupedBatches, PadRight, TokenizedTexts
from eexit_cli.training.checkpoints import newest_checkpoint
from eexit_cli.training.quiet import no_bars
from eexit_cli.training.settings import OPTIMIZERS, StepPlan, TrainingSettings
from eexit_cli.training.strategies import Stage

ExitMetrics = Callable[[np.ndarray, np.ndarray], dict[str, float]]
"""(logits [samples, exits, classes], labels [samples]) -> names with ``_exit_<layer>``."""

LOG_STEPS = 10


def exit_accuracy(logits: np.ndarray, labels: np.ndarray) -> dict[str, float]:
    """Accuracy of each exit, or its mean squared error when there is one output.

    Args:
        logits: Shape: [samples, exits, classes].
        labels: Shape: [samples].
    """
    exits = range(1, logits.shape[1] + 1)
    if logits.shape[-1] == 1:
        errors = np.square(logits[..., 0] - labels[:, None]).mean(axis=0)
        return {f"mse_exit_{layer}": float(errors[layer - 1]) for layer in exits}
    hits = (logits.argmax(axis=-1) == labels[:, None]).mean(axis=0)
    return {f"accuracy_exit_{layer}": float(hits[layer - 1]) for layer in exits}


class StageTrainer(Trainer):
    """The Trainer with a stage's loss and an order of samples that resumption cannot change.

    Args:
        stage: what is minimised.
        sampler: the order of the training samples.
        others: the Trainer's own arguments.
    """

    def __init__(self, *, stage: Stage, sampler: LengthGroupedBatches, **others: Any) -> None:
        super().__init__(**others)
        self.stage = stage
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
        """The stage's loss at this optimisation step; in validation, the stage's main loss."""
        labels = inputs["labels"]
        outputs = model(**{name: value for name, value in inputs.items() if name != "labels"})
        # global_step counts optimisation steps done, not micro-batches, and survives resumption.
        step = self.state.global_step + 1 if model.training else None
        loss = check_finite(self.stage.loss_at(step, outputs.logits, labels))
        return (loss, outputs) if return_outputs else loss

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
    stage: Stage,
    training: TokenizedTexts,
    validation: TokenizedTexts,
    settings: TrainingSettings,
    *,
    folder: Path,
    shared_pooler: bool,
    freeze: tuple[nn.Parameter, ...] = (),
    title: str,
    progress: Progress,
    evaluated: callbacks.Evaluated,
    metrics: ExitMetrics = exit_accuracy,
) -> int:
    """Train one stage in place, from the newest whole checkpoint in ``folder`` if there is one.

    Args:
        model: with ``num_exits``; its full pass returns ``logits``, Shape: [batch, exits, classes].
        tokenizer: for padding.
        stage: what trains, and on which loss.
        training, validation: the samples.
        settings: optimiser and schedule.
        folder: where checkpoints go.
        shared_pooler: whether one pooler serves all exits.
        freeze: parameters kept as they are, whatever the stage says.
        title: of the progress bar.
        progress: the display.
        evaluated: told about each validation.
        metrics: computed at each validation.

    Returns:
        Number of weights that were trained.

    Raises:
        UsageError: float16 without a GPU.
        OSError: a checkpoint cannot be written.
    """
    num_exits = int(model.num_exits)  # type: ignore[arg-type]
    model.to(torch.float64 if settings.dtype == "float64" else torch.float32)
    stage.apply(model, num_exits=num_exits, shared_pooler=shared_pooler)
    for parameter in freeze:
        parameter.requires_grad_(False)
    trained = sum(weight.numel() for weight in model.parameters() if weight.requires_grad)
    order_seed = derive_seed(settings.seed, "batches", stage.name)
    sampler = LengthGroupedBatches(training.lengths, settings.batch_size, order_seed)
    arguments = training_arguments(settings, StepPlan(1, 0, frozenset()), stage.name, folder)
    plan = StepPlan.of(settings, len(training), processes=arguments.world_size)
    arguments.max_steps, arguments.warmup_steps = plan.total, plan.warmup
    display = callbacks.ProgressCallback(progress, title, evaluated)
    trainer = StageTrainer(
        stage=stage,
        sampler=sampler,
        model=model,
        args=arguments,
        data_collator=PadRight(tokenizer),
        train_dataset=training,
        eval_dataset=validation,
        compute_metrics=lambda prediction: metrics(prediction.predictions, prediction.label_ids),
        callbacks=[
            callbacks.ScheduleCallback(plan, sampler),
            callbacks.RestCallback(stage, num_exits=num_exits, shared_pooler=shared_pooler),
            display,
        ],
    )
    train_to_the_end(trainer, model, folder, display)
    return trained


def check_finite(loss: Tensor) -> Tensor:
    """The loss itself.

    Raises:
        NotFiniteError: it is NaN or infinite; nothing is learned from there on.
    """
    if not bool(loss.detach().isfinite().all()):
        raise NotFiniteError("The loss is not finite")
    return loss


def train_to_the_end(
    trainer: Trainer, model: nn.Module, folder: Path, display: callbacks.ProgressCallback
) -> None:
    """Train from the newest whole checkpoint in ``folder``; then nothing is frozen any more.

    Raises:
        NotFiniteError: a loss, or in validation an output, is NaN or infinite.
    """
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
