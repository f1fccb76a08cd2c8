"""An attack's inputs on other victims: do they slow those down too, and what would help?"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING, Any

from eexit_cli.config.attack import AttackConfig
from eexit_cli.config.common import CommonConfig, DecoderExitConfig, ExitConfig, TimingConfig
from eexit_cli.core.errors import UsageError
from eexit_cli.core.option import flag
from eexit_cli.core.seed import seed_everything
from eexit_cli.core.types import RunResult
from eexit_cli.families.opening import family_of
from eexit_cli.metrics.latency import NOT_TIMED
from eexit_cli.pipelines.attack.replay_source import Source, check_kind, open_source
from eexit_cli.pipelines.attack.replay_victim import ReplayVictim, open_victim
from eexit_cli.store.results import ResultStore

if TYPE_CHECKING:
    from eexit_cli.core.protocols import Progress


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
    with store.create("attack", _settings(config, sources, victims)) as run:
        started = time.perf_counter()
        rows = [
            row
            for source in sources
            for victim in victims
            for row in victim.replayed(run, config, source, progress)
        ]
        if config.latency_samples == 0:
            progress.message(NOT_TIMED)
        timings["replay_seconds"] = time.perf_counter() - started
        first = rows[0]
        metrics = {key: value for key, value in first.items() if not isinstance(value, str)}
        report = {
            "metrics_of": {key: first[key] for key in ("recipe", "source", "victim")},
            "sources": {source.run.id: source.asked for source in sources},
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
    if victims[0].model.label_names is not None:
        settings["classes"] = list(sources[0].info.label_names)
    return settings


_READ = {
    *(item.name for item in dataclasses.fields(CommonConfig)),
    *(item.name for item in dataclasses.fields(ExitConfig)),
    *(item.name for item in dataclasses.fields(DecoderExitConfig)),
    *(item.name for item in dataclasses.fields(TimingConfig)),
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
