"""An attack's inputs on other victims: do they slow those down too, and what would help?"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from eexit_cli.config.attack import AttackConfig
from eexit_cli.config.common import CommonConfig, ExitConfig
from eexit_cli.core.errors import EexitError, UsageError
from eexit_cli.core.protocols import ExitCriterion
from eexit_cli.core.seed import derive_seed, seed_everything
from eexit_cli.core.types import Examples, RunResult, TaskInfo
from eexit_cli.data import task_info
from eexit_cli.pipelines.attack_defences import (
    NONE,
    Outcome,
    Traces,
    defences,
    described,
    undefended,
)
from eexit_cli.pipelines.attack_report import depth_and_quality, measure_latency
from eexit_cli.pipelines.attack_samples import criterion_of
from eexit_cli.pipelines.attack_table import intervals
from eexit_cli.pipelines.calibrated import with_calibrated
from eexit_cli.pipelines.exiting import describe
from eexit_cli.pipelines.loading import LoadedModel, load_model
from eexit_cli.pipelines.tracing import model_label_names, record_trace
from eexit_cli.store.results import ResultStore, Run

if TYPE_CHECKING:
    from eexit_cli.core.protocols import Progress

Record = dict[str, Any]

LATENCY_SAMPLES = 20
"""Timed per row: a matrix has many."""


@dataclass(frozen=True)
class Source:
    """An attack run and its records.

    Attributes:
        run: the run.
        info: its task.
        records: by recipe.
    """

    run: Run
    info: TaskInfo
    records: Mapping[str, list[Record]]

    @property
    def model(self) -> str:
        return str(self.run.config["model"])


@dataclass(frozen=True)
class Victim:
    """A model that the inputs are replayed on."""

    name: str
    loaded: LoadedModel
    criterion: ExitCriterion


def run_transfer(config: AttackConfig, store: ResultStore, progress: Progress) -> RunResult:
    """Replay attack runs' inputs on other models, or on another exit of the same one.

    Args:
        config: ``transfer`` names the runs, ``model`` the victims, with commas between them.

    Returns:
        A run with a row per source run, recipe, victim and defence, and a record per sample for
        the rows without a defence.

    Raises:
        UsageError: a run of another task than a victim's, or options that only an attack reads.
        MissingArtifactError: no such run or model.
        EexitError: a run that is not finished.
    """
    _check_options(config)
    seed_everything(config.seed)
    started = time.perf_counter()
    sources = [_source(store, name) for name in dict.fromkeys(config.transfer)]
    victims = [
        _victim(config, name.strip(), sources, progress)
        for name in dict.fromkeys(config.model.split(","))
    ]
    timings = {"startup_seconds": time.perf_counter() - started}
    settings = config.as_dict()
    for name in ("recipe", "resume", "limit"):
        settings.pop(name)
    settings["transfer"] = [source.run.id for source in sources]
    settings["exits"] = {victim.name: describe(victim.criterion) for victim in victims}
    settings["label_names"] = list(sources[0].info.label_names)
    with store.create("attack", settings) as run:
        started = time.perf_counter()
        rows = [
            row
            for source in sources
            for victim in victims
            for row in _replayed(run, config, source, victim, progress)
        ]
        timings["replay_seconds"] = time.perf_counter() - started
        first = rows[0]
        metrics = {key: value for key, value in first.items() if not isinstance(value, str)}
        report = {"metrics_of": {key: first[key] for key in ("recipe", "source", "victim")}}
        document = run.finish(metrics=metrics, rows=rows, timings=timings, report=report)
    return RunResult(document, run.path)


_READ = {
    *(item.name for item in dataclasses.fields(CommonConfig)),
    *(item.name for item in dataclasses.fields(ExitConfig)),
    "transfer",
    "defences",
}


def _check_options(config: AttackConfig) -> None:
    """Samples, recipes and their settings are the replayed runs' own."""
    defaults = AttackConfig()
    for item in dataclasses.fields(AttackConfig):
        value = getattr(config, item.name)
        if item.name not in _READ and value != getattr(defaults, item.name):
            option = f"--{item.name.replace('_', '-')}"
            raise UsageError(
                f"{option} says nothing with --transfer, which replays a run as it is",
                hint=f"Leave {option} out",
            )


def _source(store: ResultStore, name: str) -> Source:
    run = store.open(name, command="attack")
    if run.config.get("transfer"):
        raise UsageError(
            f"Run '{run.id}' replays another run's inputs itself",
            hint=f"Replay that one: --transfer {run.config['transfer'][0]}",
        )
    if run.document() is None:
        raise EexitError(
            f"Run '{run.id}' is not finished", hint=f"Go on with: eexit attack --resume {run.id}"
        )
    records: dict[str, list[Record]] = {}
    for record in run.records():
        recipe = record.get("recipe", run.config.get("recipe"))
        records.setdefault(str(recipe), []).append(record)
    return Source(run, _info(run), records)


def _info(run: Run) -> TaskInfo:
    """The task of a run; of a user's own file what the run noted of it."""
    if run.config.get("data_file") is None and run.config.get("task") is not None:
        info = task_info(str(run.config["task"]))
    else:
        info = TaskInfo(name=str(run.config["data_file"]), kind="classification")
    names = run.config.get("label_names")
    return info if names is None else dataclasses.replace(info, label_names=tuple(names))


def _victim(config: AttackConfig, name: str, sources: list[Source], progress: Progress) -> Victim:
    config = dataclasses.replace(config, model=name)
    loaded = load_model(config, progress=progress)
    for source in sources:
        _check_task(source, loaded, name)
    config = with_calibrated(config, loaded, task=sources[0].info.name, progress=progress)
    return Victim(name, loaded, criterion_of(config, loaded))


def _check_task(source: Source, loaded: LoadedModel, name: str) -> None:
    """Same classes, in whatever order.

    Raises:
        UsageError: they are not.
    """
    answers, asked = model_label_names(loaded), source.info.label_names
    same = sorted(map(str.casefold, answers)) == sorted(map(str.casefold, asked))
    generic = len(answers) == len(asked) and all(n.startswith("LABEL_") for n in answers)
    if source.info.kind != "classification" or not (same or generic):
        raise UsageError(
            f"Run '{source.run.id}' attacked '{source.info.name}' ({_listed(asked)}), "
            f"'{name}' answers {_listed(answers)}",
            hint="Replay it on a model of the same task: eexit models list",
        )


def _listed(names: tuple[str, ...]) -> str:
    return ", ".join(names) if names else "no classes"


def _replayed(
    run: Run, config: AttackConfig, source: Source, victim: Victim, progress: Progress
) -> list[dict[str, Any]]:
    """The rows of one source run on one victim; appends the records."""
    rows = []
    for recipe, records in source.records.items():
        title = f"{source.model}'s {recipe} on {victim.name}"
        relabelled = _relabelled(records, source.info, model_label_names(victim.loaded))
        info = dataclasses.replace(source.info, label_names=model_label_names(victim.loaded))
        traces = _traces(config, relabelled, info, victim, title, progress)
        own = undefended(traces, victim.criterion)
        outcomes = [own]
        if config.defences:
            seed = derive_seed(config.seed, "defences", source.run.config.get("seed", 0))
            outcomes += defences(traces, victim.criterion, seed=seed)
        of_none: dict[str, Any] | None = None
        for outcome in outcomes:
            found = _records(relabelled, outcome, recipe, source, victim)
            if outcome.defence == NONE:
                for record in found:
                    run.append(record)
            row: dict[str, Any] = {
                "recipe": recipe,
                "source": source.model,
                "source_run": source.run.id,
                "victim": victim.name,
                "defence": outcome.defence,
                **described(outcome.settings),
                **depth_and_quality(info, found, traces.num_layers),
                **intervals(
                    found, traces.num_layers, seed=derive_seed(config.seed, "intervals", recipe)
                ),
                **measure_latency(
                    found, victim.loaded, outcome.criterion, progress, samples=LATENCY_SAMPLES
                ),
            }
            of_none = of_none or row
            row |= recovered(of_none, row, info.metrics[0])
            rows.append(row)
    return rows


def _relabelled(records: list[Record], info: TaskInfo, names: tuple[str, ...]) -> list[Record]:
    """Labels in the order of the victim's classes."""
    order = {name.casefold(): index for index, name in enumerate(names)}
    places = [order.get(name.casefold(), index) for index, name in enumerate(info.label_names)]
    return [
        record if record.get("label") is None else {**record, "label": places[int(record["label"])]}
        for record in records
    ]


def _traces(
    config: AttackConfig,
    records: list[Record],
    info: TaskInfo,
    victim: Victim,
    title: str,
    progress: Progress,
) -> Traces:
    logits = [
        record_trace(
            victim.loaded,
            _examples(records, key, info),
            batch_size=config.batch_size,
            progress=progress,
            title=f"{title}, {when}",
        ).logits
        for when, key in (("before", "text"), ("after", "perturbed_text"))
    ]
    return Traces(logits[0], logits[1], tuple(str(record["id"]) for record in records))


def _examples(records: list[Record], key: str, info: TaskInfo) -> Examples:
    from datasets import Dataset

    columns: dict[str, list[Any]] = {
        "id": [str(record["id"]) for record in records],
        "text": [record[key] for record in records],
    }
    if any(record.get("text_pair") is not None for record in records):
        # An attack that left the second text of a pair alone need not repeat it.
        columns["text_pair"] = [r.get(f"{key}_pair", r.get("text_pair")) for r in records]
    return Examples(info=info, split=key, dataset=Dataset.from_dict(columns), total=len(records))


_KEPT = (
    "id",
    "text",
    "text_pair",
    "label",
    "perturbed_text",
    "perturbed_text_pair",
    "changed_words",
    "num_words",
    "similarity_characters",
    "similarity_embedding",
)


def _records(
    records: list[Record], outcome: Outcome, recipe: str, source: Source, victim: Victim
) -> list[Record]:
    found = []
    layers = [d.exit_layers.tolist() for d in (outcome.before, outcome.after)]
    answers = [d.predictions.tolist() for d in (outcome.before, outcome.after)]
    for row, record in enumerate(records):
        found.append(
            {
                "recipe": recipe,
                "source": source.model,
                "source_run": source.run.id,
                "victim": victim.name,
                "status": "replayed",
                **{name: record[name] for name in _KEPT if name in record},
                "prediction_before": answers[0][row],
                "prediction_after": answers[1][row],
                "exit_layer_before": layers[0][row],
                "exit_layer_after": layers[1][row],
            }
        )
    return found


def recovered(
    undefended: Mapping[str, Any], defended: Mapping[str, Any], quality: str
) -> dict[str, float | None]:
    """What a defence gives back of what the attack took.

    Args:
        undefended: the row of the victim's own exit.
        defended: the row of the defence.
        quality: the task's leading metric.

    Returns:
        ``layers_recovered``: of the layers that the attack added, the share that the defence saves
        again, counted in layers used after the attack. ``<quality>_recovered``: the same of the
        quality lost. Negative where the defence costs even more; None where nothing was taken.
    """
    # An attack adds layers and takes quality away.
    taken = {"layers": ("mean_exit_layer", 1), quality: (quality, -1)}
    found: dict[str, float | None] = {}
    for name, (figure, sign) in taken.items():
        before, after = (undefended.get(f"{figure}_{when}") for when in ("before", "after"))
        value = defended.get(f"{figure}_after")
        found[f"{name}_recovered"] = None
        if before is not None and value is not None and sign * (after - before) > 1e-12:
            found[f"{name}_recovered"] = (after - value) / (after - before) + 0.0
    return found
