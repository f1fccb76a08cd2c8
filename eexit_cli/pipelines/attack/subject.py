"""What is attacked: a model, its exit, and samples; one class per family of models."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import torch

from eexit_cli.attacks import wordnet_env
from eexit_cli.attacks.recipe import Learned, Recipe
from eexit_cli.config.attack import AttackConfig
from eexit_cli.config.field import ENCODER, SEQ2SEQ, refuse_unread
from eexit_cli.core.errors import UsageError
from eexit_cli.core.protocols import ExitCriterion
from eexit_cli.core.types import Examples
from eexit_cli.families.calibrated import with_calibrated
from eexit_cli.families.class_names import warn_below_chance
from eexit_cli.families.encoder.exits import describe
from eexit_cli.families.encoder.model import EncoderModel, load_model
from eexit_cli.families.opening import family_of as _family_of
from eexit_cli.pipelines.attack.attacker import Attacker, EncoderAttacker, criterion_of
from eexit_cli.pipelines.attack.learning import Text, search_texts
from eexit_cli.pipelines.attack.report import measure_latency
from eexit_cli.pipelines.attack.table import recipe_metrics

if TYPE_CHECKING:
    from eexit_cli.core.protocols import Progress

Records = list[dict[str, Any]]


class Subject(Protocol):
    """A model with samples to attack, as the pipeline needs it.

    Attributes:
        family: encoder or decoder.
        config: with every exit option resolved.
        samples: ``id``, texts and labels, in the order of the table.
        num_layers: L.
    """

    @property
    def family(self) -> str: ...
    @property
    def config(self) -> AttackConfig: ...
    @property
    def samples(self) -> Sequence[Mapping[str, Any]]: ...
    @property
    def num_layers(self) -> int: ...

    def settings(self) -> dict[str, Any]:
        """The run's configuration, as its folder keeps it."""
        ...

    def search_texts(self) -> Sequence[Text]:
        """Texts that are not reported, to learn on."""
        ...

    def attacker(self, learned: Mapping[str, Learned]) -> Attacker:
        """What attacks the samples, in this process."""
        ...

    def prepare_workers(self, recipes: Sequence[Recipe]) -> None:
        """What is better done once than by every worker."""
        ...

    def threads(self, workers: int | None) -> AbstractContextManager[None]:
        """One torch thread where the user asked for one worker."""
        ...

    def metrics(self, records: Records, seed: int) -> dict[str, Any]:
        """A recipe's figures, with intervals."""
        ...

    def latency(
        self, records: Mapping[str, Records], progress: Progress
    ) -> dict[str, dict[str, float]]:
        """Milliseconds at batch 1, before and after, of each recipe's inputs."""
        ...

    def warn(self, records: Records, progress: Progress) -> None:
        """What the answers before the attack give away about the labels."""
        ...


def announce_sample(examples: Examples, progress: Progress) -> None:
    """Say so where a part of the split is attacked."""
    if len(examples) < examples.total:
        progress.message(
            f"Attacking a sample: {len(examples)} of the {examples.total} texts of "
            f"{examples.info.name}'s {examples.split} split (--limit 0 takes all)"
        )


@contextmanager
def torch_threads(workers: int | None) -> Iterator[None]:
    """One torch thread for a while, unless the user said nothing about workers."""
    before = torch.get_num_threads()
    torch.set_num_threads(before if workers is None else 1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@dataclass(frozen=True)
class EncoderSubject:
    """A multi-exit classifier and samples of its task."""

    config: AttackConfig
    loaded: EncoderModel
    criterion: ExitCriterion
    examples: Examples
    family: str = "encoder"

    @classmethod
    def open(cls, config: AttackConfig, progress: Progress) -> EncoderSubject:
        """Load model and data.

        Raises:
            UsageError: a model or an exit that cannot be slowed down, or data that do not fit.
            MissingArtifactError: no such model or data.
        """
        refuse_unread(config, ENCODER, model=config.model)
        loaded = load_model(config, progress=progress)
        config = loaded.own_data(config, progress)
        examples = loaded.examples(config, default_split="test", progress=progress)
        config = with_calibrated(config, loaded, task=examples.info.name, progress=progress)
        criterion = criterion_of(config, loaded)
        # Refused here rather than by the first worker, or after a run's folder was made.
        from eexit_cli.attacks.closeness import closeness_for

        closeness_for(criterion)
        announce_sample(examples, progress)
        return cls(config, loaded, criterion, examples)

    @property
    def num_layers(self) -> int:
        return self.loaded.num_layers

    @property
    def samples(self) -> Sequence[Mapping[str, Any]]:
        return self.examples.dataset

    def settings(self) -> dict[str, Any]:
        # A file names its own split, which --split does not take: a repeated run must be able to.
        split = self.config.split if self.config.data_file else self.examples.split
        return {
            **self.config.as_dict(),
            "split": split,
            "exit": describe(self.criterion),
            "classes": list(self.examples.info.label_names),
            "training_rows": self.examples.training_rows,
        }

    def search_texts(self) -> Sequence[Text]:
        return search_texts(self.config, self.examples, self.loaded.label_names)

    def attacker(self, learned: Mapping[str, Learned]) -> Attacker:
        return EncoderAttacker(self.config, self.loaded, self.criterion, learned)

    def prepare_workers(self, recipes: Sequence[Recipe]) -> None:
        wanted = self.config.substitutes == "wordnet" or any(
            wordnet_env.HOW_TO_GET in recipe.needs for recipe in recipes
        )
        if wanted and wordnet_env.wordnet_is_there():
            wordnet_env.offer_wordnet()

    def threads(self, workers: int | None) -> AbstractContextManager[None]:
        return torch_threads(workers)

    def metrics(self, records: Records, seed: int) -> dict[str, Any]:
        return recipe_metrics(self.examples.info, records, self.num_layers, seed=seed)

    def latency(
        self, records: Mapping[str, Records], progress: Progress
    ) -> dict[str, dict[str, float]]:
        rows = {name: (found, [self.criterion] * len(found)) for name, found in records.items()}
        return measure_latency(rows, self.loaded, self.config, progress)

    def warn(self, records: Records, progress: Progress) -> None:
        known = [record for record in records if record.get("label") is not None]
        if known:
            labels = [record["label"] for record in known]
            answers = [record["prediction_before"] for record in known]
            warn_below_chance(self.examples.info.label_names, answers, labels, progress)


def _open_decoder(config: AttackConfig, progress: Progress) -> Subject:
    from eexit_cli.pipelines.attack.decoder_subject import DecoderSubject

    return DecoderSubject.open(config, progress)


SUBJECTS: Mapping[str, Callable[[AttackConfig, Progress], Subject]] = {
    "encoder": EncoderSubject.open,
    "decoder": _open_decoder,
}
"""Family of models -> what opens one with its samples."""


def family_of(model: str) -> str:
    """encoder or decoder, from the model's files alone."""
    return "decoder" if _family_of(model).name == SEQ2SEQ else "encoder"


def open_subject(family: str, config: AttackConfig, progress: Progress) -> Subject:
    """The model and the samples that the configuration names.

    Raises:
        UsageError: no attack knows this family of models.
    """
    if family not in SUBJECTS:
        raise UsageError(
            f"'{config.model}' is a {family}, which nothing here attacks",
            hint="Choose a classifier: eexit models list",
        )
    return SUBJECTS[family](config, progress)
