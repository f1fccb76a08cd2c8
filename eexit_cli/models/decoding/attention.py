"""One query per row against a cache, with the copies that the rows' number calls for."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

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
) -> Tensor:
    """Attention of one token per row, unscaled as in T5.

    When few of the slots are running their caches are gathered; when many are, all slots are
    computed and the idle ones' results are dropped, which moves less memory.

    Args:
        query: Shape: [rows, heads, size].
        cache: keys and values. Shape: [2, slots, heads, capacity, size].
        length: positions to attend to.
        bias: added to every row's scores. Shape: [heads, length].
        padding: additive mask by slot. Shape: [slots, length].

    Returns:
        Shape: [rows, heads * size].
    """
    if rows.index is None:
        return _attend(query, cache, length, bias, padding)
    count = len(rows)
    if count == 1:
        near = slice(rows.slots[0], rows.slots[0] + 1)
        chosen = None if padding is None else padding[near]
        return _attend(query, cache[:, near], length, bias, chosen)
    if _gathering_pays(query, count, rows.capacity, length):
        chosen = None if padding is None else padding.index_select(0, rows.index)
        gathered = cache[:, :, :, :length].index_select(1, rows.index)
        return _attend(query, gathered, length, bias, chosen)
    # What the idle slots hold is computed with and dropped; rows do not mix.
    everyone = query.new_empty(rows.capacity, *query.shape[1:])
    everyone.index_copy_(0, rows.index, query)
    attended = _attend(everyone, cache, length, bias, padding)
    return attended.index_select(0, rows.index)


def _gathering_pays(query: Tensor, count: int, capacity: int, length: int) -> bool:
    copied = 2 * query.numel() * query.element_size() * length
    share = NEAR_SHARE if copied <= NEAR_MEMORY else FAR_SHARE
    return count < share * capacity


def _attend(
    query: Tensor, cache: Tensor, length: int, bias: Tensor | None, padding: Tensor | None
) -> Tensor:
    count, heads, size = query.shape
    # Shape: 2 x [count * heads, length, size]; views, the cache is contiguous over slots and heads
    keys, values = cache[:, :, :, :length].flatten(1, 2).unbind(0)
    # Shape: [count * heads, 1, length]
    scores = torch.bmm(query.reshape(count * heads, 1, size), keys.transpose(1, 2))
    if bias is not None:
        scores.view(count, heads, length).add_(bias)
    if padding is not None:
        scores.view(count, heads, length).add_(padding.unsqueeze(1))
    return torch.bmm(torch.softmax(scores, dim=-1), values).view(count, heads * size)


class CrossAttention:
    """Keys and values of the encoder's output, made for a layer when it first runs.

    Args:
        encoded: the encoder's output as ``unit``. Shape: [slots, tokens, d].
        padding: additive mask. Shape: [slots, tokens].
    """

    def __init__(self, encoded: Tensor, padding: Tensor | None, heads: int, depth: int) -> None:
        self._encoded = encoded
        self._padding = padding
        self._heads = heads
        # Shape: layers x [2, slots, heads, tokens, size]
        self._made: list[Tensor | None] = [None] * depth
        # Source tokens of each slot, padding included, and the most of any running one.
        self._lengths = [encoded.shape[1]] * encoded.shape[0]
        self._longest = encoded.shape[1]

    def has(self, index: int) -> bool:
        """Are this layer's keys and values there?"""
        return self._made[index] is not None

    def make(self, index: int, key_values: Tensor) -> None:
        """Keep a layer's keys and values. Shape: [slots * tokens, 2 * inner]."""
        self._made[index] = self._split(key_values, self._encoded).contiguous()

    def _split(self, key_values: Tensor, encoded: Tensor) -> Tensor:
        """Shape: [slots * tokens, 2 * inner] -> [2, slots, heads, tokens, size]."""
        slots, tokens, _ = encoded.shape
        return key_values.view(slots, tokens, 2, self._heads, -1).permute(2, 0, 3, 1, 4)

    def enter(
        self,
        slots: list[int],
        encoded: Tensor,
        padding: Tensor | None,
        key_values: Callable[[int, Tensor], Tensor],
    ) -> None:
        """New sources in these slots.

        Args:
            encoded: Shape: [slots given, tokens, d].
            padding: additive mask. Shape: [slots given, tokens].
            key_values: makes a layer's keys and values of encoder outputs.
                Shape: [slots * tokens, d] -> [slots * tokens, 2 * inner].
        """
        tokens = encoded.shape[1]
        if tokens > self._encoded.shape[1]:
            self._widen(tokens)
        index = torch.tensor(slots, device=encoded.device)
        if self._padding is None and (tokens < self._encoded.shape[1] or padding is not None):
            self._padding = encoded.new_zeros(self._encoded.shape[:2])
        self._encoded.narrow(1, 0, tokens).index_copy_(0, index, encoded)
        if self._padding is not None:
            lowest = torch.finfo(encoded.dtype).min
            rows = encoded.new_full((len(slots), self._encoded.shape[1]), lowest)
            rows[:, :tokens] = 0.0 if padding is None else padding
            self._padding.index_copy_(0, index, rows)
        flat = encoded.flatten(0, 1)
        for layer, made in enumerate(self._made):
            if made is not None:
                new = self._split(key_values(layer, flat), encoded)
                made.narrow(3, 0, tokens).index_copy_(1, index, new)
        for slot in slots:
            self._lengths[slot] = tokens

    def _widen(self, tokens: int) -> None:
        more = tokens - self._encoded.shape[1]
        lowest = torch.finfo(self._encoded.dtype).min
        if self._padding is None:
            self._padding = self._encoded.new_zeros(self._encoded.shape[:2])
        self._padding = F.pad(self._padding, (0, more), value=lowest)
        self._encoded = F.pad(self._encoded, (0, 0, 0, more))
        self._made = [None if one is None else F.pad(one, (0, 0, 0, more)) for one in self._made]

    def look(self, slots: list[int]) -> None:
        """These slots are running now."""
        self._longest = max((self._lengths[slot] for slot in slots), default=0)

    @property
    def encoded(self) -> Tensor:
        """Shape: [slots * tokens, d]."""
        return self._encoded.flatten(0, 1)

    def attend(self, index: int, query: Tensor, rows: Rows) -> Tensor:
        """Shape: [rows, heads * size] -> [rows, heads * size]."""
        made = self._made[index]
        assert made is not None
        per_head = query.view(len(rows), self._heads, -1)
        longest = self._longest
        padding = self._padding
        if padding is not None and longest < padding.shape[1]:
            padding = padding[:, :longest]
        return attend(per_head, made, rows, longest, padding=padding)

    def attend_many(self, index: int, query: Tensor, slot: int) -> Tensor:
        """Several tokens of one slot. Shape: [tokens, heads * size] -> the same."""
        made = self._made[index]
        assert made is not None
        mask = None if self._padding is None else self._padding[slot]
        return attend_span(query, made[:, slot], mask)

    def compact(self, slots: Tensor) -> None:
        """Keep these slots, and no more columns than the longest of them needs."""
        self._encoded = self._encoded.index_select(0, slots)
        tokens = self._encoded.shape[1]
        if self._padding is not None:
            self._padding = self._padding.index_select(0, slots)
            used = (self._padding == 0).any(dim=0).nonzero()
            tokens = int(used[-1]) + 1
            self._padding = self._padding[:, :tokens]
            if not bool(self._padding.any()):
                self._padding = None
        self._encoded = self._encoded[:, :tokens]
        self._lengths = [tokens] * len(slots)
        self._longest = tokens
        for index, made in enumerate(self._made):
            if made is not None:
                self._made[index] = made[:, :, :, :tokens].index_select(1, slots)


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
