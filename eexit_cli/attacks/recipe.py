"""What a recipe is, what it may spend, and the settings that it reads."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    import textattack

    from eexit_cli.attacks.victim import EncoderVictim


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


@dataclass
class Budget:
    """What may be spent on one sample, and what has been.

    A query is one text scored by the victim: the input itself, every candidate, and the check of
    the chosen text alone. A gradient pass is one text run forward and backward. Both count
    towards the limit, for every recipe alike.

    Attributes:
        limit: most queries plus gradient passes; None is no bound.
        queries, gradient_passes: spent since :meth:`reset`.
    """

    limit: int | None = None
    queries: int = field(default=0, init=False)
    gradient_passes: int = field(default=0, init=False)

    def reset(self) -> None:
        """Start the next sample."""
        self.queries = 0
        self.gradient_passes = 0

    @property
    def spent(self) -> int:
        return self.queries + self.gradient_passes

    def affordable(self, wanted: int, *, reserve: int = 0) -> int:
        """How many of ``wanted`` can be paid for, leaving ``reserve`` unspent."""
        if self.limit is None:
            return wanted
        return max(0, min(wanted, self.limit - self.spent - reserve))


@dataclass(frozen=True)
class Recipe:
    """One entry of the attack catalog.

    Attributes:
        name: as the catalog has it.
        description: one line for ``--list-recipes``.
        source: the paper.
        needs: what must be there beyond this package, in words; empty for nothing.
        build: makes the attack on a victim within a budget.
    """

    name: str
    description: str
    source: str
    build: Callable[[EncoderVictim, Budget, AttackSettings], textattack.Attack]
    needs: tuple[str, ...] = ()
