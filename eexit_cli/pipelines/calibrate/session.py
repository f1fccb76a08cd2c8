"""The losses that a calibration has asked for so far, and what follows from them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from eexit_cli.calibration import CONSISTENCIES
from eexit_cli.calibration.curves import delta_sweep, p_value_rows, sample_sizes, split_rows
from eexit_cli.calibration.engine import Answer, Question, alternatives, calibrate
from eexit_cli.calibration.p_values import P_VALUES
from eexit_cli.calibration.report import (
    alternative_rows,
    alternatives_note,
    column_figures,
    guarantee,
    metrics,
    needs,
    threshold_rows,
)
from eexit_cli.calibration.sources import Column, Ledger, LossSource, MatrixSource
from eexit_cli.config.calibrate import CalibrateConfig
from eexit_cli.core.errors import UsageError
from eexit_cli.pipelines.calibrate.subject import Calibratable
from eexit_cli.store.records import encode
from eexit_cli.store.results import Run

if TYPE_CHECKING:
    from eexit_cli.core.protocols import Progress, Ticker


SHARES = (0.9, 0.95)
"""The naive search keeps this much of the full model's quality."""


def naive_choice(subject: Calibratable, ledger: Ledger, share: float) -> int:
    """The most eager threshold whose quality on the calibration samples is at least ``share`` of
    the full model's.

    Raises:
        UsageError: the samples have no labels to measure quality with.
    """
    full = subject.quality(0, "calibration")
    if full is None:
        raise UsageError(
            "A naive search needs labels", hint="Drop --compare-naive, or give --label-column"
        )
    kept = [
        index
        for index in ledger.known
        if (quality := subject.quality(index, "calibration")) is not None
        and quality >= share * full
    ]
    return max(kept, default=0)


def compare_naive(
    subject: Calibratable,
    ledger: Ledger,
    test: Ledger | None,
    answer: Answer,
    timed: Mapping[str, Any],
) -> list[dict[str, Any]]:
    """One row per way of choosing: the threshold, and what it does on calibration and test.

    Args:
        timed: the accepted threshold's speed, which needs no second measurement.

    Returns:
        ``choice``, ``guarantee``, ``threshold``, ``quality``, ``mean_loss``, depth, measured
        speedup where timing is on, and the same on the test samples as ``test_*``, with
        ``test_within_delta``.
    """
    choices: list[tuple[str, int | None, bool]] = [
        ("full model", 0, True),
        ("calibrated", answer.chosen, answer.question.guarantees),
        *(
            (f"keeps {100 * share:g} % of the quality", naive_choice(subject, ledger, share), False)
            for share in SHARES
        ),
    ]
    speeds = {} if answer.chosen is None else {answer.chosen: dict(timed)}
    rows = []
    for choice, index, promised in choices:
        if index is None:
            continue
        if index not in speeds:
            speeds[index] = subject.speed(index)
        row: dict[str, Any] = {
            "choice": choice,
            "guarantee": promised,
            "threshold": ledger.source.thresholds[index],
            "quality": subject.quality(index, "calibration"),
            **column_figures(ledger, index, subject.subject),
        }
        if test is not None:
            figures = column_figures(test, index, subject.subject)
            row |= {f"test_{name}": value for name, value in figures.items()}
            row["test_quality"] = subject.quality(index, "test")
            row["test_within_delta"] = figures["mean_loss"] <= answer.question.delta
        rows.append(row | {k: v for k, v in speeds[index].items() if k.startswith("speedup")})
    return rows


CURVES = ("p-value", "sweep", "split")
"""Kinds of records that are points of a figure."""

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
        known = len(self.ledger.known)
        with self.progress.task("Thresholds", total=len(self.ledger), done=known) as ticker:
            self._ticker = ticker
            # A naive search looks at every threshold, whatever a test says.
            every = self.config.curves or self.config.compare_naive
            run_all = every or self.ledger.source.cheap
            answer = calibrate(self.ledger, question, run_all=run_all)
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
                missing = [index for index in wanted if index not in self.test.known]
                ticker.update(total=len(self.ledger.known) + len(missing))
                for index in missing:
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
        others = alternative_rows(self._alternatives, self.ledger, about, self.test)
        report: dict[str, Any] = {
            "guarantee": guarantee(answer, self.ledger, about),
            "needs": needs(answer, self.ledger),
            "exit": None if answer.chosen is None else self.subject.settings(answer.chosen),
            "alternatives": others,
            "alternatives_note": alternatives_note(others),
            "notes": [*self._notes(), *self.subject.notes],
        }
        return report

    def _notes(self) -> list[str]:
        notes = []
        if self.config.losses is None:
            notes.append(f"{CONSISTENCIES.load(self.config.consistency).meaning}.")
        rows = self.subject.described.get("training_rows")
        if isinstance(rows, Mapping) and rows["chose_the_exit"]:
            notes.append(_CHOSE.format(count=rows["chose_the_exit"]))
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


_CHOSE = (
    "{count} of the samples chose the model's default exit in its training; its weights were not "
    "fitted to them, and the thresholds that are tested do not depend on that choice."
)


def _joined(
    one: NDArray[np.float64] | None, other: NDArray[np.float64] | None
) -> NDArray[np.float64] | None:
    return None if one is None or other is None else np.concatenate([one, other])
