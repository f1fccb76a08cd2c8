"""An attack's inputs on other victims: do they slow those down too, and what would help?"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import chain
from typing import TYPE_CHECKING, Any

from eexit_cli.config.attack import AttackConfig
from eexit_cli.config.common import CommonConfig, ExitConfig
from eexit_cli.config.decoder import DecoderExitConfig
from eexit_cli.config.energy import EnergyConfig
from eexit_cli.config.runtime import TORCH
from eexit_cli.core.errors import UsageError
from eexit_cli.core.option import flag
from eexit_cli.core.seed import derive_seed, seed_everything
from eexit_cli.core.types import RunResult, TaskInfo
from eexit_cli.data import TASKS, task_info
from eexit_cli.data.labels import are_generic
from eexit_cli.families.calibrated import with_calibrated
from eexit_cli.families.opening import family_of, open_model
from eexit_cli.families.seen_rows import tell_trained
from eexit_cli.families.stopwatch import energy_report, meter_for
from eexit_cli.metrics.latency import NOT_TIMED
from eexit_cli.pipelines.attack.defences import Inputs, Outcome, Replies, Text, defences, undefended
from eexit_cli.pipelines.attack.replay_source import (
    Record,
    Source,
    check_kind,
    of_row,
    open_source,
    rows_of,
)
from eexit_cli.pipelines.attack.report import depth_and_quality, intervals, leading
from eexit_cli.pipelines.attack.speed import attack_latency
from eexit_cli.pipelines.attack.subject import WHEN, answer_record, pair_of
from eexit_cli.store.results import ResultStore, Run

if TYPE_CHECKING:
    from collections.abc import Sequence

    from eexit_cli.core.answers import Exit
    from eexit_cli.core.family import Model
    from eexit_cli.core.protocols import Progress
    from eexit_cli.metrics.counters import Meter


@dataclass(frozen=True)
class ReplayVictim:
    """A model that inputs are replayed on.

    Attributes:
        name: as it was given.
        prefix: stands before its inputs; None keeps the attacked model's.
    """

    name: str
    model: Model
    exit: Exit
    prefix: str | None

    def replayed(
        self,
        run: Run,
        config: AttackConfig,
        source: Source,
        progress: Progress,
        meter: Meter | None = None,
    ) -> list[dict[str, Any]]:
        """The rows of one source run; appends the records."""
        names = self.model.label_names or ()
        asked = source.info
        info = dataclasses.replace(asked, label_names=names)
        given = {
            recipe: self._prefixed(_relabelled(records, asked, names), source)
            for recipe, records in source.records.items()
        }
        # All recipes together, so that batches are full; most have the same texts before.
        pairs = any(r.get("text_pair") is not None for own in given.values() for r in own)
        texts = {
            (recipe, when): [_text(record, key, pairs) for record in records]
            for recipe, records in given.items()
            for when, key in WHEN.items()
        }
        everything = list(chain.from_iterable(texts.values()))
        replies = Replies(
            self.model,
            everything,
            batch_size=config.batch_size,
            progress=progress,
            title=f"{source.model}'s inputs on {self.name}",
        )
        for exit in (self.exit, self.model.full()):
            replies.of(everything, exit)
        rows: list[dict[str, Any]] = []
        for recipe, records in given.items():
            ids = [str(record["id"]) for record in records]
            inputs = Inputs(replies, ids, texts[recipe, "before"], texts[recipe, "after"])
            outcomes = [undefended(inputs, self.exit)]
            if config.defences:
                seed = derive_seed(config.seed, "defences", source.run.config.get("seed", 0))
                outcomes += defences(inputs, self.exit, seed=seed)
            seed = derive_seed(config.seed, "intervals", recipe)
            latency = partial(
                attack_latency, model=self.model, config=config, progress=progress, meter=meter
            )
            belongs = of_row(recipe, source, self.name)
            judged = ((each, _records(records, inputs, each, belongs)) for each in outcomes)
            figures = partial(self._figures, info, seed)
            rows += rows_of(run, belongs, judged, figures, latency, leading(info))
        return rows

    def _figures(self, info: TaskInfo, seed: int, found: list[Record]) -> dict[str, Any]:
        num_layers = self.model.num_layers
        return {
            **depth_and_quality(info, found, num_layers),
            **intervals(found, num_layers, seed=seed),
        }

    def _prefixed(self, records: list[Record], source: Source) -> list[Record]:
        """Records whose texts begin as this model was trained to read them."""
        if self.prefix in (None, source.prefix):
            return records
        prefixed = []
        for record in records:
            texts = {
                key: f"{self.prefix}{record[key].removeprefix(source.prefix)}"
                for key in WHEN.values()
            }
            # Their places count from the beginning of the other text.
            others = {key: value for key, value in record.items() if key != "changed_words"}
            prefixed.append(others | texts)
        return prefixed


def open_victim(
    config: AttackConfig, sources: Sequence[Source], progress: Progress
) -> ReplayVictim:
    """Load what ``config.model`` names.

    Raises:
        UsageError: options that do not fit, a run of another task, or an exit that depends on
            other inputs.
        MissingArtifactError: no such model.
    """
    name, first = config.model, sources[0]
    model = open_model(config, progress=progress)
    prefix = model.source_prefix if config.source_prefix is None else config.source_prefix
    of_run = dataclasses.replace(config, task=first.run.config.get("task"))
    model.name_outputs(of_run, progress)
    for source in sources:
        if model.label_names is None:
            _tell_task(source, model, name, progress)
        else:
            _check_task(source, model, name, progress)
        tell_trained(model, chain.from_iterable(source.records.values()), source.prefix, progress)
    config = with_calibrated(
        config,
        model,
        task=first.info.name,
        prefix=first.prefix if prefix is None else prefix,
        progress=progress,
    )
    return ReplayVictim(name, model, model.exit_by_input(config), prefix)


def _tell_task(source: Source, model: Model, name: str, progress: Progress) -> None:
    """Who writes reads any text; whether it was trained on such texts is worth a line."""
    asked, own = source.info.name, model.trained_on
    if own is not None and source.run.config.get("task") not in (None, own):
        progress.message(
            f"Run '{source.run.id}' attacked '{asked}', '{name}' was trained on '{own}'"
        )


def _check_task(source: Source, model: Model, name: str, progress: Progress) -> None:
    """Same classes, in whatever order, and as many texts per sample.

    Args:
        progress: told where classes without names are taken to be the same.

    Raises:
        UsageError: they are not.
    """
    info = source.info
    answers, asked = model.label_names or (), info.label_names
    same = sorted(map(str.casefold, answers)) == sorted(map(str.casefold, asked))
    nameless = are_generic(answers) or are_generic(asked)
    if info.kind != "classification" or not (same or (nameless and len(answers) == len(asked))):
        raise UsageError(
            f"Run '{source.run.id}' attacked '{info.name}' ({_listed(asked)}), "
            f"'{name}' answers {_listed(answers)}",
            hint="Replay it on a model of the same task: eexit models list",
        )
    if name == source.model:
        return  # it was attacked with these inputs, whatever it was trained on
    _check_pairs(source, model, name)
    if nameless:
        progress.message(
            f"The classes of run '{source.run.id}' ({_listed(asked)}) and of '{name}' "
            f"({_listed(answers)}) have no names to compare; taking them in this order"
        )


def _check_pairs(source: Source, model: Model, name: str) -> None:
    """A model of a known task was trained on single texts, or on pairs.

    Raises:
        UsageError: the run's inputs are the other.
    """
    task = model.trained_on
    if task is None or task not in TASKS:
        return  # a file's name, or nothing: nobody knows
    records = [record for of_recipe in source.records.values() for record in of_recipe]
    pairs = any(record.get("text_pair") is not None for record in records)
    if pairs != task_info(task).pair:
        words = {True: "pairs of texts", False: "single texts"}
        raise UsageError(
            f"Run '{source.run.id}' attacked {words[pairs]}; '{name}' was trained on "
            f"{words[not pairs]} ('{task}')",
            hint="Replay it on a model of the same task: eexit models list",
        )


def _listed(names: tuple[str, ...]) -> str:
    return ", ".join(names) if names else "no classes"


def _relabelled(records: list[Record], info: TaskInfo, names: tuple[str, ...]) -> list[Record]:
    """Labels in the order of the victim's classes."""
    order = {name.casefold(): index for index, name in enumerate(names)}
    places = [order.get(name.casefold(), index) for index, name in enumerate(info.label_names)]
    return [
        record if record.get("label") is None else {**record, "label": places[int(record["label"])]}
        for record in records
    ]


def _text(record: Mapping[str, Any], key: str, pairs: bool) -> Text:
    return (record[key], pair_of(record, key) or "") if pairs else record[key]


_KEPT = (
    "id",
    "text",
    "text_pair",
    "label",
    "target",
    "references",
    "perturbed_text",
    "perturbed_text_pair",
    "unit",
    "changed_words",
    "num_words",
    "similarity_characters",
    "similarity_embedding",
)


def _records(
    records: Iterable[Record], inputs: Inputs, outcome: Outcome, belongs: dict[str, str]
) -> list[Record]:
    answers = {
        when: zip(replies, inputs.replies.full(texts), strict=True)
        for when, replies, texts in (
            ("before", outcome.before, inputs.before),
            ("after", outcome.after, inputs.after),
        )
    }
    found = []
    for record in records:
        made: Record = {**belongs, "status": "replayed"}
        made |= {name: record[name] for name in _KEPT if name in record}
        for when, pairs in answers.items():
            one, full = next(pairs)
            made |= answer_record(when, one.output, one.layers, full.output)
        found.append(made)
    return found


def run_transfer(
    config: AttackConfig,
    store: ResultStore,
    progress: Progress,
    explicit: Collection[str] = (),
) -> RunResult:
    """Replay attack runs' inputs on other models, or on another exit of the same one.

    Args:
        config: ``transfer`` names the runs, ``model`` the victims, with commas between them.
        explicit: options that were given, even where they say what is the default.

    Returns:
        A run with a row per source run, recipe, victim and defence, and a record per sample for
        the rows without a defence.

    Raises:
        UsageError: a run of another family or task than a victim's, or options that only an attack
            reads.
        MissingArtifactError: no such run or model.
        EexitError: a run that is not finished.
    """
    _check_options(config, explicit)
    seed_everything(config.seed)
    started = time.perf_counter()
    sources = [open_source(store, name) for name in dict.fromkeys(config.transfer)]
    names = list(dict.fromkeys(name.strip() for name in config.model.split(",")))
    for name in names:
        for source in sources:
            check_kind(source, family_of(name).kind, name)
    victims = [
        open_victim(dataclasses.replace(config, model=name), sources, progress) for name in names
    ]
    timings = {"startup_seconds": time.perf_counter() - started}
    meter = meter_for(config, victims[0].model, progress)
    with store.create("attack", _settings(config, sources, victims)) as run:
        started = time.perf_counter()
        rows = [
            row
            for source in sources
            for victim in victims
            for row in victim.replayed(run, config, source, progress, meter)
        ]
        if config.latency_samples == 0:
            progress.message(NOT_TIMED)
        timings["replay_seconds"] = time.perf_counter() - started
        first = rows[0]
        metrics = {key: value for key, value in first.items() if not isinstance(value, str)}
        report = {
            "metrics_of": {key: first[key] for key in ("recipe", "source", "victim")},
            "sources": {source.run.id: source.asked for source in sources},
            **energy_report(meter),
        }
        document = run.finish(metrics=metrics, rows=rows, timings=timings, report=report)
    return RunResult(document, run.path)


def _settings(
    config: AttackConfig, sources: Sequence[Source], victims: Sequence[ReplayVictim]
) -> dict[str, Any]:
    """The run's configuration, as its folder keeps it."""
    settings = config.as_dict()
    for name in ("recipe", "resume", "limit"):
        settings.pop(name)
    settings["transfer"] = [source.run.id for source in sources]
    settings["family"] = sources[0].kind
    settings["exits"] = {victim.name: victim.exit.described for victim in victims}
    # An exported model's, which no option names; in the victims' order where they differ.
    ways = [victim.model.conditions("").get("runtime") for victim in victims]
    if not {*ways} <= {None, TORCH}:
        settings["runtime"] = ways[0] if len({*ways}) == 1 else ways
    if victims[0].model.label_names is not None:
        settings["classes"] = list(sources[0].info.label_names)
    return settings


_READ = {
    *(item.name for item in dataclasses.fields(CommonConfig)),
    *(item.name for item in dataclasses.fields(ExitConfig)),
    *(item.name for item in dataclasses.fields(DecoderExitConfig)),
    *(item.name for item in dataclasses.fields(EnergyConfig)),
    "runtime",
    "source_prefix",
    "transfer",
    "defences",
}


def _check_options(config: AttackConfig, explicit: Collection[str]) -> None:
    """Samples, recipes and their settings are the replayed runs' own."""
    defaults = AttackConfig()
    for item in dataclasses.fields(AttackConfig):
        value = getattr(config, item.name)
        said = item.name in explicit or value != getattr(defaults, item.name)
        if item.name not in _READ and said:
            option = flag(item.name)
            raise UsageError(
                f"{option} says nothing with --transfer, which replays a run as it is",
                hint=f"Leave {option} out",
            )
