"""Driving an exit criterion from layer to layer, the same way live and over a trace."""

from __future__ import annotations

from typing import TYPE_CHECKING

from eexit_cli.core.types import Decision

if TYPE_CHECKING:
    from torch import Tensor

    from eexit_cli.core.protocols import ExitCriterion, RowState


class ExitCursor:
    """Follows one batch through the exits: who is still running, who left where with what.

    The live path calls :meth:`advance` after each layer and drops the rows that left from its
    hidden states; the replay calls it with slices of a recorded trace. The last layer always
    answers, whatever the criterion says.

    Args:
        criterion: None means the full model: everybody leaves at ``num_layers``.
        num_layers: L.
    """

    def __init__(self, criterion: ExitCriterion | None, num_layers: int) -> None:
        self.criterion = criterion
        self.num_layers = num_layers
        self._state: RowState = {}
        self._rows: Tensor | None = None
        self._exit_layers: Tensor | None = None
        self._answers: Tensor | None = None

    @property
    def rows(self) -> Tensor:
        """Indices, in the original batch, of the rows still running. Shape: [rows], int64."""
        if self._rows is None:
            raise RuntimeError("the cursor has not seen its first layer")
        return self._rows

    def rows_before(self, logits: Tensor) -> Tensor:
        """:attr:`rows`, also before the first layer, whose logits say how many there are."""
        if self._rows is None:
            self._start(logits)
        return self.rows

    def advance(self, layer: int, logits: Tensor) -> Tensor | None:
        """Record who leaves after ``layer``.

        Args:
            layer: layers executed so far, 1..L, one more than at the last call.
            logits: of the rows still running. Shape: [rows, classes].

        Returns:
            Positions, among the rows given, of those that go on, Shape: [remaining], int64;
            None when every row goes on, which spares the caller a copy. An empty tensor means
            that all have left.
        """
        if self._rows is None:
            self._start(logits)
        assert self._rows is not None
        assert self._exit_layers is not None
        assert self._answers is not None
        last = layer >= self.num_layers
        if self.criterion is None:
            leave = logits.new_full((logits.shape[0],), last, dtype=_bool())
        else:
            leave = self.criterion.step(layer, logits, self._state)
            if last:
                leave = leave.new_ones(leave.shape)
        leaving = int(leave.count_nonzero())
        if leaving == 0:
            return None
        answer = self._state.get("answer", logits).to(self._answers.dtype)
        if leaving == len(leave):
            # At batch 1 this is the only case, and indexing would cost as much as an exit's head.
            self._exit_layers[self._rows] = layer
            self._answers[self._rows] = answer
            self._rows = self._rows[:0]
            return self._rows
        left = self._rows[leave]
        self._exit_layers[left] = layer
        self._answers[left] = answer[leave]
        keep = (~leave).nonzero().squeeze(-1)
        self._rows = self._rows[keep]
        self._state = {name: value[keep] for name, value in self._state.items()}
        return keep

    def decision(self) -> Decision:
        """Exit layer and answer of every row of the batch, once all have left."""
        assert self._exit_layers is not None
        assert self._answers is not None
        return Decision(exit_layers=self._exit_layers, logits=self._answers)

    def _start(self, logits: Tensor) -> None:
        import torch

        self._rows = torch.arange(logits.shape[0], device=logits.device)
        self._exit_layers = torch.zeros(logits.shape[0], dtype=torch.int64, device=logits.device)
        self._answers = torch.zeros_like(logits)


def _bool():  # type: ignore[no-untyped-def]
    import torch

    return torch.bool


def replay(logits: Tensor, criterion: ExitCriterion | None) -> Decision:
    """What a criterion does on a recorded trace; equal to running it live.

    Args:
        logits: every exit's logits. Shape: [samples, exits, classes].
        criterion: None is the full model.

    Returns:
        Exit layer and answer per sample.
    """
    num_layers = logits.shape[1]
    cursor = ExitCursor(criterion, num_layers)
    running = logits
    for layer in range(1, num_layers + 1):
        keep = cursor.advance(layer, running[:, layer - 1])
        if keep is not None:
            if keep.numel() == 0:
                break
            running = running[keep]
    return cursor.decision()
