"""What the trainings of all families share: settings, splits, the record of each validation."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, Any, Protocol

from eexit_cli import __version__
from eexit_cli.config.train import TrainConfig
from eexit_cli.core.errors import UsageError
from eexit_cli.core.protocols import Progress
from eexit_cli.core.types import Examples
from eexit_cli.data import load_examples
from eexit_cli.families.class_names import names_for_training
from eexit_cli.families.seen_rows import not_learned
from eexit_cli.store.training_rows import TrainingRows
from eexit_cli.training.card import command_line
from eexit_cli.training.checkpoints import Workspace
from eexit_cli.training.processes import Processes
from eexit_cli.training.settings import TrainingSettings

if TYPE_CHECKING:
    from eexit_cli.store.results import Run


@dataclass(frozen=True)
class Shared:
    """What a training of any family is given.

    Attributes:
        config: with its task and its output folder filled in.
        settings: optimiser and schedule.
        workspace: where the unfinished training is.
        processes: this process among those that train together.
        progress: the display.
    """

    config: TrainConfig
    settings: TrainingSettings
    workspace: Workspace
    processes: Processes
    progress: Progress


class Job(Protocol):
    """A training with its data and its model in memory."""

    def train(self, run: Run | None) -> dict[str, float]:
        """All stages that are not finished yet; seconds per stage run here.

        Args:
            run: where validations are recorded; None in all processes but the main one.
        """
        ...

    def finish(self, run: Run, timings: dict[str, float]) -> dict[str, Any]:
        """Choose the default exit, write the model's folder and the run; the run's document."""
        ...


@dataclass(frozen=True)
class Plan:
    """A training whose options have been checked, before anything is loaded.

    Attributes:
        defaults: optimiser settings of this family, where the user gives none.
        start: loads data and model.
        origin: what to tell the user about a choice that eexit made.
    """

    defaults: Mapping[str, Any]
    start: Callable[[Shared], Job]
    origin: str | None = None


def training_settings(
    config: TrainConfig, defaults: Mapping[str, Any], device: str
) -> TrainingSettings:
    """Optimiser and schedule: the user's, else the family's.

    Raises:
        UsageError: a number outside its range.
    """
    shared = {item.name for item in fields(TrainingSettings)} - {"device"}
    given = {name: getattr(config, name) for name in shared}
    chosen = {name: defaults[name] if value is None else value for name, value in given.items()}
    return TrainingSettings(device=device, **chosen)


def splits(
    config: TrainConfig,
    progress: Progress,
    *,
    generates: bool = False,
    before: TrainingRows | None = None,
) -> tuple[Examples, Examples]:
    """Training and validation data.

    Args:
        before: what the model that the training goes on from has seen; what it was trained on does
            not validate.

    Raises:
        UsageError: a split that would train on validation data.
    """
    progress = _Once(progress)  # both splits may be of one file, about which there is one line
    training = load_examples(
        config,
        default_split="train",
        label_names=None if generates else names_for_training(config),
        generates=generates,
        progress=progress,
    )
    validation = load_examples(
        replace(config, split=None, limit=config.validation_limit),
        default_split="validation",
        label_names=None if generates else training.info.label_names,
        generates=generates,
        progress=progress,
    )
    own_whole_file = config.data_file is not None and config.split not in (None, "train")
    if training.split == validation.split or own_whole_file:
        raise UsageError(
            f"--split {config.split} would train on validation data",
            hint="Leave --split out: train on the train split",
        )
    return training, not_learned(validation, before, config.backbone or config.model, progress)


class _Once:
    """A display that is told nothing twice."""

    def __init__(self, progress: Progress) -> None:
        self._told: set[str] = set()
        self._message = progress.message
        self.task = progress.task

    def message(self, text: str) -> None:
        if text not in self._told:
            self._told.add(text)
            self._message(text)


def recorder(run: Run | None, stage: str, progress: Progress) -> Callable[[dict[str, float]], None]:
    """Appends one record per validation, once, however often the training was resumed."""
    if run is None:
        return lambda values: None
    seen = {(record["stage"], record["step"]) for record in run.records()}

    def record(measured: dict[str, float]) -> None:
        # JSON has no NaN: the figure is not there.
        values: dict[str, Any] = {
            name: None if value != value else value for name, value in measured.items()
        }
        scores = [
            "-" if value is None else f"{value:.3f}"
            for name, value in values.items()
            if "_exit_" in name
        ]
        progress.message(
            f"Epoch {values['epoch']:.2f}: validation loss {values['loss']:.3f}, "
            f"exits {' '.join(scores)}"
        )
        if (stage, values["step"]) not in seen:
            run.append({"stage": stage} | values)

    return record


def made_by(config: TrainConfig) -> str:
    """The exact command, options that differ from their defaults only."""
    always = ("model", "task", "output")
    defaults = TrainConfig().as_dict()
    given = config.as_dict()
    hidden = ("resume", "results_dir")
    return command_line(
        {
            name: value
            for name, value in given.items()
            if name not in hidden and (name in always or value != defaults[name])
        }
    )


def versions() -> dict[str, str]:
    """Of the programs that made a model."""
    import torch
    import transformers

    return {
        "eexit": __version__,
        "torch": torch.__version__,
        "transformers": transformers.__version__,
    }
