"""What an attack would have answered, had its budget ended earlier."""

from __future__ import annotations

FINAL_CHECK = 1
"""Queries that a search keeps back, to score the text that it chose alone."""


class BestSoFar:
    """The text that a search likes best, each time that it changes.

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
