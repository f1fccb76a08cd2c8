"""One query per row against a cache, with the copies that the rows' number calls for."""

from __future__ import annotations

import torch
from torch import Tensor

from eexit_cli.models.decoding.rows import Rows

NEAR_MEMORY = 1 << 19
"""Bytes up to which a gathered copy stays in a core's own cache."""

NEAR_SHARE, FAR_SHARE = 0.85, 0.5
"""Gathering pays below this share of running slots: small copies cost little, large ones twice."""


def attend(
    query: Tensor,
    cache: Tensor,
    rows: Rows,
    length: int,
    *,
    bias: Tensor | None = None,
    padding: Tensor | None = None,
    cap: float | None = None,
) -> Tensor:
    """Attention of one token per row; the query is scaled already.

    When few of the slots are running their caches are gathered; when many are, all slots are
    computed and the idle ones' results are dropped, which moves less memory.

    Args:
        query: Shape: [rows, heads, size].
        cache: keys and values; several heads may share them (grouped queries).
            Shape: [2, slots, key heads, capacity, size].
        length: positions to attend to.
        bias: added to every row's scores. Shape: [heads, length].
        padding: additive mask by slot. Shape: [slots, length].
        cap: scores become cap * tanh(scores / cap) before anything is added to them (Gemma 2).

    Returns:
        Shape: [rows, heads * size].
    """
    if rows.index is None:
        return _attend(query, cache, length, bias, padding, cap)
    count = len(rows)
    if count == 1:
        near = slice(rows.slots[0], rows.slots[0] + 1)
        chosen = None if padding is None else padding[near]
        return _attend(query, cache[:, near], length, bias, chosen, cap)
    if _gathering_pays(cache, count, rows.capacity, length):
        chosen = None if padding is None else padding.index_select(0, rows.index)
        gathered = cache[:, :, :, :length].index_select(1, rows.index)
        return _attend(query, gathered, length, bias, chosen, cap)
    # What the idle slots hold is computed with and dropped; rows do not mix.
    everyone = query.new_empty(rows.capacity, *query.shape[1:])
    everyone.index_copy_(0, rows.index, query)
    attended = _attend(everyone, cache, length, bias, padding, cap)
    return attended.index_select(0, rows.index)


def _gathering_pays(cache: Tensor, count: int, capacity: int, length: int) -> bool:
    copied = 2 * count * cache.shape[2] * cache.shape[4] * cache.element_size() * length
    share = NEAR_SHARE if copied <= NEAR_MEMORY else FAR_SHARE
    return count < share * capacity


def _attend(
    query: Tensor,
    cache: Tensor,
    length: int,
    bias: Tensor | None,
    padding: Tensor | None,
    cap: float | None,
) -> Tensor:
    count, heads, size = query.shape
    held = cache.shape[2]
    # Shape: 2 x [count * key heads, length, size]; views, the cache is contiguous over slots and
    # heads
    keys, values = cache.narrow(3, 0, length).flatten(1, 2).unbind(0)
    # Shape: [count * key heads, heads per key, length]
    scores = torch.bmm(query.reshape(count * held, heads // held, size), keys.transpose(1, 2))
    if cap is not None:
        scores = scores.div_(cap).tanh_().mul_(cap)
    if bias is not None:
        scores.view(count, heads, length).add_(bias)
    if padding is not None:
        scores.view(count, heads, length).add_(padding.unsqueeze(1))
    return torch.bmm(torch.softmax(scores, dim=-1), values).view(count, heads * size)


def attend_span(query: Tensor, cache: Tensor, bias: Tensor | None) -> Tensor:
    """Several queries of one slot against the same keys.

    Args:
        query: Shape: [tokens, heads * size].
        cache: keys and values. Shape: [2, heads, length, size].
        bias: broadcasts to [heads, tokens, length].

    Returns:
        Shape: [tokens, heads * size].
    """
    _, heads, _, size = cache.shape
    keys, values = cache.unbind(0)
    # Shape: [heads, tokens, size]
    q = query.view(-1, heads, size).transpose(0, 1)
    scores = torch.bmm(q, keys.transpose(1, 2))
    if bias is not None:
        scores = scores + bias
    attended = torch.bmm(torch.softmax(scores, dim=-1), values)
    return attended.transpose(0, 1).reshape(query.shape[0], heads * size)
