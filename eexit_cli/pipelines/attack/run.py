"""Slow a multi-exit model down, sample by sample, recipe by recipe, and measure the cost."""

from __future__ import annotations

import dataclasses
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

from eexit_cli.config.attack import AttackConfig
from eexit_cli.core.errors import EexitError, MissingArtifactError, UsageError
from eexit_cli.core.progress import SilentProgress
from eexit_cli.core.seed import derive_seed, seed_everything
from eexit_cli.core.types import RunResult
from eexit_cli.engine import Engine, EngineError, Job, Told
from eexit_cli.families.class_names import warn_below_chance
from eexit_cli.families.opening import family_of
from eexit_cli.families.stopwatch import check_energy, energy_report, meter_for
from eexit_cli.metrics.latency import NOT_TIMED
from eexit_cli.pipelines.attack.attacker import (
    Attacker,
    Task,
    attackers,
    learned_for,
    learning_of,
    search_texts,
)
from eexit_cli.pipelines.attack.plan import (
    Plan,
    check_numbers,
    check_samples,
    check_settings,
    check_unchanged,
    list_recipes,
    plan_recipes,
    resumed_config,
    with_one_budget,
)
from eexit_cli.pipelines.attack.report import REASONS, attack_metrics, comparisons, strongest
from eexit_cli.pipelines.attack.speed import attack_latency
from eexit_cli.pipelines.attack.subject import Subject, open_subject
from eexit_cli.pipelines.spreading import EngineCrew, remembered, spreads, torch_threads
from eexit_cli.store.results import ResultStore, Run

if TYPE_CHECKING:
    from eexit_cli.core.protocols import Progress

__all__ = ["list_recipes", "run_attack"]

Record = dict[str, Any]
Records = list[Record]

_NAMED = 5
"""Failed samples that a line names; the document has all of them."""


def run_attack(
    config: AttackConfig, *, progress: Progress | None = None, explicit: Collection[str] = ()
) -> RunResult:
    """Attack a sample of a data set with one recipe or several.

    Each sample's record is written as it is finished, and depends on the seed, the recipe and the
    sample alone: a killed run, resumed, ends with the records of an unbroken one, and so does a run
    with several workers.

    Args:
        config: see :class:`AttackConfig`. With ``resume`` the rest comes from that run; with
            ``transfer`` nothing is attacked, another run's inputs are replayed.
        progress: where to show it; None is silent.
        explicit: options that were given, even where they say what is the default; with
            ``resume`` they must agree with the run's, with ``transfer`` say something to it.

    Returns:
        The run: speed and quality before and after, a row per recipe, a record per recipe and
        sample. With several recipes the metrics are those of the one that removes most of the
        gain, named in the document's report.

    Raises:
        UsageError: options, data or a model that cannot be attacked.
        MissingArtifactError: no such model, data or run, or nothing that a recipe needs.
        EexitError: workers that keep dying.
    """
    progress = progress or SilentProgress()
    store = ResultStore(config.results_dir)
    if config.resume is not None:
        with store.resume(config.resume, command="attack") as run:
            return _attack(resumed_config(config, run, explicit), run, store, progress)
    check_numbers(config)
    check_energy(config)
    _check_names(config)
    if config.transfer:
        from eexit_cli.pipelines.attack.replay import run_transfer

        return run_transfer(config, store, progress, explicit)
    return _attack(config, None, store, progress)


def _check_names(config: AttackConfig) -> None:
    """Commas make a list of victims, and of nothing else.

    Raises:
        UsageError: a list of runs, or a list of models to attack.
    """
    for name in config.transfer:
        if "," in name and not Path(name).exists():
            runs = " ".join(f"--transfer {part.strip()}" for part in name.split(","))
            raise UsageError(f"--transfer takes one run, not '{name}'", hint=f"Repeat it: {runs}")
    if "," in config.model and not config.transfer and not Path(config.model).exists():
        raise UsageError(
            f"An attack takes one model, not '{config.model}'",
            hint="Lists of models work only with --transfer RUN, which replays a run's inputs",
        )


def _attack(
    config: AttackConfig, resumed: Run | None, store: ResultStore, progress: Progress
) -> RunResult:
    check_numbers(config)
    plan = plan_recipes(config, family_of(config.model).kind)
    check_settings(config, plan.recipes)
    config = with_one_budget(config, plan, progress)
    if config.recipe != "all":
        config = dataclasses.replace(config, recipe=",".join([*plan.names, *plan.lacking]))
    seed_everything(config.seed)
    started = time.perf_counter()
    subject = open_subject(config, progress)
    loading = time.perf_counter() - started
    plan = plan.without_gradients(*subject.model.no_gradients(config))
    for name, reason in plan.lacking.items():
        progress.message(f"{name} is left out: it {reason}")
    settings = {**subject.settings(), "recipes": list(plan.names)}
    settings.pop("resume")
    if resumed is not None:
        check_unchanged(resumed, settings)
        check_samples(resumed, subject.samples)
        return _Execution(resumed, plan, subject, progress, loading).finish()
    with store.create("attack", settings) as run:
        return _Execution(run, plan, subject, progress, loading).finish()


class _Execution:
    """One run being made.

    Args:
        run: open for writing.
        plan: its recipes.
        subject: model and data.
        loading: seconds that opening them took.
    """

    def __init__(
        self, run: Run, plan: Plan, subject: Subject, progress: Progress, loading: float
    ) -> None:
        self.run, self.plan, self.subject, self.progress = run, plan, subject, progress
        self.config = subject.config
        self.meter = meter_for(self.config, subject.model, progress)
        self.timings = {"startup_seconds": loading}
        self.tokens = (0, 0)
        self.engine: Told | None = None
        self.failed: list[dict[str, str]] = []
        self._attacker: Attacker | None = None
        self.learned: Mapping[str, dict[str, Any]] = {}
        # A run of before there were tables has no names in its records.
        first = plan.names[0]
        self.done = {(r.get("recipe", first), r["id"]): r for r in run.records()}

    def finish(self) -> RunResult:
        """Attack what has no record yet, and write the document."""
        names, examples = self.subject.model.label_names, self.subject.examples
        with self._attackers() as crew:
            self.learned = learned_for(
                self.run,
                self.plan,
                self.attacker,
                lambda: search_texts(self.config, examples, names),
                self.progress,
                crew,
            )
            started = time.perf_counter()
            self._drop_what_cannot_start()
            self._attack_samples(crew)
            self.timings["attack_seconds"] = time.perf_counter() - started
        records = self._records()
        self._warn(records[self.plan.names[0]])
        rows = self._rows(records)
        best = strongest(rows)
        report: dict[str, Any] = {"metrics_of": best["recipe"], "left_out": self.plan.lacking}
        if len(records) > 1:
            report["comparisons"] = comparisons(
                records, self.subject.model.num_layers, seed=self.config.seed
            )
        if self.tokens[0]:
            report["padding_factor"] = self.tokens[1] / self.tokens[0]
        if self.engine is not None:
            report["engine"] = remembered(self.engine)
        if self.failed:
            report["failed"] = self.failed
        report |= energy_report(self.meter)
        metrics = {key: value for key, value in best.items() if not isinstance(value, str)}
        document = self.run.finish(metrics=metrics, rows=rows, timings=self.timings, report=report)
        return RunResult(document, self.run.path)

    def _records(self) -> dict[str, Records]:
        """By recipe, of the samples that all of them finished.

        Raises:
            EexitError: there is none.
        """
        gone = {each["id"] for each in self.failed}
        every = [str(sample["id"]) for sample in self.subject.samples]
        left = [each for each in every if each not in gone]
        if gone:
            self.progress.message(
                f"{len(gone)} of {len(every)} samples failed and are left out of every figure: "
                + "; ".join(f"'{each['id']}' {each['reason']}" for each in self.failed[:_NAMED])
            )
        if not left:
            raise EexitError(
                "No sample was attacked to its end: " + self.failed[0]["reason"],
                hint=f"Go on with fewer --workers or another limit: eexit attack --resume "
                f"{self.run.path}",
            )
        return {name: [self.done[name, each] for each in left] for name in self.plan.names}

    def attacker(self) -> Attacker:
        """This process's own, made on first use."""
        if self._attacker is None:
            subject = self.subject
            self._attacker = Attacker(self.config, subject.model, subject.exit, self.learned)
        return self._attacker

    def _warn(self, records: Records) -> None:
        """Say so where the answers before the attack give away wrong labels."""
        known = [record for record in records if record.get("label") is not None]
        labels = [record["label"] for record in known]
        answers = [record["prediction_before"] for record in known]
        warn_below_chance(self.subject.examples.info.label_names, answers, labels, self.progress)

    def _rows(self, records: Mapping[str, Records]) -> list[dict[str, Any]]:
        rows: list[Record] = []
        subject, info = self.subject, self.subject.examples.info
        started = time.perf_counter()
        # All recipes in turn, so that their rows compare.
        timed = {name: (own, [subject.exit] * len(own)) for name, own in records.items()}
        latency = attack_latency(timed, subject.model, self.config, self.progress, self.meter)
        self.timings["latency_seconds"] = time.perf_counter() - started
        if self.config.latency_samples == 0:
            self.progress.message(NOT_TIMED)
        for name, of_recipe in records.items():
            seed = derive_seed(self.config.seed, "intervals", name)
            metrics = attack_metrics(info, of_recipe, subject.model.num_layers, seed=seed)
            learned = learning_of(self.learned.get(name))
            rows.append({"recipe": name, **metrics, **latency[name], **learned})
        self._tell_skipped(records)
        rows += [{"recipe": name, "status": why} for name, why in self.plan.lacking.items()]
        return rows

    def _tell_skipped(self, records: Mapping[str, Records]) -> None:
        """Who skipped how many, and why; recipes that skipped alike share a line."""
        told: dict[str, list[str]] = {}
        for name, of_recipe in records.items():
            reasons = Counter(
                REASONS[record.get("reason", "all layers")]
                for record in of_recipe
                if record["status"] == "skipped"
            )
            for reason, count in reasons.items():
                line = f"{count} of {len(of_recipe)} samples {reason} already and were not attacked"
                told.setdefault(line, []).append(name)
        for line, names in told.items():
            everybody = len(names) == len(records)
            self.progress.message(line if everybody else f"{', '.join(names)}: {line}")

    def _waiting(self, name: str) -> list[Mapping[str, Any]]:
        samples = self.subject.samples
        return [sample for sample in samples if (name, str(sample["id"])) not in self.done]

    def _drop_what_cannot_start(self) -> None:
        """What a recipe needs may be there and yet not load; then it is a row that says so."""
        for recipe in self.plan.recipes:
            if not recipe.needs or not self._waiting(recipe.name):
                continue
            try:
                self.attacker().build(recipe.name)
            except EexitError:
                raise
            except Exception as error:  # a library's own, of any kind
                reason = " ".join(f"{type(error).__name__}: {error}".split())
                names = tuple(name for name in self.plan.names if name != recipe.name)
                if not names:
                    raise MissingArtifactError(
                        f"Recipe '{recipe.name}' does not start here: {reason}",
                        hint="What it needs, and how to get it: eexit attack --list-recipes",
                    ) from error
                lacking = {**self.plan.lacking, recipe.name: f"does not start here: {reason}"}
                self.plan = dataclasses.replace(self.plan, names=names, lacking=lacking)
                self.progress.message(f"{recipe.name} is left out: it {lacking[recipe.name]}")

    def _attackers(self) -> AbstractContextManager[EngineCrew | None]:
        """Who attacks; None is this process."""
        if not (spreads(self.config) and any(map(self._waiting, self.plan.names))):
            return nullcontext()
        jobs = sum(len(self._waiting(name)) for name in self.plan.names)
        learns = any(recipe.fit is not None for recipe in self.plan.recipes)
        return attackers(
            self.subject, self.plan, None if learns else jobs, self.timings, self.progress
        )

    def _attack_samples(self, crew: EngineCrew | None) -> None:
        if self.done:
            self.progress.message(f"Going on with {self.run.id}: {len(self.done)} samples are done")
        total = len(self.plan.names) * len(self.subject.samples)
        try:
            if crew is not None:
                self._with_workers(crew.engine)
            else:
                with torch_threads(self.config.workers):
                    self._in_this_process()
        except KeyboardInterrupt:
            # How to go on is the command line's to say, after this.
            self.progress.message(f"Stopped after {len(self.done)} of {total} samples")
            raise

    def _in_this_process(self) -> None:
        for recipe in self.plan.recipes:
            waiting = self._waiting(recipe.name)
            if not waiting:
                continue
            if recipe.is_ordered(self.config) and len(waiting) < len(self.subject.samples):
                self.progress.message(
                    f"{recipe.name} attacks samples in order: those that are done are repeated"
                )
                waiting = list(self.subject.samples)
            attacker = self.attacker()
            with self._taking(f"Attack {recipe.name}", [recipe.name]) as take:
                for sample in waiting:
                    take(attacker.attack(recipe.name, sample))
        if self._attacker is not None:
            self.tokens = self._attacker.tokens

    def _with_workers(self, engine: Engine) -> None:
        if self._attacker is not None:
            self.tokens, self._attacker = self._attacker.tokens, None  # its memory is theirs now
        jobs = {
            f"sample '{sample['id']}' of {name}": Task(name, sample, self.learned.get(name))
            for name in self.plan.names
            for sample in self._waiting(name)
        }
        names = self.plan.names
        what = names[0] if len(names) == 1 else f"with {len(names)} recipes"
        self.engine = engine.told
        try:
            with self._taking(f"Attack {what}, {engine.told.side_by_side}", names) as take:
                for _, (record, tokens) in engine.run(map(Job, jobs, jobs.values())):
                    take(record)
                    self.tokens = (self.tokens[0] + tokens[0], self.tokens[1] + tokens[1])
        except EngineError as error:
            if not self.done:
                raise
            # A path names the run wherever it lies.
            raise EexitError(
                error.message,
                hint=f"{len(self.done)} records are kept. Go on without workers: "
                f"eexit attack --resume {self.run.path} --workers 1 --engine local",
            ) from error
        self.failed = [
            {"recipe": jobs[name].recipe, "id": str(jobs[name].sample["id"]), "reason": why}
            for name, why in engine.told.failed.items()
        ]

    @contextmanager
    def _taking(self, title: str, names: Sequence[str]) -> Iterator[Callable[[Record], None]]:
        """A bar for these recipes; gives what takes a record into the run."""
        samples = self.subject.samples
        finished = sum((name, str(s["id"])) in self.done for name in names for s in samples)
        total = len(names) * len(samples)
        with self.progress.task(title, total=total, done=finished) as ticker:

            def take(record: Record) -> None:
                key = (record["recipe"], record["id"])
                if key in self.done:
                    return  # attacked again only because the next ones depend on it
                self.run.append(record)
                self.done[key] = record
                ticker.advance(
                    note=f"layer {_layer(record['exit_layer_before'])} to "
                    f"{_layer(record['exit_layer_after'])}, {record['queries']} queries"
                )

            yield take


def _layer(value: float) -> str:
    """Whole for an encoder; a decoder's is a mean over tokens."""
    return str(value) if isinstance(value, int) else f"{value:.2f}"
