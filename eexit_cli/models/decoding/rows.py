"""Which cache slots the rows of a tensor belong to."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor


class Rows:
    """Rows still running, in ascending order of their cache slots.

    Attributes:
        slots: slot of each row, on the host.
    """

    __slots__ = ("_host", "_index", "capacity", "device", "slots")

    def __init__(self, slots: list[int], capacity: int, device: torch.device) -> None:
        self.slots = slots
        self.capacity = capacity
        self.device = device
        self._index: Tensor | None = None
        self._host: np.ndarray | None = None

    @property
    def index(self) -> Tensor | None:
        """The slots on the device; None when the rows are all slots, which spares every gather.

        Shape: [rows], int64.
        """
        if self._index is None and len(self.slots) != self.capacity:
            self._index = torch.tensor(self.slots, dtype=torch.int64, device=self.device)
        return self._index

    @property
    def host(self) -> np.ndarray:
        """The slots as an array on the host. Shape: [rows], int64."""
        if self._host is None:
            self._host = np.asarray(self.slots, dtype=np.int64)
        return self._host

    def __len__(self) -> int:
        return len(self.slots)

    def take(self, places: Sequence[int]) -> Rows:
        """The rows at these places."""
        return Rows([self.slots[place] for place in places], self.capacity, self.device)
