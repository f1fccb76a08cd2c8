"""A decoder's attacked inputs on other decoders and exits."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

from eexit_cli.config.attack import AttackConfig
from eexit_cli.config.field import SEQ2SEQ, refuse_unread
from eexit_cli.core.seed import derive_seed
from eexit_cli.core.types import TaskInfo
from eexit_cli.data import task_info
from eexit_cli.data.generation import OWN_METRICS
from eexit_cli.families.calibrated import with_calibrated
from eexit_cli.families.seen_rows import tell_trained
from eexit_cli.families.seq2seq.attack_exits import settings_by_input
from eexit_cli.families.seq2seq.exits import (
    describe_settings,
)
from eexit_cli.families.seq2seq.model import Seq2SeqModel, load_decoder
from eexit_cli.models.decoding.settings import DecodeSettings
from eexit_cli.pipelines.attack.decoder_report import (
    decoder_latency,
    depth_and_likeness,
    output_record,
)
from eexit_cli.pipelines.attack.defences_decoder import (
    DecoderOutcome,
    Decodings,
    recalibrated,
    undefended,
)
from eexit_cli.pipelines.attack.replay_source import (
    Record,
    Source,
    of_row,
    rows_of,
)
from eexit_cli.pipelines.attack.table import intervals
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
    loaded: Seq2SeqModel
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
        refuse_unread(config, SEQ2SEQ, model=config.model)
        loaded = load_decoder(config, progress=progress)
        name, prefix = config.model, config.source_prefix
        if prefix is None and (loaded.trained_on is not None or loaded.source_prefix is not None):
            prefix = loaded.prefix(None)
        for source in sources:
            _tell_task(source, loaded, name, progress)
            its = str(source.run.config.get("source_prefix") or "")
            tell_trained(loaded, chain.from_iterable(source.records.values()), its, progress)
        first = sources[0].run
        read = first.config.get("source_prefix") if prefix is None else prefix
        config = with_calibrated(
            config, loaded, task=_info(first).name, prefix=str(read or ""), progress=progress
        )
        return cls(name, loaded, settings_by_input(config, loaded), prefix)

    def settings(self) -> dict[str, Any]:
        return describe_settings(self.exit)

    def noted(self, source: Source) -> dict[str, Any]:
        return {}

    def replayed(
        self, run: Run, config: AttackConfig, source: Source, progress: Progress
    ) -> list[dict[str, Any]]:
        info = _info(source.run)
        given = {
            recipe: self._prefixed(records, source) for recipe, records in source.records.items()
        }
        title = f"{source.model}'s inputs on {self.name}"
        decodings = Decodings(
            self.loaded, batch_size=config.batch_size, progress=progress, title=title
        )
        # All recipes together, so that batches are full; most have the same texts before.
        texts = [r[key] for records in given.values() for r in records for key in _TEXTS.values()]
        decodings.of(texts, self.exit)
        decodings.full(texts)
        rows: list[dict[str, Any]] = []
        for recipe, records in given.items():
            seed = derive_seed(config.seed, "intervals", recipe)
            figures = partial(self._figures, info, seed)
            latency = partial(decoder_latency, loaded=self.loaded, config=config, progress=progress)
            belongs = of_row(recipe, source, self.name)
            outcomes = self._outcomes(config, source, records, decodings)
            judged = (
                (outcome, _records(records, outcome, decodings, belongs)) for outcome in outcomes
            )
            rows += rows_of(run, belongs, judged, figures, latency, "output_similarity")
        return rows

    def _figures(self, info: TaskInfo, seed: int, found: list[Record]) -> dict[str, Any]:
        num_layers = self.loaded.num_layers
        return {
            **depth_and_likeness(info, found, num_layers),
            **intervals(found, num_layers, seed=seed),
        }

    def _outcomes(
        self, config: AttackConfig, source: Source, records: list[Record], decodings: Decodings
    ) -> Iterator[DecoderOutcome]:
        before, after = ([record[key] for record in records] for key in _TEXTS.values())
        yield undefended(decodings, before, after, self.exit)
        if config.defences:
            seed = derive_seed(config.seed, "defences", source.run.config.get("seed", 0))
            ids = [str(record["id"]) for record in records]
            outcome = recalibrated(decodings, ids, before, after, self.exit, seed=seed)
            if outcome is not None:
                yield outcome

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


def _records(
    records: list[Record], outcome: DecoderOutcome, decodings: Decodings, belongs: dict[str, str]
) -> list[Record]:
    written = {"before": outcome.before, "after": outcome.after}
    full = {
        when: decodings.full([record[key] for record in records]) for when, key in _TEXTS.items()
    }
    found = []
    for row, record in enumerate(records):
        made: Record = {**belongs, "status": "replayed"}
        made |= {name: record[name] for name in _KEPT if name in record}
        for when in _TEXTS:
            one = written[when][row]
            made |= output_record(when, one.exit_layers, one.output, full[when][row].output)
        found.append(made)
    return found


def _info(run: Run) -> TaskInfo:
    """The task of a run, as ``data.load_examples`` found it."""
    if run.config.get("task") is not None:
        return task_info(str(run.config["task"]))
    name = Path(str(run.config.get("data_file"))).stem
    return TaskInfo(name, kind="generation", metrics=OWN_METRICS)


def _tell_task(source: Source, loaded: Seq2SeqModel, name: str, progress: Progress) -> None:
    """Any decoder reads any text; whether it was trained on such texts is worth a line."""
    asked, own = _info(source.run).name, loaded.trained_on
    if own is not None and source.run.config.get("task") not in (None, own):
        progress.message(
            f"Run '{source.run.id}' attacked '{asked}', '{name}' was trained on '{own}'"
        )
