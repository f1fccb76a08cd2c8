"""Which recipes a run tries, within which budget, and how a broken-off one goes on."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from eexit_cli.attacks import ATTACKS, catalog_of
from eexit_cli.attacks.recipe import Recipe
from eexit_cli.config.attack import AttackConfig
from eexit_cli.config.engine import ENGINE_OPTIONS
from eexit_cli.config.resume import resumed
from eexit_cli.core.answers import CLASSES, TEXTS
from eexit_cli.core.errors import MissingArtifactError, UsageError
from eexit_cli.core.option import flag
from eexit_cli.pipelines.spreading import check_engine, resettled, spreads
from eexit_cli.store.results import Run

if TYPE_CHECKING:
    from collections.abc import Sequence

    from eexit_cli.core.protocols import Progress


ALL = "all"
TABLE_BUDGET = 1000
"""Recipes that spend as they like cannot be compared."""
_KINDS = {CLASSES: "classifiers", TEXTS: "decoders"}


@dataclass(frozen=True)
class Plan:
    """What a run tries.

    Attributes:
        names: recipes that run, in the order of the table.
        lacking: recipes of the table that cannot, with the reason in words.
        kind: of the model: what it answers with.
    """

    names: tuple[str, ...]
    lacking: dict[str, str] = field(default_factory=dict)
    kind: str = CLASSES

    @property
    def recipes(self) -> list[Recipe]:
        catalog = catalog_of(self.kind)
        return [catalog.load(name) for name in self.names]

    def without_gradients(self, why: str | None, hint: str) -> Plan:
        """The plan for a model that gives none.

        Args:
            why: it gives none; None where it does.
            hint: what helps.

        Raises:
            UsageError: nothing is left of it.
        """
        asking = [recipe.name for recipe in self.recipes if recipe.gradients]
        if why is None or not asking:
            return self
        names = tuple(name for name in self.names if name not in asking)
        if not names:
            words = ", ".join(asking)
            raise UsageError(f"{words} asks for gradients, and {why}", hint=hint)
        lacking = dict.fromkeys(asking, f"asks for gradients, and {why}: {hint}")
        return replace(self, names=names, lacking={**self.lacking, **lacking})


def list_recipes() -> list[dict[str, Any]]:
    """Every recipe, with what it needs and whether it can run here; TextAttack is not imported."""
    recipes: list[Recipe] = [recipe for _, recipe in ATTACKS.working()]
    return [
        {
            "name": recipe.name,
            "description": recipe.description,
            "source": recipe.source,
            "family": recipe.family,
            "families": families_of(recipe.name),
            "goal": recipe.goal,
            "needs": list(recipe.needs),
            "missing": _missing(recipe),
        }
        for recipe in recipes
    ]


def families_of(name: str) -> list[str]:
    """The families of models that a recipe of this name attacks."""
    return [kind for kind in (CLASSES, TEXTS) if name in catalog_of(kind)]


def _missing(recipe: Recipe) -> str | None:
    return recipe.missing() if recipe.missing is not None else None


def plan_recipes(config: AttackConfig, kind: str) -> Plan:
    """The recipes that ``config.recipe`` names, those that cannot run here apart.

    Args:
        config: names with commas between them, or ``all``.
        kind: the model's: what it answers with.

    Raises:
        UsageError: an unknown recipe, or one for another kind of models.
        MissingArtifactError: none of them can run here; the hint says what to get.
    """
    everything = config.recipe == ALL
    catalog = catalog_of(kind)
    names = (
        [ATTACKS.canonical(name.strip()) for name in config.recipe.split(",")]
        if (not everything)
        else [name for name, _ in catalog.working()]
    )
    runnable: list[str] = []
    lacking: dict[str, str] = {}
    fitting = [name for name, recipe in catalog.working() if recipe.family == kind]
    for name in dict.fromkeys(names):
        recipe: Recipe = catalog.load(name) if name in catalog else ATTACKS.load(name)
        if recipe.family != kind:
            if everything:
                continue
            raise UsageError(
                f"Recipe '{name}' attacks {_KINDS[recipe.family]}; '{config.model}' is none",
                hint=f"Recipes for it: {', '.join(fitting)}"
                if fitting
                else "No recipe attacks it yet: eexit attack --list-recipes",
            )
        if everything and config.compat is not None and config.compat not in recipe.compat:
            lacking[name] = f"has no --compat {config.compat}"
            continue
        recipe.check_compat(config.compat)
        needs = _missing(recipe)
        if needs is None:
            runnable.append(name)
        else:
            lacking[name] = f"needs {needs}"
    if not runnable:
        raise _none_runs(config, lacking)
    return Plan(tuple(runnable), lacking, kind)


def _none_runs(config: AttackConfig, lacking: dict[str, str]) -> MissingArtifactError | UsageError:
    if not lacking:
        return UsageError(
            f"No recipe attacks '{config.model}'", hint="See them: eexit attack --list-recipes"
        )
    name, reason = next(iter(lacking.items()))
    return MissingArtifactError(
        f"Recipe '{name}' cannot run here: it {reason}",
        hint="What each needs, and how to get it: eexit attack --list-recipes",
    )


def with_one_budget(config: AttackConfig, plan: Plan, progress: Progress) -> AttackConfig:
    """The query budget that holds for every recipe of the run alike.

    Where the user gives none, it is the recipe's own, which may be no bound; in a table, the
    largest that any has, and :data:`TABLE_BUDGET` where none has one.
    """
    if config.query_budget is not None:
        return config
    own = [r.default_budget for r in plan.recipes if r.default_budget is not None]
    if not own and len(plan.names) == 1:
        return config
    own = own or [TABLE_BUDGET]
    budget = max(own)
    if len(plan.names) > 1:
        progress.message(f"Budget for every recipe: {budget} queries and gradient passes a sample")
    return dataclasses.replace(config, query_budget=budget)


_LEAST = {"top_n": 1, "beam_width": 1, "per_size": 1, "prefix_length": 1, "search_samples": 1}
_SHARES = {
    "lam": "The published setting is 0.8",
    "alpha": "The published setting is 0.5",
    "similarity": "The published setting is 0.9",
}
SETTINGS = (
    *_LEAST,
    *_SHARES,
    "change_rate",
    "substitutes",
    "compat",
    "letter_rate",
    "score",
)
"""Options that some recipes read and others do not."""


def check_numbers(config: AttackConfig) -> None:
    """Numbers that no attack can run with.

    Raises:
        UsageError: one is outside its range.
    """
    check_engine(config)
    for name, bound in _LEAST.items():
        value = getattr(config, name)
        if value is not None and value < bound:
            raise UsageError(
                f"{flag(name)} {value} is outside its range",
                hint=f"Give a whole number, at least {bound}",
            )
    if config.query_budget is not None and config.query_budget < 1:
        raise UsageError(
            f"--query-budget {config.query_budget} leaves nothing to attack with",
            hint="Give at least 1; the input itself is the first query",
        )
    for name, published in _SHARES.items():
        if not 0 <= getattr(config, name) <= 1:
            raise UsageError(f"--{name} {getattr(config, name)} is outside [0, 1]", hint=published)
    if not 0 < config.letter_rate <= 1:
        raise UsageError(
            f"--letter-rate {config.letter_rate} is outside (0, 1]",
            hint="The default is 0.3: three letters in ten, and one at least",
        )
    if not 0 < config.change_rate <= 1:
        raise UsageError(
            f"--change-rate {config.change_rate} is outside (0, 1]",
            hint="The published setting is 0.1: one word in ten, and three at least",
        )
    if config.defences and not config.transfer:
        raise UsageError(
            "--defences says nothing without --transfer",
            hint="Replay a run's inputs against them: eexit attack --transfer RUN --defences",
        )


def check_settings(config: AttackConfig, recipes: Sequence[Recipe]) -> None:
    """An option that none of the recipes reads is an error, not ignored.

    Raises:
        UsageError: there is one, or several workers for a recipe that attacks in order.
    """
    read = {name for recipe in recipes for name in recipe.reads}
    defaults = AttackConfig()
    for name in SETTINGS:
        value = getattr(config, name)
        if value != getattr(defaults, name) and name not in read and name != "compat":
            words = recipes[0].name if len(recipes) == 1 else "these recipes"
            catalog = catalog_of(recipes[0].family)
            readers = [n for n, recipe in catalog.working() if name in recipe.reads]
            other = "a decoder" if recipes[0].family == CLASSES else "a classifier"
            raise UsageError(
                f"{flag(name)} says nothing to {words}",
                hint=f"Leave it out, or choose among: {', '.join(readers)}"
                if readers
                else f"Leave it out: it is for {other}",
            )
    if config.surrogate is not None and not any(recipe.gradients for recipe in recipes):
        words = recipes[0].name if len(recipes) == 1 else "these recipes"
        raise UsageError(
            f"--surrogate says nothing to {words}, which asks for no gradients",
            hint="Leave it out",
        )
    for recipe in recipes:
        if recipe.is_ordered(config) and spreads(config):
            raise UsageError(
                f"'{recipe.name}' with --compat {config.compat} attacks samples in order: "
                "one worker only",
                hint="Leave --workers, --engine and --sample-timeout out",
            )


_FREE = ("resume", "results_dir", *ENGINE_OPTIONS)
"""Options that a resumed run may have otherwise than the first: no record depends on them."""


def resumed_config(config: AttackConfig, run: Run, explicit: Collection[str] = ()) -> AttackConfig:
    """The configuration of the run to go on with; options given beside it must agree.

    Args:
        explicit: options that were given, even where they say what is the default.

    Raises:
        UsageError: an option differs from the run's, or the run replays another one's inputs.
    """
    if run.config.get("transfer"):
        raise UsageError(
            f"Run '{run.id}' replays another run's inputs; it has nothing to go on with",
            hint="Start it again, as it takes seconds: eexit attack --transfer "
            + " --transfer ".join(run.config["transfer"]),
        )
    original = resumed(
        config,
        run.config,
        what="run",
        repair=f"go on with {run.id}, or start a new run without --resume",
        explicit=explicit,
        free=_FREE,
    )
    return dataclasses.replace(resettled(original), results_dir=config.results_dir, resume=run.id)


def check_samples(run: Run, samples: Sequence[Mapping[str, Any]]) -> None:
    """Records are told apart by the sample's id, so each must still stand for the same text.

    Raises:
        UsageError: a finished record's sample has another text now, or is gone.
    """
    texts = {
        str(sample["id"]): (sample.get("source", sample.get("text")), sample.get("text_pair"))
        for sample in samples
    }
    for record in run.records():
        if texts.get(record["id"]) != (record["text"], record.get("text_pair")):
            raise UsageError(
                f"Run {run.id} attacked another sample '{record['id']}' than the data have now",
                hint="Restore the data, or start a new run without --resume",
            )


def check_unchanged(run: Run, settings: Mapping[str, Any]) -> None:
    """The model's own exit, the data or what recipes need may have changed under a resumed run.

    Raises:
        UsageError: they have.
    """
    for name in ("exit", "split", "task", "recipes"):
        if name in run.config and run.config[name] != settings[name]:
            raise UsageError(
                f"Run {run.id} was started with {name} {run.config[name]}, "
                f"which is {settings[name]} now",
                hint="Start a new run without --resume",
            )
