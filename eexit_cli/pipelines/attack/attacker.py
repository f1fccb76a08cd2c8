"""From one sample to its record: the same whatever came before it, in any process."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from eexit_cli.attacks import catalog_of
from eexit_cli.attacks.recipe import Learned, Recipe
from eexit_cli.config.attack import AttackConfig
from eexit_cli.core.memory import FreedMemory
from eexit_cli.core.seed import derive_seed, seed_everything
from eexit_cli.pipelines.attack.records import answer_record

if TYPE_CHECKING:
    from eexit_cli.core.answers import Exit
    from eexit_cli.core.family import Model
    from eexit_cli.core.protocols import Progress


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
        self, name: str, texts: Sequence[str | tuple[str, str]], progress: Progress
    ) -> dict[str, Any]:
        """Learn what the recipe uses for all samples, on an account of its own."""
        recipe: Recipe = self._catalog.load(name)
        assert recipe.fit is not None
        seed = derive_seed(self.config.seed, "fit", name)
        seed_everything(seed)
        self.victim.seed = seed
        self._learned[name] = recipe.fit(self.victim, texts, self.config, progress=progress)
        return dict(self._learned[name])

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
