"""Self-attention caches, and the keys and values that skipped layers still owe.

A token that leaves at layer e hands its state to the deeper layers, each of which makes its own
key and value of it. Nothing is made until a later token of the same row runs such a layer; then
all that wait for that row and layer are made in one product. What waits is always a contiguous
range of positions, so one number per row and layer says it all.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from eexit_cli.models.decoding.attention import attend
from eexit_cli.models.decoding.rows import Rows
from eexit_cli.models.decoding.stack import Stack
from eexit_cli.models.decoding.timing import Stopwatch
from eexit_cli.models.decoding.window import Window


class SelfCache(Protocol):
    """Keys, values and exit states of a batch."""

    filled: int
    """Keys and values made for skipped layers so far, one layer and token each."""

    def attend(self, index: int, unit: Tensor, rows: Rows, position: int) -> Tensor:
        """Self-attention of the rows' tokens at ``position`` in layer ``index`` (0-based).

        Shape: [rows, d] -> [rows, inner].
        """
        ...

    def leave(
        self, index: int, unit: Tensor, rows: Rows, position: int, leaving: list[int] | None
    ) -> None:
        """Some rows' tokens end with this state after layer ``index``.

        Args:
            unit: of all rows given; those that go on may be kept too, they are replaced later.
                Shape: [rows, d].
            leaving: places of the rows that leave; None is all.
        """
        ...

    def ended(self, rows: Rows, position: int) -> Tensor:
        """The states that the rows' tokens ended with. Shape: [rows, d]."""
        ...

    def compact(self, slots: list[int], position: int) -> None:
        """Keep these slots, renumbered in this order; ``position`` tokens are done."""
        ...


class SingleRowCache:
    """One row, whose waiting tokens join the running one's product.

    Query, key and value of a position lie beside each other, and waiting positions come right
    before the running one. So the product of all of them is written straight to its place.
    """

    def __init__(
        self,
        stack: Stack,
        max_tokens: int,
        depth: int,
        *,
        immediate: bool = False,
        watch: Stopwatch | None = None,
    ) -> None:
        self._model = stack
        self._immediate = immediate
        self._watch = watch
        self._depth = depth
        heads, size = stack.heads, stack.head_size
        like = stack.embedding
        # Shape: [positions, d]
        self._states = like.new_zeros(max_tokens, stack.width)
        # Shape: layers x [positions, 3 * inner]
        self._fused = [like.new_zeros(max_tokens, 3 * stack.inner) for _ in range(depth)]
        split = [one.view(max_tokens, 3, heads, size).permute(1, 2, 0, 3) for one in self._fused]
        # Shape: layers x [heads, positions, size]
        self._queries = [one[0] for one in split]
        self._keys = [one[1].transpose(1, 2) for one in split]
        self._values = [one[2] for one in split]
        self._done = [0] * depth
        bias = stack.bias(max_tokens)
        assert bias is not None
        self._bias = bias.unsqueeze(1)
        self.filled = 0

    def attend(self, index: int, unit: Tensor, rows: Rows, position: int) -> Tensor:
        start, end = self._done[index], position + 1
        if start == position:
            source = unit
        else:
            self._states[position].copy_(unit[0])
            source = self._states[start:end]
            self.filled += position - start
        self._model.projection(index).into(source, self._fused[index][start:end])
        self._done[index] = end
        if self._watch is not None:
            self._watch.shared_product(index, (position - start) / (end - start))
        capacity = self._bias.shape[2]
        # Shape: [heads, 1, end]
        scores = torch.baddbmm(
            self._bias.narrow(2, capacity - end, end),
            self._queries[index].narrow(1, position, 1),
            self._keys[index].narrow(2, 0, end),
        )
        attended = torch.bmm(torch.softmax(scores, -1), self._values[index].narrow(1, 0, end))
        return attended.view(1, -1)

    def leave(
        self, index: int, unit: Tensor, rows: Rows, position: int, leaving: list[int] | None
    ) -> None:
        self._states[position].copy_(unit[0])
        first = index + 1
        if not self._immediate or first == self._depth:
            return
        inner = self._model.inner
        made = self._model.skipped_key_values(unit, first, None)
        for later, each in zip(range(first, self._depth), made, strict=False):
            self._fused[later][position, inner:] = each[0]
            self._done[later] = position + 1
        self.filled += self._depth - first
        if self._watch is not None:
            self._watch.filling()

    def ended(self, rows: Rows, position: int) -> Tensor:
        return self._states.narrow(0, position, 1)

    def compact(self, slots: list[int], position: int) -> None:
        return None


class BatchCache:
    """Many rows, each with its own waiting tokens, which join the running ones' product.

    Args:
        slots: rows at a time.
        max_tokens: of one output.
        depth: layers that run.
        extra: what else has keys and values: layers of exits, whose numbers begin after the last
            layer's.
        window: what each slot sees; None is every place.
        spare: places beyond ``max_tokens``: for prompts, and for outputs that start late.
        immediate: fill the skipped layers as a token leaves, in one product; for comparison.
    """

    def __init__(
        self,
        stack: Stack,
        slots: int,
        max_tokens: int,
        depth: int,
        *,
        extra: Collection[int] = (),
        window: Window | None = None,
        spare: int = 0,
        immediate: bool = False,
        watch: Stopwatch | None = None,
    ) -> None:
        self._model = stack
        self._capacity = max_tokens
        self._depth = depth
        self._immediate = immediate
        self._watch = watch
        like = stack.embedding
        self._window = window or Window(slots, max_tokens, like)
        places = max_tokens + spare
        # Where all rows start together, nothing is read before it was written, but by slots that
        # have ended, whose results are dropped. What a late row does not see is read and weighed
        # with 0, which needs finite numbers.
        self._make = like.new_zeros if spare else like.new_empty
        # Shape: [slots, places, d]
        self._states = like.new_empty(slots, places, stack.width)
        self._shape = (stack.kv_heads, places, stack.head_size)
        # Keys and values, Shape: layers x [2, slots, heads, places, size], made when a layer
        # first runs
        self._extra = frozenset(extra)
        self._caches: list[Tensor | None] = [None] * max([depth, *(one + 1 for one in extra)])
        # Shape: [layers, slots]: places before which keys and values are there
        self._done = np.zeros((len(self._caches), slots), dtype=np.int64)
        self._bias = stack.bias(max_tokens)
        self._turned: tuple[Rows, int, Any] | None = None
        self.filled = 0

    def holds(self, index: int) -> bool:
        """Are there keys and values of this layer?"""
        return index < self._depth or index in self._extra

    def layer(self, index: int) -> Tensor:
        """A layer's keys and values. Shape: [2, slots, heads, places, size]."""
        cache = self._caches[index]
        if cache is None:
            cache = self._make(2, self._states.shape[0], *self._shape)
            self._caches[index] = cache
        return cache

    def bias(self, end: int) -> Tensor:
        """Of the query at position ``end`` - 1. Shape: [heads, end]."""
        assert self._bias is not None
        return self._bias[:, self._capacity - end :]

    def _turn(self, rows: Rows, position: int) -> Any:
        """What the stack makes of the running tokens' positions; the same in every layer."""
        if self._turned is None or self._turned[0] is not rows or self._turned[1] != position:
            turn = self._model.turn(self._window.ages(rows.host, position))
            self._turned = rows, position, turn
        return self._turned[2]

    def attend(self, index: int, unit: Tensor, rows: Rows, position: int) -> Tensor:
        held, _, size = self._shape
        count = len(rows)
        cache = self.layer(index)
        window = self._window
        waiting = position - self._done[index, rows.host]
        total = int(waiting.sum())
        if total == 0:
            query, made = self._model.project(index, unit, self._turn(rows, position))
            # Shape: [2, rows, key heads, size]
            made = made.view(count, 2, held, size).transpose(0, 1)
            here = cache.select(3, position)
            if rows.index is None:
                here.copy_(made)
            else:
                here.index_copy_(1, rows.index, made)
        else:
            owed = self._owed(rows.host, waiting, position)
            slots, places = torch.from_numpy(owed).to(unit.device)
            source = torch.cat((unit, self._states[slots[count:], places[count:]]))
            turn = self._model.turn(window.since(*owed)) if self._model.turns_by_place else None
            query, made = self._model.project(index, source, turn)
            query = query[:count]
            self.write(index, slots, places, made)
            self.filled += total
            if self._watch is not None:
                self._watch.shared_product(index, total / (count + total))
        self._done[index, rows.host] = position + 1
        first = window.first
        reach = self._model.reach(index)
        if reach is not None:
            first = max(first, position + 1 - reach)
        length = position + 1 - first
        return attend(
            query.view(count, -1, size),
            cache.narrow(3, first, length),
            rows,
            length,
            bias=None if self._bias is None else self.bias(length),
            padding=window.hidden(position + 1, first),
            cap=self._model.cap,
        )

    @staticmethod
    def _owed(slots: np.ndarray, waiting: np.ndarray, position: int) -> np.ndarray:
        """Slots and places of the running tokens, and after them of all that wait before them.

        Shape: [2, tokens].
        """
        total = int(waiting.sum())
        starts = np.repeat(position - waiting, waiting)
        offsets = np.arange(total) - np.repeat(np.cumsum(waiting) - waiting, waiting)
        return np.stack(
            (
                np.concatenate((slots, np.repeat(slots, waiting))),
                np.concatenate((np.full(len(slots), position), starts + offsets)),
            )
        )

    def put(self, index: int, slots: Sequence[int], start: int, made: Tensor) -> None:
        """Keys and values of whole spans, from place ``start`` on.

        Args:
            made: Shape: [2, slots given, key heads, places, size].
        """
        span = self.layer(index).narrow(3, start, made.shape[3])
        if len(slots) == span.shape[1]:
            span.copy_(made)
        else:
            span.index_copy_(1, torch.tensor(slots, device=made.device), made)

    def settle(self, slots: Sequence[int], place: int, state: Tensor) -> None:
        """The tokens at ``place`` have been through all layers. Shape: [slots given, d]."""
        self._states[:, place].index_copy_(0, torch.tensor(slots, device=state.device), state)
        self._done[:, slots] = place + 1

    def write(self, index: int, slots: Tensor, positions: Tensor, made: Tensor) -> None:
        """Put keys and values in their places. Shapes: [n], [n], [n, 2 * inner]."""
        held, _, size = self._shape
        # Shape: [slots, positions, 2, key heads, size]
        by_token = self.layer(index).permute(1, 3, 0, 2, 4)
        by_token.index_put_((slots, positions), made.view(-1, 2, held, size))

    def enter(self, slots: list[int], place: int) -> None:
        """New outputs start in these slots; no layer owes anything of what came before."""
        self._done[:, slots] = place

    def shift(self, offset: int) -> None:
        """Forget the first ``offset`` places; what follows moves to the front."""
        kept = self._states.shape[1] - offset
        for cache in (self._states, *(one for one in self._caches if one is not None)):
            cache.narrow(-2, 0, kept).copy_(cache.narrow(-2, offset, kept).clone())
        self._done -= offset
        self._turned = None

    def leave(
        self, index: int, unit: Tensor, rows: Rows, position: int, leaving: list[int] | None
    ) -> None:
        if rows.index is None:
            self._states[:, position].copy_(unit)
        else:
            self._states.select(1, position).index_copy_(0, rows.index, unit)
        first = index + 1
        if not self._immediate or first == self._depth:
            return
        if leaving is not None:
            rows, unit = rows.take(leaving), unit[leaving]
        slots = torch.tensor(rows.slots, device=unit.device)
        places = torch.full_like(slots, position)
        made = self._model.skipped_key_values(unit, first, self._turn(rows, position))
        for later, each in enumerate(made, start=first):
            if later < self._depth:
                self.write(later, slots, places, each)
                self._done[later, rows.host] = position + 1
        self.filled += (self._depth - first) * len(rows)
        if self._watch is not None:
            self._watch.filling()

    def ended(self, rows: Rows, position: int) -> Tensor:
        states = self._states[:, position]
        return states if rows.index is None else states.index_select(0, rows.index)

    def compact(self, slots: list[int], position: int) -> None:
        index = torch.tensor(slots, device=self._states.device)
        self._states = _packed(self._states, index, 0, position)
        self._caches = [
            None if one is None else _packed(one, index, 1, position) for one in self._caches
        ]
        self._done = self._done[:, slots]


def _packed(cache: Tensor, index: Tensor, axis: int, used: int) -> Tensor:
    """A copy of some slots, with the old capacity; only the used positions are read.

    Args:
        axis: of the slots; the positions are the one before the last.
    """
    shape = list(cache.shape)
    shape[axis] = len(index)
    new = cache.new_empty(shape)
    new.narrow(-2, 0, used).copy_(cache.narrow(-2, 0, used).index_select(axis, index))
    return new
