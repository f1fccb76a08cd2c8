"""A decoder's attacked inputs on other decoders and exits."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from eexit_cli.config.attack import AttackConfig
from eexit_cli.core.errors import UsageError
from eexit_cli.core.seed import derive_seed
from eexit_cli.core.types import TaskInfo
from eexit_cli.data import task_info
from eexit_cli.data.generation import OWN_METRICS
from eexit_cli.models.seq2seq.settings import DecodeSettings
from eexit_cli.pipelines.attack_decoder_exits import settings_by_input
from eexit_cli.pipelines.attack_decoder_report import (
    decoder_latency,
    depth_and_likeness,
    output_record,
)
from eexit_cli.pipelines.attack_table import intervals
from eexit_cli.pipelines.attack_transfer_source import LATENCY_SAMPLES, Record, Source, of_row
from eexit_cli.pipelines.calibrated import with_calibrated
from eexit_cli.pipelines.decoder_exiting import (
    describe_settings,
    full_model,
    refuse_encoder_options,
)
from eexit_cli.pipelines.decoder_task import prefix_of
from eexit_cli.pipelines.decoding import DecodedSet, decode_examples
from eexit_cli.pipelines.loading_decoder import LoadedDecoder, load_decoder
from eexit_cli.store.results import Run

if TYPE_CHECKING:
    from eexit_cli.core.protocols import Progress

_TEXTS = {"before": "text", "after": "perturbed_text"}


@dataclass(frozen=True)
class DecoderVictim:
    """A decoder that inputs are replayed on; see ``attack_transfer.Victim``.

    Attributes:
        prefix: stands before its sources; None keeps the attacked model's.
    """

    name: str
    loaded: LoadedDecoder
    exit: DecodeSettings
    prefix: str | None

    @classmethod
    def open(
        cls, config: AttackConfig, sources: Sequence[Source], progress: Progress
    ) -> DecoderVictim:
        """Load it.

        Raises:
            UsageError: options that do not fit, or an exit that depends on other inputs.
            MissingArtifactError: no such model.
        """
        if config.defences:
            raise UsageError(
                "--defences is for classifiers: patience and voting compare answers, "
                f"which '{config.model}', a decoder, gives token by token",
                hint="Leave --defences out; another exit is another replay: --threshold, "
                "--min-layer",
            )
        refuse_encoder_options(config, config.model)
        loaded = load_decoder(config, progress=progress)
        name, prefix = config.model, config.source_prefix
        if prefix is None and (loaded.task is not None or loaded.source_prefix is not None):
            prefix = prefix_of(loaded)
        for source in sources:
            _tell_task(source, loaded, name, progress)
        config = with_calibrated(config, loaded, task=_info(sources[0].run).name, progress=progress)
        return cls(name, loaded, settings_by_input(config, loaded), prefix)

    def settings(self) -> dict[str, Any]:
        return describe_settings(self.exit)

    def noted(self, source: Source) -> dict[str, Any]:
        return {}

    def replayed(
        self, run: Run, config: AttackConfig, source: Source, progress: Progress
    ) -> list[dict[str, Any]]:
        num_layers = self.loaded.num_layers
        given = {
            recipe: self._prefixed(records, source) for recipe, records in source.records.items()
        }
        outputs = self._decoded(given, config.batch_size, source, progress)
        rows = []
        for recipe, records in given.items():
            belongs = of_row(recipe, source, self.name)
            found = [
                {**belongs, "status": "replayed", **_kept(record), **outputs.of(record)}
                for record in records
            ]
            for record in found:
                run.append(record)
            seed = derive_seed(config.seed, "intervals", recipe)
            rows.append(
                {
                    **belongs,
                    "defence": "none",
                    **self.settings(),
                    **depth_and_likeness(_info(source.run), found, num_layers),
                    **intervals(found, num_layers, seed=seed),
                    **decoder_latency(
                        found, self.loaded, self.exit, progress, samples=LATENCY_SAMPLES
                    ),
                }
            )
        return rows

    def _prefixed(self, records: list[Record], source: Source) -> list[Record]:
        """Records whose sources begin as this model was trained to read them."""
        before = str(source.run.config.get("source_prefix") or "")
        if self.prefix in (None, before):
            return records
        prefixed = []
        for record in records:
            texts = {
                key: f"{self.prefix}{record[key].removeprefix(before)}" for key in _TEXTS.values()
            }
            # Their places count from the beginning of the other text.
            others = {key: value for key, value in record.items() if key != "changed_words"}
            prefixed.append(others | texts)
        return prefixed

    def _decoded(
        self,
        given: dict[str, list[Record]],
        batch_size: int | None,
        source: Source,
        progress: Progress,
    ) -> _Outputs:
        """Every text once, whichever recipes it belongs to, with this exit and with all layers."""
        texts = list(
            dict.fromkeys(
                record[key]
                for records in given.values()
                for record in records
                for key in _TEXTS.values()
            )
        )
        title = f"{source.model}'s inputs on {self.name}"
        ways = {title: self.exit, f"{title}, all layers": full_model(self.loaded)}
        live, full = (
            decode_examples(
                self.loaded, texts, way, batch_size=batch_size, progress=progress, title=title
            )
            for title, way in ways.items()
        )
        return _Outputs({text: row for row, text in enumerate(texts)}, live, full)


@dataclass(frozen=True)
class _Outputs:
    """What a victim makes of texts, by their place in both sets."""

    places: dict[str, int]
    live: DecodedSet
    full: DecodedSet

    def of(self, record: Record) -> Record:
        """A record's part on the outputs before and after."""
        found: Record = {}
        for when, key in _TEXTS.items():
            at = self.places[record[key]]
            layers, output = self.live.exit_layers[at], self.live.outputs[at]
            found |= output_record(when, layers, output, self.full.outputs[at])
        return found


_KEPT = (
    "id",
    "text",
    "target",
    "references",
    "perturbed_text",
    "unit",
    "changed_words",
    "num_words",
    "similarity_characters",
)


def _kept(record: Record) -> Record:
    return {name: record[name] for name in _KEPT if name in record}


def _info(run: Run) -> TaskInfo:
    """The task of a run, as ``data.load_examples`` found it."""
    if run.config.get("task") is not None:
        return task_info(str(run.config["task"]))
    name = Path(str(run.config.get("data_file"))).stem
    return TaskInfo(name, kind="generation", metrics=OWN_METRICS)


def _tell_task(source: Source, loaded: LoadedDecoder, name: str, progress: Progress) -> None:
    """Any decoder reads any text; whether it was trained on such texts is worth a line."""
    asked = _info(source.run).name
    if loaded.task is not None and source.run.config.get("task") not in (None, loaded.task):
        progress.message(
            f"Run '{source.run.id}' attacked '{asked}', '{name}' was trained on '{loaded.task}'"
        )
