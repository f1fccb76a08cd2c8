"""What may be spent on one sample, what has been, and what it has bought so far."""

from __future__ import annotations

from dataclasses import dataclass, field

FINAL_CHECK = 1
"""Queries that a search keeps back, to score the text that it chose alone."""


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


class BestSoFar:
    """What an attack would have answered, had its budget ended earlier.

    Attributes:
        steps: [queries and gradient passes, exit layer], ascending in the first: from so much
            budget on, this is where the search's answer leaves.
    """

    def __init__(self) -> None:
        self.steps: list[list[float]] = []
        self._best = float("-inf")

    def restart(self) -> None:
        """The next text is the best one, whatever came before."""
        self._best = float("-inf")

    def note(self, score: float, layer: float, spent: int) -> None:
        """A text was scored; the first of equal scores stays the best.

        Args:
            score: what the search compares.
            layer: where the text leaves.
            spent: the budget that is needed for it to be the answer.
        """
        if score <= self._best:
            return
        self._best = score
        if not self.steps:
            self.steps.append([spent, layer])
        elif layer != self.steps[-1][1]:
            # A text that was known already costs nothing more.
            self.steps.append([max(spent, self.steps[-1][0]), layer])
