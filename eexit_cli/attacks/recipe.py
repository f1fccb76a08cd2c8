"""What a recipe is, and the settings that it reads."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from eexit_cli.core.errors import UsageError

if TYPE_CHECKING:
    import textattack

    from eexit_cli.attacks.victim import Victim

UPSTREAM = "upstream"
"""The ``compat`` mode that does what a paper's published code does, where that differs."""


class AttackSettings(Protocol):
    """The options that recipes read; ``config.AttackConfig`` has them all."""

    @property
    def lam(self) -> float: ...
    @property
    def top_n(self) -> int: ...
    @property
    def beam_width(self) -> int: ...
    @property
    def per_size(self) -> int: ...
    @property
    def change_rate(self) -> float: ...
    @property
    def alpha(self) -> float: ...
    @property
    def similarity(self) -> float: ...
    @property
    def substitutes(self) -> str: ...
    @property
    def prefix_length(self) -> int: ...
    @property
    def search_samples(self) -> int: ...
    @property
    def compat(self) -> str | None: ...
    @property
    def letter_rate(self) -> float: ...
    @property
    def score(self) -> str: ...


Learned = Mapping[str, Any]
"""What a recipe's ``fit`` found, once for all inputs; JSON-able, with its cost."""


@dataclass(frozen=True)
class Recipe:
    """One entry of the attack catalog.

    Attributes:
        name: as the catalog has it.
        description: one line for ``--list-recipes``.
        source: the paper.
        build: makes the attack: ``build(victim, budget, settings)``, and with ``fit``
            ``build(victim, budget, settings, learned)``. Callers use :meth:`attack`.
        needs: what must be there beyond this package, in words; empty for nothing.
        family: ``encoder`` or ``decoder``, the models that it attacks.
        missing: says what of ``needs`` this machine lacks, with how to get it; None where it can
            run.
        fit: learns something for all inputs before the first is attacked:
            ``fit(victim, search_texts, settings, progress=None)``, on a budget of its own.
        reads: the settings that it looks at; others have no effect on it.
        compat: the ``--compat`` modes that it knows.
        default_budget: the query budget where the user gives none; None is no bound.
        ordered: whether, at these settings, a sample's record depends on those attacked before
            it; None is never. Such a run has one worker, and resuming it attacks the finished
            samples again.
        gradients: it asks the victim for gradients.
        goal: ``slowdown``, or ``misclassification`` for attacks on accuracy, which may as well
            make a model faster.
    """

    name: str
    description: str
    source: str
    build: Callable[..., textattack.Attack]
    needs: tuple[str, ...] = ()
    family: str = "encoder"
    missing: Callable[[], str | None] | None = None
    fit: Callable[..., dict[str, Any]] | None = None
    reads: tuple[str, ...] = ()
    compat: tuple[str, ...] = ()
    default_budget: int | None = None
    ordered: Callable[[AttackSettings], bool] | None = None
    gradients: bool = False
    goal: str = "slowdown"

    def attack(
        self, victim: Victim[Any], settings: AttackSettings, learned: Learned | None = None
    ) -> textattack.Attack:
        """The attack on this victim, within its budget.

        Args:
            learned: what :attr:`fit` returned; for recipes that have one.

        Raises:
            UsageError: ``settings.compat`` is a mode that the recipe does not know.
        """
        self.check_compat(settings.compat)
        if self.fit is None:
            return self.build(victim, victim.budget, settings)
        if learned is None:
            raise ValueError(f"recipe {self.name} attacks with what its fit() learned")
        return self.build(victim, victim.budget, settings, learned)

    def check_compat(self, compat: str | None) -> None:
        """Does the recipe know this mode?

        Raises:
            UsageError: it does not.
        """
        if compat is None or compat in self.compat:
            return
        known = ", ".join(self.compat)
        raise UsageError(
            f"Recipe '{self.name}' has no --compat {compat}",
            hint=f"Available: {known}" if known else "Leave --compat out",
        )

    def is_ordered(self, settings: AttackSettings) -> bool:
        """Do records depend on the order of the samples at these settings?"""
        return self.ordered is not None and self.ordered(settings)
