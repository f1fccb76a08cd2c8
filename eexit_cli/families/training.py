"""A training of any family: its plan, its stages, its end; a family says what is its own."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any, ClassVar

import torch

from eexit_cli import __version__
from eexit_cli.config.command_line import command_line
from eexit_cli.config.train import TrainConfig
from eexit_cli.core.catalog import unknown_name
from eexit_cli.core.protocols import Progress
from eexit_cli.core.seed import seed_everything
from eexit_cli.core.text import escaped
from eexit_cli.core.types import Examples, TaskInfo
from eexit_cli.core.utf8_path import utf8_path
from eexit_cli.data.raw_text import Cutter
from eexit_cli.families import FAMILIES
from eexit_cli.families.data import KEY, held_out, path_of_data
from eexit_cli.families.seen_rows import note_training_rows
from eexit_cli.families.training_data import tell_data
from eexit_cli.families.training_log import recorder, still_falling
from eexit_cli.families.training_source import Source, splits
from eexit_cli.models.encoder.conversion import as_dtype
from eexit_cli.store.models import ModelRef
from eexit_cli.store.training_rows import read_training_rows
from eexit_cli.training.batches import Tokenized
from eexit_cli.training.card import describe_exit, write_card
from eexit_cli.training.checkpoints import Workspace
from eexit_cli.training.quiet import no_bars
from eexit_cli.training.settings import TrainingSettings
from eexit_cli.training.trainer import Objective, run_stage

if TYPE_CHECKING:
    from accelerate import PartialState

    from eexit_cli.core.family import Family
    from eexit_cli.store.results import Run

Metrics = dict[str, Any]
Rows = list[dict[str, Any]]


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
    processes: PartialState
    progress: Progress


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


def plan(config: TrainConfig) -> Plan:
    """The family's own, whose modules are imported only now."""
    families: list[Family] = [family for _, family in FAMILIES.working()]
    for family in families:
        if config.model in family.trains:
            found: Plan = family.plan(config)
            return found
    raise unknown_name("model family", config.model, [n for each in families for n in each.trains])


class Job(ABC):
    """A training with its data and its model in memory.

    Args:
        shared: what every family is given; its attributes are this one's too.
        source: what it starts from; None is nothing.

    Attributes:
        training, validation: the data.
        seen_before: the rows that the source was trained on.
        held_out: see :func:`eexit_cli.families.data.held_out`.
        model, tokenizer: of the family's :meth:`load`.
    """

    generates: ClassVar[bool] = False
    model: Any
    tokenizer: Any

    def __init__(self, shared: Shared, source: Source | None) -> None:
        self.config, self.settings = shared.config, shared.settings
        self.workspace, self.processes = shared.workspace, shared.processes
        self.progress, self.source = shared.progress, source
        seed_everything(self.config.seed)
        self.seen_before = None if source is None else read_training_rows(source.folder)
        self.training, self.validation = splits(
            self.config,
            self.progress,
            generates=self.generates,
            before=self.seen_before,
            cutter=self.cutter(),
        )
        self.held_out = held_out(self.config, self.progress)
        tell_data(self.config, self.training, self.validation, self.progress)
        self.load()

    def cutter(self) -> Cutter | None:
        """What makes pieces of raw text; None refuses it."""
        return None

    @abstractmethod
    def load(self) -> None:
        """Model and tokenizer, ready to train; may put the data in the model's order."""

    @property
    @abstractmethod
    def depth(self) -> int:
        """Exits, the last one included."""

    @abstractmethod
    def describe(self) -> str:
        """What is trained, and how many layers it has, after the family's name on the screen."""

    @abstractmethod
    def tokenized(self, examples: Examples) -> Tokenized:
        """The samples as they are trained on."""

    @abstractmethod
    def objectives(self) -> Sequence[Objective]:
        """The stages, in their order."""

    @abstractmethod
    def measure(self, run: Run, dtype: torch.dtype) -> tuple[Metrics, Rows]:
        """What the finished model does on validation data; chooses its default exit on them.

        Args:
            run: with the records of all validations.
            dtype: of the model, which is on the CPU now.
        """

    @abstractmethod
    def remember(self, metrics: Metrics) -> None:
        """How the model was made, into its configuration."""

    @abstractmethod
    def facts(self, metrics: Metrics, dtype: str) -> dict[str, Any]:
        """What the card says beside name and licence, see :func:`write_card`; ``dtype`` is the
        file's."""

    @property
    def info(self) -> TaskInfo:
        return self.training.info

    @property
    def weights(self) -> int:
        return sum(weight.numel() for weight in self.model.parameters())

    def train(self, run: Run | None) -> dict[str, float]:
        """All stages that are not finished yet; seconds per stage run here.

        Args:
            run: where validations are recorded; None in all processes but the main one.
        """
        progress, settings = self.progress, self.settings
        training, validation = self.tokenized(self.training), self.tokenized(self.validation)
        lengths = sorted(training.lengths)
        progress.message(
            f"Lengths: {lengths[len(lengths) // 2]} tokens in the median, {lengths[-1]} at most"
        )
        for name, split in (("training", training), ("validation", validation)):
            for what, number, limit in split.cut:
                if number:
                    progress.message(
                        f"{number} of {len(split)} {name} {what} were cut at {limit} tokens"
                    )
        if settings.dtype == "bfloat16" and settings.device == "cpu" and _emulates_bfloat16():
            progress.message(
                "This CPU has no bfloat16 arithmetic: float32 is about ten times faster"
            )
        progress.message(
            f"{self.config.model}{self.describe()}, {self.weights / 1e6:.1f} M weights, "
            f"{len(training)} training and {len(validation)} validation samples of {self.info.name}"
        )
        timings: dict[str, float] = {}
        stages = self.objectives()
        for number, objective in enumerate(stages, start=1):
            name = objective.name
            done = self.workspace.load_finished(name, self.model)
            self.processes.wait_for_everyone()
            if done:
                progress.message(f"Stage {number}, {name}: finished before")
                continue
            started = time.perf_counter()
            run_stage(
                self.model,
                self.tokenizer,
                objective,
                training,
                validation,
                settings,
                folder=self.workspace.stage(name),
                title=f"Stage {number} of {len(stages)}: {name}",
                progress=progress,
                evaluated=recorder(run, name, progress),
            )
            timings[f"{name}_seconds"] = time.perf_counter() - started
            if self.processes.is_main_process:
                self.workspace.finish_stage(name, self.model)
            self.processes.wait_for_everyone()
        return timings

    def finish(self, run: Run, timings: dict[str, float]) -> dict[str, Any]:
        """Choose the default exit, write the model's folder and the run; the run's document."""
        model, config, output = self.model.eval(), self.config, self.workspace.output
        master = torch.float64 if self.settings.dtype == "float64" else torch.float32
        stored = as_dtype(config.save_dtype) if config.save_dtype else master
        # What is measured is what is stored.
        model.to(stored).to(device="cpu", dtype=master)
        metrics, rows = self.measure(run, master)
        self.remember(metrics)
        with self.workspace.publishing() as folder, utf8_path(folder) as named, no_bars():
            model.to(stored).save_pretrained(named)
            self.tokenizer.save_pretrained(named)
            facts = self.facts(metrics, str(stored).removeprefix("torch."))
            card = write_card({"name": output.name, "licence": config.licence, **facts})
            (folder / "README.md").write_text(escaped(card), encoding="utf-8")
            remembers = note_training_rows(
                folder, config, self.training, self.validation, self.seen_before
            )
            size = sum(item.stat().st_size for item in folder.iterdir())
        self.progress.message(f"Model written to {output} ({size / 1e6:.1f} MB)")
        self.progress.message(remembers)
        if (advice := still_falling(run.records(), config.epochs)) is not None:
            self.progress.message(advice)
        timings = {**timings, "seconds": sum(timings.values())}
        metrics = {**metrics, "epochs": config.epochs, "examples": len(self.training)}
        metrics["seconds"] = timings["seconds"]
        return run.finish(metrics=metrics, rows=rows, timings=timings)

    def loaded(self, dtype: torch.dtype) -> dict[str, Any]:
        """What every family's loaded model holds, of this one as it will be stored."""
        output = self.workspace.output
        return {
            "ref": ModelRef(name=output.name, kind="folder", path=output),
            "folder": output,
            "model": self.model,
            "tokenizer": self.tokenizer,
            "device": torch.device("cpu"),
            "dtype": dtype,
        }

    def leave_by(
        self, settings: dict[str, Any], rule: str, quality: float, full: float, mean: float
    ) -> None:
        """Store a default exit with the model, and say so.

        Args:
            settings: of the exit.
            rule: how it was chosen.
            quality, full: the leading metric at that exit and of the full model.
            mean: exit layer.
        """
        leading = self.info.metrics[0]
        self.model.config.exit_defaults = {
            **settings,
            "provenance": {
                "rule": rule,
                "data": f"{self.info.name}, {self.validation.split}",
                "samples": len(self.validation),
                leading: quality,
                f"{leading}_full": full,
                "mean_exit_layer": mean,
            },
        }
        self.progress.message(
            f"Default exit: {describe_exit(settings)}, chosen on validation data: {leading} "
            f"{quality:.4f} against {full:.4f} of the full model, mean exit layer {mean:.2f} of "
            f"{self.depth}"
        )

    def made(self) -> dict[str, Any]:
        """What made the model, or a part of it."""
        return {
            "command": made_by(self.config),
            "train_samples": len(self.training),
            "train_split": self.training.split,
            "versions": versions(),
        }

    def options(self) -> dict[str, Any]:
        """The options that say how a model was made."""
        left_out = ("output", "results_dir", "resume")
        given = self.config.as_dict()
        return {name: value for name, value in given.items() if name not in left_out}

    def history(self, metrics: Metrics, options: Mapping[str, Any], **own: Any) -> dict[str, Any]:
        """How the model was made: options, what they came to, and what was measured."""
        return {
            **options,
            **path_of_data(self.config),
            **self.made(),
            "task": self.info.name,
            "validation": metrics,
            **own,
            **({} if self.held_out is None else {KEY: self.held_out}),
        }


def by_exit(scores: Mapping[int, Mapping[str, float]]) -> tuple[Metrics, Rows]:
    """Metrics and rows of a model that always leaves at one exit; the last one is the full model.

    Args:
        scores: by exit layer, ascending.
    """
    rows: Rows = [{"exit_layer": layer, **found} for layer, found in scores.items()]
    metrics = {
        f"{name}_exit_{layer}": value
        for layer, found in scores.items()
        for name, value in found.items()
    }
    return metrics | {f"{name}_full": value for name, value in scores[max(scores)].items()}, rows


def _emulates_bfloat16() -> bool:
    # Measured on an AVX2 machine: 12 times the float32 time per step.
    return torch.backends.cpu.get_cpu_capability() == "AVX2"


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


def made_by(config: TrainConfig) -> str:
    """The exact command, options that differ from their defaults only."""
    return command_line("train", config.as_dict() | {"results_dir": None})


def versions() -> dict[str, str]:
    """Of the programs that made a model."""
    import torch
    import transformers

    return {
        "eexit": __version__,
        "torch": torch.__version__,
        "transformers": transformers.__version__,
    }
