"""``eexit calibrate``: options checked, losses asked for, a threshold certified and stored."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, cast

from eexit_cli.attacks import ATTACKS
from eexit_cli.calibration.engine import Answer, Question, ask
from eexit_cli.calibration.losses import check_delta
from eexit_cli.calibration.report import bound_words
from eexit_cli.config.calibrate import CalibrateConfig
from eexit_cli.config.decoder import DecoderExitConfig
from eexit_cli.config.engine import ENGINE_OPTIONS
from eexit_cli.config.resume import resumed
from eexit_cli.core.errors import RiskNotControlledError, UsageError
from eexit_cli.core.option import flag
from eexit_cli.core.progress import SilentProgress
from eexit_cli.core.types import RunResult
from eexit_cli.pipelines.calibrate.session import Session, compare_naive, known_columns
from eexit_cli.pipelines.calibrate.subject import Calibratable
from eexit_cli.pipelines.spreading import check_engine, crewed, resettled
from eexit_cli.store.calibrations import StoredCalibration, keeping, listed
from eexit_cli.store.results import ResultStore, Run

if TYPE_CHECKING:
    from eexit_cli.core.protocols import Progress
    from eexit_cli.pipelines.calibrate.model import ModelCalibration


def check_combination(config: CalibrateConfig) -> None:
    """Options that contradict each other, or say nothing together.

    Raises:
        UsageError: what, and how to repair it.
    """
    if not 0 <= config.clean_share <= 1:
        raise UsageError(
            f"--clean-share {config.clean_share} is outside [0, 1]", hint="Give a share, say 0.5"
        )
    if config.test_share is not None:
        if not 0 < config.test_share < 1:
            raise UsageError(
                f"--test-share {config.test_share} is outside (0, 1)",
                hint="Give a share, say 0.5; --test-limit 0 goes without a test",
            )
        if config.test_limit is not None:
            raise UsageError(
                "--test-share and --test-limit exclude each other", hint="Give one of them"
            )
    if config.verify_on is not None and config.under_attack is not None:
        raise UsageError(
            "--verify-on and --under-attack exclude each other",
            hint="The first reads an attack run, the second makes one",
        )
    if config.under_attack is not None:
        ATTACKS.canonical(config.under_attack)
    if config.losses is None:
        if not config.exit_layers is config.num_layers is config.full_model is None:
            raise UsageError(
                "--exit-layers, --full-model and --num-layers go with --losses",
                hint="Add --losses FILE",
            )
        return
    needs_model = {
        "--verify-on": config.verify_on,
        "--under-attack": config.under_attack,
        "--compare-naive": config.compare_naive or None,
        "--thresholds": config.thresholds or None,
        "--confidence": config.confidence,
        "--criterion": config.criterion,
        "--metric": config.metric,
        "--label-names": config.label_names,
        **{
            flag(item.name): getattr(config, item.name)
            for item in dataclasses.fields(DecoderExitConfig)
            if getattr(config, item.name) != item.default
        },
        **{
            flag(name): getattr(config, name)
            for name in ENGINE_OPTIONS
            if getattr(config, name) != getattr(CalibrateConfig, name)
        },
    }
    for option, value in needs_model.items():
        if value is not None:
            raise UsageError(
                f"{option} needs a model, and --losses brings losses alone",
                hint=f"Drop {option}, or drop --losses",
            )


def resumed_config(
    config: CalibrateConfig, run: Run, explicit: Collection[str] = ()
) -> CalibrateConfig:
    """The configuration of an interrupted run.

    Args:
        config: what was given beside ``resume``: nothing, or the same again.
        explicit: options that were given, even where they say what is the default.

    Raises:
        UsageError: an option says something else than the run's.
    """
    # Losses of somebody's own name no model and no consistency: see ``ExternalLosses.described``.
    noted = {
        name: value
        for name, value in run.config.items()
        if value is not None or name not in ("model", "consistency")
    }
    stored = resumed(
        config,
        noted,
        what="run",
        repair=f"go on with {run.id}, or start a new run without --resume",
        explicit=explicit,
        free=("resume", "results_dir", *ENGINE_OPTIONS),
    )
    return dataclasses.replace(
        resettled(stored), results_dir=config.results_dir, resume=config.resume
    )


def void(described: Mapping[str, Any]) -> str:
    """Why nothing can be promised, whatever a test says; empty where something can.

    Args:
        described: what is calibrated, and on what; see ``Calibratable.described``.
    """
    rows = described.get("training_rows")
    if not isinstance(rows, Mapping) or not rows["included"]:
        return ""
    return (
        f"{rows['included']} of the {rows['of']} samples that it comes from trained the model "
        "(--include-training-rows)"
    )


def find_attack_run(config: CalibrateConfig) -> Run:
    """The run that ``verify_on`` names, checked before anything is computed.

    Raises:
        MissingArtifactError: there is no such run.
        UsageError: it is no attack run, or has no records.
    """
    assert config.verify_on is not None
    run = ResultStore(config.results_dir).open(config.verify_on, command="attack")
    if not run.records():
        raise UsageError(
            f"Attack run '{run.id}' has no records", hint="Choose another: eexit results list"
        )
    return run


def run_calibration(
    config: CalibrateConfig, *, progress: Progress | None = None, explicit: Collection[str] = ()
) -> RunResult:
    """Choose an exit threshold with a guarantee.

    Args:
        config: see :class:`CalibrateConfig`.
        progress: where to show it; None is silent.
        explicit: options that were given, even where they say what is the default; with
            ``resume`` they must agree with the run's.

    Returns:
        The run: metrics of the accepted threshold, a row per threshold that was run, and under
        ``report`` the guarantee in one sentence, what each other p-value would have given, and
        notes. Records: the samples, a line per threshold with every sample's loss, exit layer and
        generated text, and the points of the curves, each with its ``kind``. With several
        measures, metrics and report are the first one's, ``report["measures"]`` has each one's,
        and rows and records say theirs in ``confidence``.

    Raises:
        UsageError: options, data or losses that cannot be.
        MissingArtifactError: no such model, data, file or run.
        RiskNotControlledError: nothing could be certified and ``strict`` is set; the run is
            finished all the same.
    """
    progress = progress or SilentProgress()
    if config.resume is None:
        return _run(config, None, progress)
    with ResultStore(config.results_dir).resume(config.resume, command="calibrate") as run:
        return _run(resumed_config(config, run, explicit), run, progress)


def _run(config: CalibrateConfig, unfinished: Run | None, progress: Progress) -> RunResult:
    question = ask(
        delta=config.delta,
        epsilon=config.epsilon,
        p_value=config.p_value,
        procedure=config.procedure,
        starts=config.starts,
    )
    for delta in config.deltas:
        check_delta(delta, "deltas")
    check_combination(config)
    attacked = None if config.verify_on is None else find_attack_run(config)
    if config.under_attack is not None:
        from eexit_cli.pipelines.calibrate.under_attack import check_recipe

        check_recipe(config)
    check_engine(config)
    with prepare(config, progress) as (subjects, engine):
        return _asked(config, question, subjects, attacked, unfinished, engine, progress)


def _asked(
    config: CalibrateConfig,
    question: Question,
    subjects: Sequence[Calibratable],
    attacked: Run | None,
    unfinished: Run | None,
    engine: Callable[[], dict[str, Any]],
    progress: Progress,
) -> RunResult:
    first = subjects[0]
    if config.store and (provenance := first.provenance()) is not None:
        listed(provenance.ref, provenance.folder)  # a damaged file is an error before the work
    question = replace(question, void=void(first.described))
    settings = {**config.as_dict(), **first.described}
    if len(subjects) > 1:
        settings["confidence"] = [subject.measure for subject in subjects]
    settings.pop("resume")
    samples = {"kind": "samples", **{part: list(ids) for part, ids in first.ids.items()}}
    with unfinished or ResultStore(config.results_dir).create("calibrate", settings) as run:
        known = known_columns(run, samples)
        if not run.records():
            run.append(samples)
        found = []
        for subject in subjects:
            tag = {"confidence": subject.measure} if len(subjects) > 1 else {}
            session = Session(subject, config, run, progress, known, tag)
            found.append(_calibrated(session, question, attacked))
        failed = [one for one in found if not one.answer.certified]
        with stored([] if config.strict and failed else found, config, run):
            document = run.finish(
                metrics=found[0].figures,
                rows=[row for one in found for row in one.rows],
                timings={
                    name: sum(one.timings.get(name, 0.0) for one in found)
                    for name in found[0].timings
                },
                report={**_reports(found), **engine()},
            )
    if config.strict and failed:
        raise RiskNotControlledError(
            failed[0].report["guarantee"].rstrip("."),
            hint=(failed[0].report["needs"] or [f"See the run: eexit results show {run.id}"])[0],
        )
    return RunResult(document, run.path)


@dataclass(frozen=True)
class Calibrated:
    """What one measure's calibration found.

    Attributes:
        subject: what was calibrated.
        answer: the accepted threshold.
        figures: flat metrics.
        rows: one per threshold that was run.
        report: sentences, and the tables beside the main one.
        timings: names to seconds.
    """

    subject: Calibratable
    answer: Answer
    figures: dict[str, Any]
    rows: list[dict[str, Any]]
    report: dict[str, Any]
    timings: dict[str, float]


def _calibrated(session: Session, question: Question, attacked: Run | None) -> Calibrated:
    """One measure: the threshold, what it does, and what follows for figures and attacks."""
    subject, config = session.subject, session.config
    started = time.perf_counter()
    answer = session.calibrate(question)
    timings = {"calibration_seconds": time.perf_counter() - started}
    figures = session.figures(answer)
    speed: dict[str, Any] = {}
    if answer.chosen is not None:
        started = time.perf_counter()
        speed = subject.speed(answer.chosen)
        figures |= speed
        timings["latency_seconds"] = time.perf_counter() - started
    session.record_curves(answer)
    report = {"bound": bound_words(figures), **session.report(answer)}
    if config.compare_naive:
        report["comparison"] = compare_naive(subject, session.ledger, session.test, answer, speed)
    if config.verify_on is not None or config.under_attack is not None:
        # Attacks need a model, and so torch; losses alone do without either.
        from eexit_cli.pipelines.calibrate.under_attack import attack_part

        figures |= attack_part(
            config, cast("ModelCalibration", subject), answer, attacked, report, session.progress
        )
    return Calibrated(subject, answer, figures, session.rows(answer), report, timings)


def _reports(found: Sequence[Calibrated]) -> dict[str, Any]:
    """The first measure's report; with several, each one's under ``measures`` too."""
    report = dict(found[0].report)
    if len(found) > 1:
        report["measures"] = [
            {"confidence": one.subject.measure, "metrics": one.figures, **one.report}
            for one in found
        ]
        report["notes"] = [*report["notes"], _SEVERAL]
    return report


_SEVERAL = (
    "Each measure's promise holds for itself: it does not cover choosing the best of them on the "
    "same samples."
)


@contextmanager
def prepare(
    config: CalibrateConfig, progress: Progress
) -> Iterator[tuple[list[Calibratable], Callable[[], dict[str, Any]]]]:
    """The subject that the configuration names, with its samples ready; one for each measure.

    Yields:
        The subjects, and what gives the report's words on the engine.
    """
    if config.losses is not None:
        from eexit_cli.pipelines.calibrate.subject import ExternalLosses

        yield [ExternalLosses(config, progress)], dict
        return
    from eexit_cli.families.opening import open_model
    from eexit_cli.pipelines.calibrate.model import ModelCalibration, ModelSamples

    with crewed(config, open_model(config, progress=progress), progress) as (model, engine):
        samples = ModelSamples(model, config, progress)
        yield [ModelCalibration(samples, knob) for knob in samples.knobs], engine


@contextmanager
def stored(found: Sequence[Calibrated], config: CalibrateConfig, run: Run) -> Iterator[None]:
    """Keep the answers with the model, for ``--threshold calibrated``, unless the block fails.

    Args:
        found: gets the file's path in its reports.
    """
    entries = [(one, entry) for one in found if (entry := to_store(one, config, run)) is not None]
    provenance = entries[0][0].subject.provenance() if entries else None
    if provenance is None:
        yield
        return
    # The first measure's is the newest, and so what --threshold calibrated takes.
    newest_last = [entry for _, entry in reversed(entries)]
    with keeping(provenance.ref, provenance.folder, *newest_last) as path:
        for one, _ in entries:
            one.report["stored"] = str(path)
        yield


def to_store(found: Calibrated, config: CalibrateConfig, run: Run) -> StoredCalibration | None:
    """What is kept of an answer.

    A threshold without a guarantee is not kept; the full model, where it is the answer, is.
    """
    answer, provenance = found.answer, found.subject.provenance()
    if not config.store or provenance is None or answer.chosen is None:
        return None
    if not answer.question.guarantees:
        return None
    settings = found.subject.settings(answer.chosen)
    if settings is None:
        return None
    p = float(answer.p_values[answer.chosen])
    return StoredCalibration(
        weights=provenance.weights,
        task=provenance.task,
        settings=settings,
        certified=answer.certified,
        guarantee=found.report["guarantee"],
        delta=answer.question.delta,
        epsilon=answer.question.epsilon,
        consistency=config.consistency,
        p_value_name=answer.question.p_value.name,
        procedure=answer.question.procedure.name,
        p_value=p if p == p else None,
        samples=answer.samples,
        texts=provenance.texts,
        run_id=run.id,
        created=run.created,
        metric=provenance.metric,
        conditions=provenance.conditions,
    )
