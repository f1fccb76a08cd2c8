"""Between transformers' Trainer and eexit: when to validate, what to show, what to record."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from torch import nn
from transformers import TrainerCallback

from eexit_cli.core.protocols import Progress, Ticker
from eexit_cli.training.batches import LengthGroupedBatches
from eexit_cli.training.checkpoints import keep_only
from eexit_cli.training.settings import StepPlan

Evaluated = Callable[[dict[str, float]], None]
"""Called after each validation with epoch, step, loss and one value per exit."""


class ScheduleCallback(TrainerCallback):
    """Validates and writes a checkpoint at the plan's steps, and keeps the newest whole one."""

    def __init__(self, plan: StepPlan, sampler: LengthGroupedBatches) -> None:
        self.plan = plan
        self.sampler = sampler

    def on_epoch_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        # Accelerate passes the epoch on to samplers, but not through every wrapper that skips
        # batches after a resumption.
        self.sampler.set_epoch(int((state.epoch or 0.0) + 1e-9))

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if state.global_step in self.plan.evaluations:
            control.should_evaluate = True
            control.should_save = True

    def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if state.is_world_process_zero:
            keep_only(Path(args.output_dir) / f"checkpoint-{state.global_step}")


class RestCallback(TrainerCallback):
    """Takes the gradients from the parameters that this step leaves alone.

    A loss that ignores an exit gives its head zero gradients; with those, Adam's momentum and
    the weight decay would move it all the same.

    Args:
        moves_at: does this optimisation step, from 1, move the parameter of this name?
    """

    def __init__(self, moves_at: Callable[[int, str], bool]) -> None:
        self.moves_at = moves_at

    def on_pre_optimizer_step(
        self, args: Any, state: Any, control: Any, model: nn.Module | None = None, **kwargs: Any
    ) -> None:
        assert model is not None
        for name, parameter in model.named_parameters():
            if parameter.grad is not None and not self.moves_at(
                state.global_step + 1, name.removeprefix("module.")
            ):
                parameter.grad = None


class ProgressCallback(TrainerCallback):
    """Shows steps and validations on eexit's own display.

    Args:
        progress: the display.
        title: of the stage's bar.
        evaluated: told about each validation.
    """

    def __init__(self, progress: Progress, title: str, evaluated: Evaluated) -> None:
        self.progress = progress
        self.title = title
        self.evaluated = evaluated
        self._bars = ExitStack()
        self._steps: Ticker | None = None
        self._validation: ExitStack | None = None
        self._batches: Ticker | None = None
        self._note: str | None = None

    def close(self) -> None:
        """Take the bars down; also after an interruption."""
        self._close_validation()
        self._bars.close()

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        task = self.progress.task(self.title, total=state.max_steps, done=state.global_step)
        self._steps = self._bars.enter_context(task)

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if self._steps is not None:
            self._steps.advance(1, note=self._note)

    def on_log(
        self,
        args: Any,
        state: Any,
        control: Any,
        logs: dict[str, float] | None = None,
        **kwargs: Any,
    ) -> None:
        if logs and "loss" in logs:
            self._note = f"loss {float(logs['loss']):.3f}"

    def on_prediction_step(
        self, args: Any, state: Any, control: Any, eval_dataloader: Any = None, **kwargs: Any
    ) -> None:
        if self._validation is None:
            self._validation = ExitStack()
            # Nothing is called before the first batch is done: its time is not known.
            task = self.progress.task("Validation", total=len(eval_dataloader), done=1)
            self._batches = self._validation.enter_context(task)
        elif self._batches is not None:
            self._batches.advance(1)

    def on_evaluate(
        self,
        args: Any,
        state: Any,
        control: Any,
        metrics: dict[str, float] | None = None,
        **kwargs: Any,
    ) -> None:
        self._close_validation()
        values = {
            name.removeprefix("eval_"): value
            for name, value in (metrics or {}).items()
            if name == "eval_loss" or "_exit_" in name
        }
        self.evaluated({"epoch": float(state.epoch or 0.0), "step": state.global_step} | values)

    def _close_validation(self) -> None:
        if self._validation is not None:
            self._validation.close()
        self._validation = None
        self._batches = None
