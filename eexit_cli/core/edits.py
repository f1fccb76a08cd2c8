"""Levenshtein's distance."""

from __future__ import annotations

from collections.abc import Sequence


def edit_distance(first: Sequence[object], second: Sequence[object]) -> int:
    """Insertions, deletions and substitutions, 1 each, that turn one sequence into the other."""
    # above[j]: edits between the part of `first` that was read and the first j of `second`.
    above = list(range(len(second) + 1))
    for row, one in enumerate(first, start=1):
        here = [row]
        for column, other in enumerate(second, start=1):
            here.append(min(above[column] + 1, here[-1] + 1, above[column - 1] + (one != other)))
        above = here
    return above[-1]
