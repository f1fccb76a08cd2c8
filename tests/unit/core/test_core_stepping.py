"""The cursor: who runs on, who left with what, and what a step may see."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from eexit_cli.core.stepping import ExitCursor, replay


class Scripted:
    """Leaves where a table says, by the row's own first logit; remembers what it was shown."""

    def __init__(self, leave_at):
        self.leave_at = leave_at
        self.seen = []

    def step(self, layer, logits, state):
        ids = logits[:, 0].long()
        if "ids" in state:
            # State follows its rows.
            assert state["ids"].tolist() == ids.tolist()
        state["ids"] = ids
        self.seen.append((layer, ids.tolist()))
        return torch.tensor([self.leave_at[i] <= layer for i in ids.tolist()])

    def describe(self):
        return {"criterion": "scripted"}


@given(plan=st.lists(st.integers(1, 8), min_size=1, max_size=7), depth=st.integers(1, 6))
def test_rows_leave_as_planned_and_the_last_layer_answers_for_the_rest(plan, depth):
    rows = len(plan)
    trace = torch.zeros(rows, depth, 2)
    trace[:, :, 0] = torch.arange(rows)[:, None]
    trace[:, :, 1] = torch.arange(1, depth + 1)
    criterion = Scripted(plan)
    decision = replay(trace, criterion)
    expected = [min(layer, depth) for layer in plan]
    assert decision.exit_layers.tolist() == expected
    assert decision.logits.tolist() == [[row, layer] for row, layer in enumerate(expected)]
    # A row that left is never shown again.
    assert criterion.seen == [
        (layer, [row for row in range(rows) if expected[row] >= layer])
        for layer in range(1, max(expected) + 1)
    ]


def test_the_full_model_answers_at_the_last_layer():
    trace = torch.randn(3, 4, 2, generator=torch.Generator().manual_seed(0))
    decision = replay(trace, None)
    assert decision.exit_layers.tolist() == [4, 4, 4]
    assert torch.equal(decision.logits, trace[:, -1])


def test_nobody_leaving_returns_none_which_spares_a_copy():
    cursor = ExitCursor(Scripted([2, 3]), 3)
    logits = torch.tensor([[0.0, 0.0], [1.0, 0.0]])
    assert cursor.advance(1, logits) is None
    assert cursor.rows.tolist() == [0, 1]
    assert cursor.advance(2, logits).tolist() == [1]
    assert cursor.rows.tolist() == [1]
    assert cursor.advance(3, logits[1:]).tolist() == []
    assert cursor.decision().exit_layers.tolist() == [2, 3]


def test_an_answer_of_the_criterions_own_replaces_the_logits():
    class Summing(Scripted):
        def step(self, layer, logits, state):
            leave = super().step(layer, logits, state)
            state["answer"] = state.get("answer", torch.zeros_like(logits)) + 10 * layer
            return leave

    decision = replay(torch.tensor([0.0, 1.0])[:, None, None].expand(2, 3, 2), Summing([1, 3]))
    assert decision.logits.tolist() == [[10.0, 10.0], [60.0, 60.0]]


def test_regression_predictions_are_the_values():
    decision = replay(torch.tensor([[[0.5], [1.5]]]), None)
    assert decision.predictions.tolist() == [1.5]


def test_a_cursor_that_saw_nothing_says_so():
    with pytest.raises(RuntimeError):
        _ = ExitCursor(None, 3).rows
