"""The largest of a vocabulary in blocks: what torch's own search gives."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from eexit_cli.core.vocabulary import BLOCK, WIDE, best, top_two

WIDTHS = (WIDE - BLOCK, WIDE - 1, WIDE, WIDE + 1, WIDE + BLOCK)


@pytest.mark.parametrize("width", WIDTHS)
@given(data=st.data())
def test_as_torch_searches(width: int, data: st.DataObject) -> None:
    """Ties included: few different numbers, in the same block and in others."""
    rows = data.draw(st.integers(1, 3))
    seed = data.draw(st.integers(0, 2**32 - 1))
    spread = data.draw(st.sampled_from([2, 5, 1000]))
    generator = torch.Generator().manual_seed(seed)
    values = torch.randint(-spread, spread, (rows, width), generator=generator).double()
    largest, where = best(values)
    assert torch.equal(largest, values.amax(dim=-1))
    assert where.tolist() == [int((row == row.max()).nonzero()[0]) for row in values]
    first, second = top_two(values)
    expected = values.sort(dim=-1, descending=True).values[:, :2]
    assert torch.equal(torch.stack([first, second], dim=1), expected)


@pytest.mark.parametrize("apart", [1, BLOCK - 1, BLOCK, 7 * BLOCK])
def test_the_second_may_stand_anywhere(apart: int) -> None:
    values = torch.zeros(2, WIDE)
    values[:, 3 * BLOCK] = 9.0
    values[0, 3 * BLOCK + apart] = 8.0
    values[1, 3 * BLOCK + apart] = 9.0
    first, second = top_two(values)
    assert (first.tolist(), second.tolist()) == ([9.0, 9.0], [8.0, 9.0])
