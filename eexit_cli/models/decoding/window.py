"""Which places of the caches each slot sees, when slots started at different times.

All running rows write to the same place of the caches at each step, whatever the length of their
own outputs. A row that came later does not see the places before its start. T5's position bias
depends on distances alone, so nothing else changes for it.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor


class Window:
    """Starts of the slots' outputs.

    Args:
        slots: of the caches.
        places: of the caches.
        like: a tensor with the states' dtype and device.

    Attributes:
        first: the earliest place that a running row sees.
    """

    def __init__(self, slots: int, places: int, like: Tensor) -> None:
        self._starts = np.zeros(slots, dtype=np.int64)
        self._places = places
        self._like = like
        # Additive, made when the first slot starts late. Shape: [slots, places]
        self._mask: Tensor | None = None
        # Do all running rows see the same?
        self._even = True
        self.first = 0

    def enter(self, slots: list[int], place: int) -> None:
        """New outputs start in these slots."""
        self._starts[slots] = place
        if self._mask is None:
            self._mask = self._like.new_zeros(len(self._starts), self._places)
        lowest = torch.finfo(self._like.dtype).min
        index = torch.tensor(slots, device=self._like.device)
        rows = self._like.new_zeros(1, self._places)
        rows[:, :place] = lowest
        self._mask.index_copy_(0, index, rows.expand(len(slots), -1))

    def look(self, slots: list[int]) -> None:
        """These slots are running now."""
        starts = self._starts[slots]
        self.first = int(starts.min()) if len(starts) else 0
        self._even = bool((starts == self.first).all())

    def hidden(self, end: int) -> Tensor | None:
        """Added to the scores of places ``first`` to ``end`` - 1; None when nothing is hidden.

        Shape: [slots, end - first].
        """
        if self._even or self._mask is None:
            return None
        return self._mask[:, self.first : end]

    def ages(self, slots: np.ndarray, place: int) -> int | Tensor:
        """Tokens that the slots' outputs had before this place; one number if all are equal.

        Shape: [slots given], int64.
        """
        if self._even:
            return place - self.first
        return torch.from_numpy(place - self._starts[slots])

    def age(self, slot: int, place: int) -> int:
        """Tokens that one slot's output had before this place."""
        return place - int(self._starts[slot])

    def shift(self, offset: int) -> None:
        """The first ``offset`` places are gone."""
        self._starts -= offset
        self.first -= offset
        if self._mask is not None:
            new = self._mask.new_zeros(len(self._starts), offset)
            self._mask = torch.cat((self._mask[:, offset:], new), dim=1)

    def compact(self, slots: list[int]) -> None:
        """Keep these slots, renumbered in this order."""
        self._starts = self._starts[slots]
        if self._mask is not None:
            self._mask = self._mask[slots]
