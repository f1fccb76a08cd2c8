"""The exit threshold that saves most while the risk stays below delta."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, cast

import numpy as np
from numpy.typing import NDArray

from eexit_cli.calibration import CONSISTENCIES
from eexit_cli.calibration.curves import delta_sweep, p_value_rows, sample_sizes, split_rows
from eexit_cli.calibration.engine import Answer, Question, alternatives, ask, calibrate
from eexit_cli.calibration.losses import check_delta
from eexit_cli.calibration.p_values import P_VALUES
from eexit_cli.calibration.report import (
    alternative_rows,
    guarantee,
    metrics,
    needs,
    threshold_rows,
)
from eexit_cli.calibration.sources import Column, Ledger, LossSource, MatrixSource
from eexit_cli.config.calibrate import CalibrateConfig
from eexit_cli.core.errors import RiskNotControlledError, UsageError
from eexit_cli.core.progress import SilentProgress
from eexit_cli.core.types import RunResult
from eexit_cli.pipelines.calibrate_naive import compare_naive
from eexit_cli.pipelines.calibrate_options import check_combination, find_attack_run, resumed
from eexit_cli.pipelines.calibrate_subjects import Calibratable
from eexit_cli.store.calibrations import StoredCalibration, keep
from eexit_cli.store.records import encode
from eexit_cli.store.results import ResultStore, Run

if TYPE_CHECKING:
    from eexit_cli.core.protocols import Progress, Ticker
    from eexit_cli.pipelines.calibrate_subjects import Attackable


CURVES = ("p-value", "sweep", "split")
"""Kinds of records that are points of a figure."""


def run_calibration(config: CalibrateConfig, *, progress: Progress | None = None) -> RunResult:
    """Choose an exit threshold with a guarantee.

    Args:
        config: see :class:`CalibrateConfig`.
        progress: where to show it; None is silent.

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
        return _run(resumed(config, run), run, progress)


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
    subjects = prepare(config, progress)
    first = subjects[0]
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
        # The first measure's is the newest, and so what --threshold calibrated takes.
        for one in reversed(found):
            stored = store(one, config, run)
            if stored is not None:
                one.report["stored"] = stored
        document = run.finish(
            metrics=found[0].figures,
            rows=[row for one in found for row in one.rows],
            timings={
                name: sum(one.timings.get(name, 0.0) for one in found) for name in found[0].timings
            },
            report=_reports(found),
        )
    failed = [one for one in found if not one.answer.certified]
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
    if answer.chosen is not None:
        started = time.perf_counter()
        figures |= subject.speed(answer.chosen)
        timings["latency_seconds"] = time.perf_counter() - started
    session.record_curves(answer)
    report = session.report(answer)
    if config.compare_naive:
        report["comparison"] = compare_naive(subject, session.ledger, session.test, answer)
    if config.verify_on is not None or config.under_attack is not None:
        # Attacks need a model, and so torch; losses alone do without either.
        from eexit_cli.pipelines.calibrate_attack import attack_part

        figures |= attack_part(
            config, cast("Attackable", subject), answer, attacked, report, session.progress
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


def prepare(config: CalibrateConfig, progress: Progress) -> list[Calibratable]:
    """The subject that the configuration names, with its samples ready; one for each measure."""
    if config.losses is not None:
        from eexit_cli.pipelines.calibrate_losses import ExternalLosses

        return [ExternalLosses(config, progress)]
    from eexit_cli.pipelines.loading_decoder import is_decoder_model

    if is_decoder_model(config.model):
        from eexit_cli.pipelines.calibrate_decoder import DecoderCalibration, DecoderSamples

        decoded = DecoderSamples(config, progress)
        return [DecoderCalibration(decoded, knob) for knob in decoded.knobs]
    from eexit_cli.pipelines.calibrate_encoder import EncoderCalibration, EncoderSamples

    traced = EncoderSamples(config, progress)
    return [EncoderCalibration(traced, knob) for knob in traced.knobs]


Known = dict[tuple[str | None, str], dict[int, Column]]
"""Columns by measure (None where a run has one alone) and part, then by index."""


def known_columns(run: Run, samples: dict[str, Any]) -> Known:
    """The thresholds that an interrupted run has behind it.

    Raises:
        UsageError: its samples are not the ones that would be used now.
    """
    known: Known = {}
    for record in run.records():
        if record["kind"] == "samples" and record != samples:
            raise UsageError(
                f"Run '{run.id}' was started with other samples: its data have changed",
                hint="Start a new one: eexit calibrate without --resume",
            )
        if record["kind"] == "threshold":
            key = (record.get("confidence"), record["part"])
            known.setdefault(key, {})[record["index"]] = Column(
                np.array(record["losses"]),
                _vector(record["exit_layers"]),
                _vector(record.get("tokens")),
                record.get("outputs"),
            )
    return known


def _vector(values: Sequence[float] | None) -> NDArray[np.float64] | None:
    return None if values is None else np.array(values)


class Session:
    """One calibration: the losses asked for so far, and what follows from them.

    Args:
        subject: what is calibrated.
        config: the command's settings.
        run: gets a record for every threshold that is run.
        progress: shows them.
        known: columns that an interrupted run left.
        tag: goes into every record: the measure, where the run has several.
    """

    def __init__(
        self,
        subject: Calibratable,
        config: CalibrateConfig,
        run: Run,
        progress: Progress,
        known: Known,
        tag: Mapping[str, str | None],
    ) -> None:
        self.subject = subject
        self.config = config
        self.progress = progress
        self._run = run
        self._tag = tag
        self._ticker: Ticker | None = None
        self.ledger = self._ledger(subject.calibration, "calibration", known)
        test = subject.test
        self.test = None if test is None else self._ledger(test, "test", known)

    def _ledger(self, source: LossSource, part: str, known: Known) -> Ledger:
        columns = known.get((self._tag.get("confidence"), part), {})
        self.subject.restore(part, columns)
        return Ledger(source, on_column=self._recorder(part), known=columns)

    def _recorder(self, part: str) -> Callable[[int, Column], None]:
        thresholds = self.subject.calibration.thresholds

        def record(index: int, column: Column) -> None:
            generated = {"tokens": column.tokens, "outputs": column.outputs}
            self._run.append(
                {
                    "kind": "threshold",
                    **self._tag,
                    "part": part,
                    "index": index,
                    "threshold": thresholds[index],
                    "losses": column.losses,
                    "exit_layers": column.exit_layers,
                    **{name: value for name, value in generated.items() if value is not None},
                }
            )
            if self._ticker is not None:
                self._ticker.advance(1, note=f"{part} {thresholds[index]}")

        return record

    def calibrate(self, question: Question) -> Answer:
        """Find the threshold; run the test samples where they are needed."""
        with self.progress.task("Thresholds", total=len(self.ledger)) as ticker:
            self._ticker = ticker
            # A naive search looks at every threshold, whatever a test says.
            every = self.config.curves or self.config.compare_naive
            run_all = every or self.ledger.source.cheap
            answer = calibrate(self.ledger, question, run_all=run_all)
            ticker.update(total=len(self.ledger.known))
            self._alternatives = alternatives(self.ledger, question)
            if self.test is not None:
                if self.test.source.cheap or self.config.curves:
                    wanted: Iterable[int] = self.ledger.known
                elif answer.chosen is None:
                    wanted = []
                else:
                    # Losses compare with the full model, so its pass is made all the same.
                    wanted = sorted(
                        {0, answer.chosen} if self.test.source.full_model else {answer.chosen}
                    )
                for index in wanted:
                    self.test.get(index)
            self._ticker = None
        return answer

    def figures(self, answer: Answer) -> dict[str, Any]:
        """The flat metrics of the accepted threshold."""
        figures = metrics(answer, self.ledger, self.subject.subject, self.test)
        if answer.chosen is not None:
            for prefix, part in (("", "calibration"), ("test_", "test")):
                quality = self.subject.quality(answer.chosen, part)
                full = self.subject.quality(0, part)
                if quality is not None:
                    figures |= {f"{prefix}quality": quality, f"{prefix}quality_full": full}
        return figures

    def rows(self, answer: Answer) -> list[dict[str, Any]]:
        rows = threshold_rows(answer, self.ledger, self.subject.subject, self.test)
        return [{**self._tag, **row} for row in rows]

    def report(self, answer: Answer) -> dict[str, Any]:
        """Sentences and the tables beside the main one."""
        about = self.subject.subject
        report: dict[str, Any] = {
            "guarantee": guarantee(answer, self.ledger, about),
            "needs": needs(answer, self.ledger),
            "exit": None if answer.chosen is None else self.subject.settings(answer.chosen),
            "alternatives": alternative_rows(self._alternatives, self.ledger, about, self.test),
            "notes": [*self._notes(), *self.subject.notes],
        }
        return report

    def _notes(self) -> list[str]:
        if self.config.losses is not None:
            return []
        notes = [f"{CONSISTENCIES.load(self.config.consistency).meaning}."]
        if self.test is None:
            notes.append("No test samples: nothing was checked on samples kept aside.")
        return [note[0].upper() + note[1:] for note in notes]

    def record_curves(self, answer: Answer) -> None:
        """Append the points of the figures.

        An interrupted run may have some of them already; they depend on the losses alone.
        """
        drawn = {encode(record) for record in self._run.records() if record["kind"] in CURVES}
        for record in self.curve_records(answer):
            tagged = {**record, **self._tag}
            if encode(tagged) not in drawn:
                self._run.append(tagged)

    def curve_records(self, answer: Answer) -> Iterator[dict[str, Any]]:
        """Points of the figures, each with its ``kind``."""
        thresholds = self.ledger.source.thresholds
        for other in self._alternatives:
            name = other.question.p_value.name
            for row in p_value_rows(other, thresholds):
                yield {"kind": "p-value", **row}
            for row in delta_sweep(self.ledger, other.question, self.config.deltas, self.test):
                yield {"kind": "sweep", "p_value": name, "n": other.samples, **row}
        if not self.config.curves or self.config.repeats < 1:
            return
        pool = self.pool()
        sizes = sample_sizes(pool.samples)
        own = answer.question
        # What would happen without calibration is the comparison that shows what it is for.
        questions = {own.p_value.name: own}
        questions.setdefault("naive", replace(own, p_value=P_VALUES.load("naive")))
        with self.progress.task("Repeated splits", total=len(sizes) * len(questions)) as ticker:
            for name, question in questions.items():
                for size in sizes:
                    for row in split_rows(
                        pool,
                        question,
                        deltas=self.config.deltas,
                        sizes=[size],
                        repeats=self.config.repeats,
                        seed=self.config.seed,
                    ):
                        yield {"kind": "split", "p_value": name, **row}
                    ticker.advance()

    def pool(self) -> MatrixSource:
        """Losses of calibration and test samples together, for repeated splits."""
        own = self.ledger.matrix()
        if self.test is None:
            return own
        other = self.test.matrix()
        return MatrixSource(
            thresholds=own.thresholds,
            losses=np.concatenate([own.losses, other.losses]),
            exit_layers=_joined(own.exit_layers, other.exit_layers),
            full_model=own.full_model,
            tokens=_joined(own.tokens, other.tokens),
        )


def _joined(
    one: NDArray[np.float64] | None, other: NDArray[np.float64] | None
) -> NDArray[np.float64] | None:
    return None if one is None or other is None else np.concatenate([one, other])


def store(found: Calibrated, config: CalibrateConfig, run: Run) -> str | None:
    """Keep the answer with the model, for ``--threshold calibrated``.

    A threshold without a guarantee is not kept; the full model, where it is the answer, is.

    Returns:
        The file; None where nothing was kept.
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
    calibration = StoredCalibration(
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
        limits=provenance.limits,
    )
    return str(keep(provenance.ref, provenance.folder, calibration))
