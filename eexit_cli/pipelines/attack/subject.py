"""What is attacked: a model, its exit, and samples."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from eexit_cli.config.attack import AttackConfig
from eexit_cli.core.types import Examples
from eexit_cli.families.calibrated import with_calibrated
from eexit_cli.families.opening import open_model

if TYPE_CHECKING:
    from eexit_cli.core.answers import Exit
    from eexit_cli.core.family import Model
    from eexit_cli.core.protocols import Progress


@dataclass(frozen=True)
class Subject:
    """A model with exits and samples of its task.

    Attributes:
        config: as every process needs it, with every exit option resolved.
    """

    config: AttackConfig
    model: Model
    exit: Exit
    examples: Examples

    @property
    def samples(self) -> Sequence[Mapping[str, Any]]:
        """``id``, texts and labels, in the order of the table."""
        samples: Sequence[Mapping[str, Any]] = self.examples.dataset
        return samples

    def settings(self) -> dict[str, Any]:
        """The run's configuration, as its folder keeps it."""
        # A file names its own split, which --split does not take: a repeated run must be able to.
        split = self.config.split if self.config.data_file else self.examples.split
        named = self.model.label_names is not None
        return {
            **self.config.as_dict(),
            "split": split,
            "exit": self.exit.described,
            **({"classes": list(self.examples.info.label_names)} if named else {}),
            "training_rows": self.examples.training_rows,
        }


def open_subject(config: AttackConfig, progress: Progress) -> Subject:
    """The model and the samples that the configuration names.

    Raises:
        UsageError: a model or an exit that cannot be slowed down, or data that do not fit.
        MissingArtifactError: no such model or data.
    """
    model = open_model(config, progress=progress)
    config = model.own_data(config, progress)
    examples = model.examples(config, default_split="test", progress=progress)
    info = examples.info
    prefix = model.prefix(info)
    config = with_calibrated(config, model, task=info.name, prefix=prefix, progress=progress)
    exit = model.attacked_exit(config)
    config = model.ready_to_attack(config, examples, progress)
    if len(examples) < examples.total:
        progress.message(
            f"Attacking a sample: {len(examples)} of the {examples.total} texts of "
            f"{info.name}'s {examples.split} split (--limit 0 takes all)"
        )
    return Subject(config, model, exit, examples)
