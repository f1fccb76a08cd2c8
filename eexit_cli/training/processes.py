"""One process or several (torchrun, accelerate): who writes, who waits."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TypeVar

Value = TypeVar("Value")


@dataclass(frozen=True)
class Processes:
    """This process among those that train together.

    Attributes:
        rank: from 0; process 0 writes files and talks to the user.
        count: 1 outside torchrun and accelerate.
    """

    rank: int = 0
    count: int = 1

    @classmethod
    def start(cls, *, device: str) -> Processes:
        """Join the group that the launcher's environment describes, if it does."""
        count = int(os.environ.get("WORLD_SIZE", "1"))
        if count <= 1:
            return cls()
        from accelerate import PartialState

        state = PartialState(cpu=device == "cpu")
        return cls(rank=int(state.process_index), count=int(state.num_processes))

    @property
    def is_main(self) -> bool:
        return self.rank == 0

    def wait(self) -> None:
        """Until all processes are here."""
        if self.count > 1:
            import torch.distributed as dist

            dist.barrier()

    def share(self, value: Value | None) -> Value | None:
        """The main process's value, in every process."""
        if self.count <= 1:
            return value
        import torch.distributed as dist

        box = [value]
        dist.broadcast_object_list(box, src=0)
        return box[0]
