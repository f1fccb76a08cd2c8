"""From one sample to its record, what some recipes learn once for all samples, and the processes
that do both."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from eexit_cli.attacks import catalog_of, wordnet_env
from eexit_cli.attacks.recipe import Learned, Recipe
from eexit_cli.config.attack import AttackConfig
from eexit_cli.core.errors import EexitError, UsageError
from eexit_cli.core.memory import FreedMemory
from eexit_cli.core.seed import derive_seed, seed_everything, stream
from eexit_cli.core.types import Examples
from eexit_cli.data import load_examples
from eexit_cli.pipelines.attack.plan import Plan
from eexit_cli.pipelines.attack.subject import Subject, answer_record
from eexit_cli.pipelines.spreading import EngineCrew, Part, placed
from eexit_cli.store.atomic import write_atomically
from eexit_cli.store.documents import SCHEMA_VERSION, read_object
from eexit_cli.store.records import encode
from eexit_cli.store.results import Run

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from eexit_cli.core.answers import Exit
    from eexit_cli.core.family import Model
    from eexit_cli.core.protocols import Crew, Progress


class Attacker:
    """A victim and what attacks it; the pipeline and its workers know no more of a model.

    Args:
        config: the settings; the exit options are resolved in ``exit``.
        model: the model.
        exit: the exit in force; None is the one that the configuration names.
        learned: what recipes learned before, by name.
    """

    def __init__(
        self,
        config: AttackConfig,
        model: Model,
        exit: Exit | None = None,
        learned: Mapping[str, Learned] | None = None,
    ) -> None:
        from eexit_cli.attacks.textattack_env import prepare

        prepare()
        self.config = config
        exit = exit or model.attacked_exit(config)
        self.attacked = model.under_attack(exit, config)
        self.victim = self.attacked.victim
        self._catalog = catalog_of(model.kind)
        self._learned = dict(learned or {})
        self._attacks: dict[str, Any] = {}
        self._freed = FreedMemory()

    @property
    def tokens(self) -> tuple[int, int]:
        """Tokens that the scored texts hold, and tokens computed with padding, so far."""
        return self.victim.tokens_held, self.victim.tokens_computed

    def fit(
        self,
        name: str,
        texts: Sequence[str | tuple[str, str]],
        progress: Progress,
        crew: Crew | None = None,
    ) -> dict[str, Any]:
        """Learn what the recipe uses for all samples, on an account of its own.

        Args:
            crew: does its passes; None does them here.
        """
        recipe: Recipe = self._catalog.load(name)
        assert recipe.fit is not None
        seed = derive_seed(self.config.seed, "fit", name)
        seed_everything(seed)
        self.victim.seed = seed
        self.victim.crew = crew
        try:
            self._learned[name] = recipe.fit(self.victim, texts, self.config, progress=progress)
        finally:
            self.victim.crew = None
        return dict(self._learned[name])

    def know(self, name: str, learned: Learned | None) -> None:
        """What a recipe learned elsewhere."""
        if learned is not None:
            self._learned.setdefault(name, learned)

    def build(self, name: str) -> Any:
        """The recipe's attack, made on first use.

        Raises:
            UsageError: the recipe cannot attack this model.
        """
        if name not in self._attacks:
            recipe: Recipe = self._catalog.load(name)
            self._attacks[name] = recipe.attack(self.victim, self.config, self._learned.get(name))
        return self._attacks[name]

    def attack(self, name: str, sample: Mapping[str, Any]) -> dict[str, Any]:
        """Attack one sample.

        Args:
            sample: ``id`` and what data sets have of it.

        Returns:
            Its record, a line of the run's ``records.jsonl``.
        """
        attack, attacked, victim = self.build(name), self.attacked, self.victim
        identifier = str(sample["id"])
        seed = derive_seed(self.config.seed, "attack", name, identifier)
        seed_everything(seed)
        victim.seed = seed
        started = time.perf_counter()
        found = attacked.search(attack, sample)
        # Both are free where the search has scored them alone already.
        before, after = attacked.confirm(found.text), attacked.confirm(found.chosen)
        assert before is not None
        chosen = found.chosen
        if after is None:
            chosen, after = found.text, before
        seconds = time.perf_counter() - started
        record = {
            "recipe": name,
            "id": identifier,
            **attacked.columns(sample),
            "status": "attacked" if found.skipped is None else "skipped",
            **attacked.changes(found, chosen),
            **answer_record("before", *attacked.answer(found.text, before)),
            **answer_record("after", *attacked.answer(chosen, after)),
            **attacked.costs("before", before),
            **attacked.costs("after", after),
            "goal_reached": found.reached(after),
            "queries": victim.budget.queries,
            "gradient_passes": victim.budget.gradient_passes,
            "seconds": seconds,
        }
        # What a search keeps back for its last check may be left where the check was free.
        spent, last = victim.budget.spent, record["exit_layer_after"]
        steps = [[min(at, spent), layer] for at, layer in found.steps]
        record["progress"] = steps if steps and steps[-1][1] == last else [*steps, [spent, last]]
        if found.skipped is not None:
            record["reason"] = found.skipped
        victim.forget()
        self._freed.after_sample()
        return record


@dataclass(frozen=True)
class Task:
    """A sample to be attacked, with what its recipe learned for all of them."""

    recipe: str
    sample: Mapping[str, Any]
    learned: Learned | None


def attacking(
    config: AttackConfig, places: dict[str, str] | None = None
) -> Callable[[Task | Part], tuple[Any, Any]]:
    """What a worker does: from a sample to be attacked to its record, and the tokens that its
    scored texts hold and that were computed with padding; or a part of the passes by which a
    recipe learns, to its place and its answer.

    Args:
        config: with every exit option resolved.
        places: see :class:`eexit_cli.engine.Work`.
    """
    from eexit_cli.families.opening import open_model

    config = placed(config, places)
    attacker = Attacker(config, open_model(config))

    def work(job: Task | Part) -> tuple[Any, Any]:
        if isinstance(job, Part):
            return job.place, attacker.victim.share(job.share)
        held, computed = attacker.tokens
        attacker.know(job.recipe, job.learned)
        record = attacker.attack(job.recipe, job.sample)
        now = attacker.tokens
        return record, (now[0] - held, now[1] - computed)

    return work


LEARNED = "learned.json"

Text = str | tuple[str, str]


def learned_for(
    run: Run,
    plan: Plan,
    attacker: Callable[[], Attacker],
    texts: Callable[[], Sequence[Text]],
    progress: Progress,
    crew: Crew | None = None,
) -> dict[str, dict[str, Any]]:
    """What the plan's recipes learned, by name; learned now unless the run has it already.

    It is stored with the run before the first sample is attacked, so that a resumed run and every
    worker attack with the same.

    Args:
        attacker: called where something must be learned.
        texts: the texts to learn on, called likewise.
        crew: does the passes; None does them here.
    """
    recipes = [recipe for recipe in plan.recipes if recipe.fit is not None]
    path = run.path / LEARNED
    found: dict[str, dict[str, Any]] = {}
    if path.exists():
        found = read_object(path, needs=("learned",))["learned"]
    for recipe in recipes:
        if recipe.name not in found:
            found[recipe.name] = attacker().fit(recipe.name, texts(), progress, crew)
            content = {"schema_version": SCHEMA_VERSION, "learned": found}
            write_atomically(path, encode(content, indent=2) + b"\n")
    return found


def learning_of(learned: Mapping[str, Any] | None) -> dict[str, Any]:
    """What a recipe learned and what that cost, apart from what each sample cost."""
    if learned is None:
        return {}
    costs = ("queries", "gradient_passes", "seconds")
    found = {f"search_{name}": learned[name] for name in costs if name in learned}
    return found | ({"prefix": learned["prefix"]} if "prefix" in learned else {})


def search_texts(
    config: AttackConfig, examples: Examples, label_names: Sequence[str] | None
) -> list[Text]:
    """Texts to learn on: none of them is reported.

    The validation split of the task, or its training split where that is the one reported; of a
    user's own file, or of a task with one split only, the samples that are not reported.

    Raises:
        UsageError: there are none.
    """
    reported = set(_texts(examples))
    splits = ["train", "validation"] if examples.split == "validation" else ["validation", "train"]
    places = [examples.split] if config.data_file is not None else [*splits, examples.split]
    for split in places:
        found = [
            text for text in _texts_of_split(config, split, label_names) if text not in reported
        ]
        if found:
            if config.data_file is not None:
                # A user's file may be sorted by label; the tasks' splits are not.
                stream(config.seed, "search texts").shuffle(found)
            return found[: config.search_samples]
    raise UsageError(
        "No texts are left to learn a prefix on: all of them are reported",
        hint="Report fewer: --limit N, or attack with another recipe",
    )


def _texts_of_split(
    config: AttackConfig, split: str, label_names: Sequence[str] | None
) -> list[Text]:
    if config.data_file is not None:
        # A file keeps the split that was asked for, all of it.
        other = dataclasses.replace(config, limit=None)
        return _texts(load_examples(other, default_split="test", label_names=label_names))
    other = dataclasses.replace(config, limit=None, split=split)
    try:
        return _texts(load_examples(other, default_split=split, label_names=label_names))
    except EexitError:
        return []  # the task has no such split, or not here


def _texts(examples: Examples) -> list[Text]:
    texts = list(examples.dataset["text"])
    if "text_pair" not in examples.dataset.column_names:
        return texts
    return list(zip(texts, examples.dataset["text_pair"], strict=True))


@contextmanager
def attackers(
    subject: Subject, plan: Plan, jobs: int | None, timings: dict[str, float], progress: Progress
) -> Iterator[EngineCrew]:
    """Workers that do :func:`attacking`'s jobs.

    Args:
        jobs: that there are, where no others come before them.
        timings: gets ``workers_startup_seconds`` and ``workers_end_seconds``.

    Raises:
        EngineError: none can be set up.
    """
    needs = [need for recipe in plan.recipes for need in recipe.needs]
    wanted = subject.config.substitutes == "wordnet" or wordnet_env.HOW_TO_GET in needs
    if wanted and wordnet_env.wordnet_is_there():
        wordnet_env.offer_wordnet()  # unpacked once rather than by every worker
    crew = EngineCrew.of(attacking, subject.config, subject.model, progress, jobs)
    crew.begin()
    timings["workers_startup_seconds"] = crew.engine.told.startup_seconds
    try:
        yield crew
        ended = time.perf_counter()
    finally:
        crew.close()
    timings["workers_end_seconds"] = time.perf_counter() - ended
