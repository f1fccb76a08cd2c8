"""A decoder and samples of its task, as the attack pipeline needs them."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from eexit_cli.attacks.recipe import Learned, Recipe
from eexit_cli.config.attack import AttackConfig
from eexit_cli.config.field import SEQ2SEQ, refuse_unread
from eexit_cli.core.errors import UsageError
from eexit_cli.core.option import flag
from eexit_cli.core.types import Examples
from eexit_cli.families.batches import prefix_in
from eexit_cli.families.calibrated import with_calibrated
from eexit_cli.families.seq2seq.attack_exits import attacked_settings, exit_reader
from eexit_cli.families.seq2seq.decoding import prepare_sources
from eexit_cli.families.seq2seq.exits import describe_settings
from eexit_cli.families.seq2seq.model import Seq2SeqModel, load_decoder
from eexit_cli.models.decoding.settings import DecodeSettings
from eexit_cli.pipelines.attack.decoder_attacker import DecoderAttacker
from eexit_cli.pipelines.attack.decoder_report import decoder_attack_metrics, decoder_latency
from eexit_cli.pipelines.attack.subject import announce_sample, torch_threads

if TYPE_CHECKING:
    from eexit_cli.core.protocols import Progress
    from eexit_cli.pipelines.attack.attacker import Attacker

Records = list[dict[str, Any]]


@dataclass(frozen=True)
class DecoderSubject:
    """A decoder with exits and text pairs of its task; see ``attack_subject.Subject``."""

    config: AttackConfig
    loaded: Seq2SeqModel
    exit: DecodeSettings
    examples: Examples
    family: str = "decoder"

    @classmethod
    def open(cls, config: AttackConfig, progress: Progress) -> DecoderSubject:
        """Load model and data.

        Raises:
            UsageError: options, an exit that cannot be slowed down, or data that do not fit.
            MissingArtifactError: no such model or data.
        """
        refuse_unread(config, SEQ2SEQ, model=config.model)
        loaded = load_decoder(config, progress=progress)
        config = loaded.own_data(config, progress)
        examples = loaded.examples(config, default_split="test", progress=progress)
        prefix = prefix_in(examples.info)
        config = with_calibrated(
            config, loaded, task=examples.info.name, prefix=prefix, progress=progress
        )
        # Refused here rather than by the first worker, or after a run's folder was made.
        settings = attacked_settings(config, loaded)
        exit_reader(loaded, settings)
        prepare_sources(loaded, examples, progress=progress)
        _check_rates(config, examples, prefix)
        config = dataclasses.replace(config, source_prefix=prefix)
        announce_sample(examples, progress)
        return cls(config, loaded, settings, examples)

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
            "exit": describe_settings(self.exit),
            "training_rows": self.examples.training_rows,
        }

    def search_texts(self) -> Sequence[str]:
        return []  # nothing is learned beforehand

    def attacker(self, learned: Mapping[str, Learned]) -> Attacker:
        return DecoderAttacker(self.config, self.loaded, self.exit)

    def prepare_workers(self, recipes: Sequence[Recipe]) -> None:
        return None

    def threads(self, workers: int | None) -> AbstractContextManager[None]:
        return torch_threads(workers)

    def metrics(self, records: Records, seed: int) -> dict[str, Any]:
        return decoder_attack_metrics(self.examples.info, records, self.num_layers, seed=seed)

    def latency(
        self, records: Mapping[str, Records], progress: Progress
    ) -> dict[str, dict[str, float]]:
        rows = {name: (found, [self.exit] * len(found)) for name, found in records.items()}
        return decoder_latency(rows, self.loaded, self.config, progress)

    def warn(self, records: Records, progress: Progress) -> None:
        return None  # texts have no classes


def _check_rates(config: AttackConfig, examples: Examples, prefix: str) -> None:
    """Letters are changed in inputs of one word, words in others; each has its own rate.

    Raises:
        UsageError: a rate was given that says nothing to any input.
    """
    words = [len(source.removeprefix(prefix).split()) for source in examples.dataset["source"]]
    for name, other, reads, what in (
        ("change_rate", "letter-rate", any(count > 1 for count in words), "inputs of one word"),
        ("letter_rate", "change-rate", any(count < 2 for count in words), "inputs of many words"),
    ):
        if getattr(config, name) != getattr(AttackConfig(), name) and not reads:
            raise UsageError(f"{flag(name)} says nothing to {what}", hint=f"Give --{other}")
