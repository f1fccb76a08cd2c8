"""What a family's models are to an attack: scored, confirmed, and told of in a record."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from torch import Tensor


class Victim(Protocol):
    """A model under attack, within a budget."""

    def score(self, texts: Sequence[Any]) -> Sequence[Any]:
        """Each text is one query."""
        ...

    def confirm(self, text: Any) -> Any:
        """The text alone, as the user would run it."""
        ...

    def gradients(self, texts: Sequence[Any], loss: Any) -> Tensor:
        """Of the loss by the input embeddings; each text is one query and one gradient pass."""
        ...


@dataclass(frozen=True)
class Found:
    """What a search made of one sample.

    Attributes:
        text: as it was.
        chosen: as the attacker leaves it.
        skipped: why it was not attacked; None where it was.
        reached: is the goal reached, by what confirming the chosen text said?
        steps: [spent, exit layer] of the best text so far, ascending.
        editor: what was changed, where that is not words.
    """

    text: Any
    chosen: Any
    skipped: str | None
    reached: Callable[[Any], bool]
    steps: Sequence[Sequence[float]]
    editor: Any = None


class Attacked(Protocol):
    """A model with its exit as a victim, and how its samples and outcomes are told.

    Attributes:
        victim: scores by the live exit.
    """

    @property
    def victim(self) -> Any: ...

    def search(self, attack: Any, sample: Mapping[str, Any]) -> Found:
        """Run a recipe's attack on a sample."""
        ...

    def costs(self, when: str, outcome: Any) -> dict[str, Any]:
        """What an outcome cost beside its layers, as the record has it.

        Args:
            when: before or after, which ends the names.
        """
        ...

    def confirm(self, text: Any) -> Any:
        """The outcome of a text of :class:`Found` alone; None where the budget has nothing left."""
        ...

    def columns(self, sample: Mapping[str, Any]) -> dict[str, Any]:
        """The sample, as its record has it."""
        ...

    def changes(self, found: Found, chosen: Any) -> dict[str, Any]:
        """The chosen text, what was changed in it and how alike the two are."""
        ...

    def answer(self, text: Any, outcome: Any) -> tuple[Any, Sequence[int], Any]:
        """Output, layer of each decision, and for texts what all layers make of the same text."""
        ...
