"""What is attacked, and the records of it: what they say of an answer, their texts read back."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from eexit_cli.config.attack import AttackConfig
from eexit_cli.core.types import Examples, TaskInfo
from eexit_cli.families.calibrated import with_calibrated
from eexit_cli.families.opening import open_model
from eexit_cli.metrics.similarity import edit_similarity

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


WHEN = {"before": "text", "after": "perturbed_text"}
"""When -> the record's text."""


def pair_of(record: Mapping[str, Any], key: str) -> str | None:
    """The second text that goes with the one under ``key``; None for single texts.

    An attack that left that of a pair alone need not repeat it.

    Args:
        key: ``text`` or ``perturbed_text``.
    """
    pair: str | None = record.get(f"{key}_pair", record.get("text_pair"))
    return pair


def answer_record(when: str, output: Any, exit_layers: Sequence[int], full: Any) -> dict[str, Any]:
    """What a sample's record says of one answer.

    Args:
        when: before or after.
        output: a class, or a text.
        exit_layers: layer of each decision, 1..L: one, or one per token of a text.
        full: of a text what all layers make of the same input.
    """
    if not isinstance(output, str):
        return {f"prediction_{when}": output, f"exit_layer_{when}": exit_layers[0]}
    return {
        f"exit_layer_{when}": sum(exit_layers) / len(exit_layers),
        f"total_layers_{when}": sum(exit_layers),
        f"tokens_{when}": len(exit_layers),
        f"token_layers_{when}": list(exit_layers),
        f"output_{when}": output,
        f"full_output_{when}": full,
        f"output_similarity_{when}": edit_similarity(output.split(), full.split()),
    }


def layers_of(record: Mapping[str, Any], when: str) -> list[int]:
    """The layer of each decision: one of a classifier, one per token of a text."""
    layers = record.get(f"token_layers_{when}")
    return [record[f"exit_layer_{when}"]] if layers is None else list(layers)


def as_examples(records: Sequence[Mapping[str, Any]], key: str, info: TaskInfo) -> Examples:
    """Records of an attack as data, with the texts under ``key``."""
    from datasets import Dataset

    columns: dict[str, list[Any]] = {"id": [str(record["id"]) for record in records]}
    if info.kind == "generation":
        columns["source"] = [record[key] for record in records]
        answers = [_answers(record) for record in records]
        if all(answers):
            columns["references"] = answers
        return Examples(info, split=key, dataset=Dataset.from_dict(columns), total=len(records))
    columns["text"] = [record[key] for record in records]
    if any(record.get("text_pair") is not None for record in records):
        columns["text_pair"] = [pair_of(record, key) or "" for record in records]
    labels = [record.get("label") for record in records]
    if all(isinstance(label, int) for label in labels):
        columns["label"] = labels
    return Examples(info=info, split=key, dataset=Dataset.from_dict(columns), total=len(records))


def _answers(record: Mapping[str, Any]) -> list[str]:
    """The accepted answers of an attacked sample; none where the record has none."""
    if record.get("references"):
        return [str(answer) for answer in record["references"]]
    return [] if record.get("target") is None else [str(record["target"])]
