"""Which places of the caches each slot sees, when slots started at different times.

All running rows write to the same place of the caches at each step, whatever the length of their
own outputs. A row that came later does not see the places before its start. T5's position bias
depends on distances alone, so nothing else changes for it. Prompts are seen too, so that where
they are decoded a row sees more places than its output has (:meth:`Window.enter` twice).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor


class Window:
    """Starts of the slots' outputs.

    Args:
        slots: of the caches.
        places: of the caches.
        like: a tensor with the states' dtype and device.
        start: where all of them start.

    Attributes:
        first: the earliest place that a running row sees.
    """

    def __init__(self, slots: int, places: int, like: Tensor, *, start: int = 0) -> None:
        self._starts = np.full(slots, start, dtype=np.int64)
        self._places = places
        self._like = like
        # Additive, made when the first slot starts late. Shape: [slots, places]
        self._mask: Tensor | None = None
        # Do all running rows see the same?
        self._even = True
        self.first = start

    def enter(self, slots: list[int], places: Sequence[int]) -> None:
        """What these slots see starts at these places."""
        self._starts[slots] = places
        if self._mask is None:
            self._mask = self._like.new_zeros(len(self._starts), self._places)
        lowest = torch.finfo(self._like.dtype).min
        index = torch.tensor(slots, device=self._like.device)
        before = torch.arange(self._places) < torch.tensor(places).unsqueeze(1)
        rows = self._like.new_zeros(len(slots), self._places)
        rows.masked_fill_(before.to(rows.device), lowest)
        self._mask.index_copy_(0, index, rows)

    def look(self, slots: list[int]) -> None:
        """These slots are running now."""
        starts = self._starts[slots]
        self.first = int(starts.min()) if len(starts) else 0
        self._even = bool((starts == self.first).all())

    def hidden(self, end: int, first: int | None = None) -> Tensor | None:
        """Added to the scores of places ``first`` to ``end`` - 1; None when nothing is hidden.

        Args:
            first: by default the earliest place that a running row sees.

        Returns:
            Shape: [slots, end - first].
        """
        if self._even or self._mask is None:
            return None
        return self._mask[:, self.first if first is None else first : end]

    def ages(self, slots: np.ndarray, place: int) -> int | Tensor:
        """Places from the slots' starts to this one; one number if all are equal.

        Shape: [slots given], int64.
        """
        if self._even:
            return place - self.first
        return self.since(slots, place)

    def since(self, slots: np.ndarray, places: np.ndarray | int) -> Tensor:
        """Places from the slots' starts to these. Shape: [slots given], int64."""
        return torch.from_numpy(places - self._starts[slots])

    def age(self, slot: int, place: int) -> int:
        """Places from one slot's start to this one."""
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
