"""Speed against quality: every setting on the same samples, measured time beside it."""

from __future__ import annotations

import dataclasses
import itertools
import time
from typing import TYPE_CHECKING, Any

from eexit_cli.config.evaluate import EvaluateConfig
from eexit_cli.config.field import flag, option_of, values_of
from eexit_cli.core.errors import UsageError
from eexit_cli.core.progress import SilentProgress
from eexit_cli.core.seed import seed_everything
from eexit_cli.core.types import RunResult
from eexit_cli.families.calibrated import with_calibrated, without_calibration_samples
from eexit_cli.families.opening import open_model
from eexit_cli.families.stopwatch import check_energy, energy_report, meter_for
from eexit_cli.metrics.latency import NOT_TIMED
from eexit_cli.pipelines.spreading import check_engine, crewed
from eexit_cli.store.results import ResultStore

if TYPE_CHECKING:
    from collections.abc import Callable

    from eexit_cli.core.answers import Exit
    from eexit_cli.core.family import Evaluation, Model
    from eexit_cli.core.protocols import Progress


_SWEPT = ("confidence", "top_k_propagation")
"""Options that say what a sweep runs through; it chooses the values of the others itself."""

_SEVERAL = [item.name for item in dataclasses.fields(EvaluateConfig) if option_of(item).several]
_FIRST = ("runtime", *_SWEPT)
GRID = (*_FIRST, *(name for name in _SEVERAL if name not in _FIRST))
"""Options that take several values; those of the first change slowest."""


def choices(config: EvaluateConfig) -> list[Any]:
    """Every combination of the values given, each a copy of ``config`` with one value per option.

    With ``sweep`` there is one, the chosen setting: lists then say what to sweep, and without a
    threshold the chosen setting is the model's own.

    Raises:
        UsageError: several thresholds and the like together with a sweep.
    """
    lists = {name: values_of(config, name) for name in GRID}
    if config.sweep:
        for name in GRID:
            if len(lists[name]) > 1 and name not in _SWEPT:
                option = flag(name)
                raise UsageError(
                    f"Several values of {option} and --sweep exclude each other",
                    hint=f"A sweep runs every setting; give one value of {option}, or drop --sweep",
                )
        for name in _SWEPT:
            if len(lists[name]) > 1 or config.threshold is None:
                lists[name] = []
    combined = itertools.product(*(found or [None] for found in lists.values()))
    made = [
        dataclasses.replace(config, **dict(zip(GRID, values, strict=True))) for values in combined
    ]
    return list(dict.fromkeys(made))


def is_grid(config: EvaluateConfig) -> bool:
    """Does any option have several values?"""
    return any(len(values_of(config, name)) > 1 for name in GRID)


def run_evaluation(config: EvaluateConfig, *, progress: Progress | None = None) -> RunResult:
    """Evaluate one setting, several (a row each) or with ``sweep`` every one, on labelled data.

    Args:
        config: see :class:`EvaluateConfig`.
        progress: where to show it; None is silent.

    Returns:
        The run: metrics of the chosen setting (the first, where options have several values) and
        of the full model, a row per setting where there are several, one record per sample.

    Raises:
        UsageError: options, data or thresholds that cannot be.
        MissingArtifactError: no such model, data or calibration here.
    """
    progress = progress or SilentProgress()
    check_engine(config)
    check_energy(config)
    seed_everything(config.seed)
    model = open_model(config, progress=progress)
    with crewed(config, model, progress) as (crew, report):
        return _evaluated(config, crew, report, progress)


def _evaluated(
    config: EvaluateConfig, model: Model, report: Callable[[], dict[str, Any]], progress: Progress
) -> RunResult:
    config = model.own_data(config, progress)
    examples = model.examples(config, default_split="test", progress=progress)
    told: dict[str, Any] = {"prefix": model.prefix(examples.info), "progress": progress}
    for choice in choices(config):
        examples = without_calibration_samples(examples, choice, model, **told)
    chosen = [
        with_calibrated(choice, model, task=examples.info.name, **told)
        for choice in choices(config)
    ]
    exits = [model.exit(choice) for choice in chosen]
    if len(chosen) == 1 and not is_grid(config):
        config = dataclasses.replace(
            chosen[0],
            confidence=_canonical(config.confidence, model),
            top_k_propagation=config.top_k_propagation,
        )
    several = exits if len(exits) > 1 else []
    rows = model.grid(values_of(config, "confidence"), config) if config.sweep else several
    evaluation = model.evaluation(examples, config, progress)
    meter = meter_for(config, model, progress)
    # A file names its own split, which --split does not take: a repeated run must be able to.
    split = config.split if config.data_file else examples.split
    settings = {
        **config.as_dict(),
        "split": split,
        "exit": exits[0].described,
        "training_rows": examples.training_rows,
    }
    with ResultStore(config.results_dir).create("evaluate", settings) as run:
        metrics = evaluation.figures(exits[0], progress=progress)
        for record in evaluation.records(exits[0]):
            run.append(record)
        table = _table(evaluation, rows, progress)
        timings = dict(evaluation.timings)
        if config.latency_samples > 0:
            started = time.perf_counter()
            timed = [exits[0], *rows] if config.sweep else exits
            speeds = evaluation.speeds(timed, swept=config.sweep, meter=meter)
            metrics |= speeds[exits[0]]
            # Where of a sweep's settings the chosen one alone is timed, its row is like the others.
            untimed = config.sweep and set(speeds) == {exits[0]}
            for exit, row in zip(rows, table, strict=True):
                row |= {} if untimed else speeds.get(exit, {})
            timings["latency_seconds"] = time.perf_counter() - started
        else:
            progress.message(NOT_TIMED)
        metrics |= evaluation.beside(exits[0])
        told = {**report(), **energy_report(meter)}
        document = run.finish(metrics=metrics, rows=table, timings=timings, report=told)
        return RunResult(document, run.path)


def _table(evaluation: Evaluation, exits: list[Exit], progress: Progress) -> list[dict[str, Any]]:
    """Every exit with its figures, under one bar."""
    if not exits:
        return []
    table = []
    with progress.task("Settings", total=len(exits)) as ticker:
        for exit in exits:
            table.append({**exit.described, **evaluation.figures(exit, progress=progress)})
            ticker.advance()
    return table


def _canonical(confidence: Any, model: Model) -> Any:
    """Registered names in place of other spellings."""
    if confidence is None:
        return None
    if isinstance(confidence, tuple):
        return tuple(map(model.measure, confidence))
    return model.measure(confidence)
