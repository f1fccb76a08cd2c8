"""What a stage of training needs to know, apart from what it trains."""

from __future__ import annotations

from dataclasses import dataclass

from eexit_cli.core.errors import UsageError
from eexit_cli.core.option import flag

OPTIMIZERS = {"adamw": "adamw_torch", "sgd": "sgd", "adafactor": "adafactor"}
"""Names of ``--optimizer``, and transformers' own."""
AUTOCAST_DTYPES = ("bfloat16", "float16")
MASTER_DTYPES = ("float32", "float64")


@dataclass(frozen=True, kw_only=True)
class TrainingSettings:
    """Optimiser and schedule, in the names of ``eexit train``'s options.

    Attributes:
        epochs: passes over the training data per stage; may be fractional.
        learning_rate: the largest, after a linear warm-up, then falling linearly to 0.
        batch_size: samples per process and micro-batch.
        gradient_accumulation: micro-batches per optimisation step.
        optimizer: adamw, sgd (no momentum) or adafactor.
        weight_decay: the optimizer's; biases and norms are spared.
        warmup_ratio: share of the steps in which the learning rate rises.
        evaluations_per_epoch: validations, each with a checkpoint, per epoch.
        dtype: float32 and float64 train in that precision; bfloat16 and float16 run the model
            under autocast over float32 weights.
        device: cpu, cuda or mps; the Trainer chooses among those when several are visible.
        seed: of everything random.
    """

    epochs: float = 3.0
    learning_rate: float = 3e-5
    batch_size: int = 32
    gradient_accumulation: int = 1
    optimizer: str = "adamw"
    weight_decay: float = 0.01
    warmup_ratio: float = 0.1
    evaluations_per_epoch: int = 1
    dtype: str = "float32"
    device: str = "cpu"
    seed: int = 42

    def __post_init__(self) -> None:
        positive = ("epochs", "learning_rate", "batch_size", "gradient_accumulation")
        for name in (*positive, "evaluations_per_epoch"):
            if not getattr(self, name) > 0:
                raise UsageError(
                    f"{flag(name)} {getattr(self, name)} is outside its range",
                    hint="Give a number above 0",
                )
        if not 0 <= self.warmup_ratio < 1:
            raise UsageError(
                f"--warmup-ratio {self.warmup_ratio} is outside its range",
                hint="Give a number from 0 to below 1",
            )
        if self.weight_decay < 0:
            raise UsageError(
                f"--weight-decay {self.weight_decay} is outside its range",
                hint="Give a number, at least 0",
            )
        if self.optimizer not in OPTIMIZERS:
            raise UsageError(
                f"Unknown optimizer '{self.optimizer}'",
                hint=f"Available: {', '.join(OPTIMIZERS)}",
            )
        if self.dtype not in AUTOCAST_DTYPES + MASTER_DTYPES:
            raise UsageError(
                f"Unknown dtype '{self.dtype}'",
                hint=f"Available: {', '.join(MASTER_DTYPES + AUTOCAST_DTYPES)}",
            )


@dataclass(frozen=True)
class StepPlan:
    """When a stage ends, warms up and validates, in optimisation steps.

    Attributes:
        total: steps of the stage.
        warmup: steps in which the learning rate rises.
        evaluations: steps after which validation runs and a checkpoint is written; the last step
            is one of them.
    """

    total: int
    warmup: int
    evaluations: frozenset[int]

    @classmethod
    def of(cls, settings: TrainingSettings, samples: int, *, processes: int = 1) -> StepPlan:
        """Plan for ``samples`` training samples, shared by ``processes`` processes."""
        batches = -(-samples // (settings.batch_size * processes))
        per_epoch = -(-batches // settings.gradient_accumulation)
        total = max(1, -int(-settings.epochs * per_epoch // 1))
        every = per_epoch / settings.evaluations_per_epoch
        marks = {max(1, round(every * mark)) for mark in range(1, int(total / every) + 1)}
        return cls(
            total=total,
            warmup=round(total * settings.warmup_ratio),
            evaluations=frozenset({mark for mark in marks if mark < total} | {total}),
        )
