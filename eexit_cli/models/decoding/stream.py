"""Decoding of many inputs in a fixed number of slots: a row that ends makes room for the next.

In a batch that waits for its longest output, more and more slots stand empty. Here they are given
to inputs that wait. All running rows still write to one place of the caches per step; a row that
came later does not see the places before its start (:class:`.window.Window`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from eexit_cli.models.decoding.caches import BatchCache
from eexit_cli.models.decoding.generation import TokenRules
from eexit_cli.models.decoding.given import Given
from eexit_cli.models.decoding.loop import COMPACT_AT, Batch
from eexit_cli.models.decoding.results import Decoded, DecodedSample
from eexit_cli.models.decoding.rows import Rows
from eexit_cli.models.decoding.settings import DecodeSettings
from eexit_cli.models.decoding.stack import Inputs, Stack

SPARE = 64
"""Places beyond the longest output; the caches move to the front when they are used up."""

REFILL_AT = 0.125
"""New inputs come in when this share of the slots is empty: each entry has a cost of its own."""

Sources = tuple[Tensor, Tensor | None]
"""Ids and attention mask. Shapes: [batch, tokens]."""


class Stream(Batch):
    """Batches decoded as one; the first has as many inputs as there are slots.

    Args:
        stack: the model's.
        batches: ids and masks, in the order in which the inputs come in.
        settings: checked against the model.
        start: id that every output starts from.
        end: ids that end an output.
        rules: which tokens may be chosen; None is all of them.
        longest: tokens of the longest input.
        given: outputs that are read in place of the chosen ones, in the order of the inputs.
        finished: called with the number of outputs that a step has ended.
    """

    spare = SPARE
    cache: BatchCache

    def __init__(
        self,
        stack: Stack,
        batches: Iterator[Sources],
        settings: DecodeSettings,
        *,
        start: int,
        end: frozenset[int],
        longest: int,
        rules: TokenRules | None = None,
        given: Given | None = None,
        finished: Callable[[int], None] | None = None,
    ) -> None:
        first = next(batches)
        super().__init__(
            stack,
            *first,
            settings,
            start=start,
            end=end,
            rules=rules,
            longest=longest,
            given=given,
        )
        self._batches = batches
        self._waiting: Inputs | None = None
        self._start = start
        self._finished = finished
        self._free: list[int] = []
        # The next token that each slot reads.
        self._next = [start] * len(self.rows)

    def _new_cache(self, batch: int) -> BatchCache:
        return self._batch_cache(batch)

    def run(self) -> Decoded:
        """All steps, until every output has ended or is as long as it may be."""
        position = self.origin
        while len(self.rows):
            self.advance(self.step(position), position)
            position += 1
            if position == self.places and len(self.rows):
                position -= self._rewind(position)
        return self.result()

    def advance(self, chosen: list[int], position: int) -> None:
        """Append the tokens; give the slots of what has ended to inputs that wait."""
        self.counts.tokens += len(chosen)
        longest = self.settings.max_new_tokens
        alive: list[int] = []
        ended: list[int] = []
        for slot, token in zip(self.rows.slots, chosen, strict=True):
            self._next[slot], over = self.write(slot, token)
            over = over or self.window.age(slot, position) + 1 == longest
            (ended if over else alive).append(slot)
        if ended:
            self._free += ended
            if self._finished is not None:
                self._finished(len(ended))
            alive = self._refill(alive, position + 1)
        self.tokens = torch.tensor([self._next[slot] for slot in alive], device=self.device)
        if ended:
            self.rows = Rows(alive, self.rows.capacity, self.device)
            for window in self.windows:
                window.look(alive)
            self.memory.look(alive)

    def _refill(self, alive: list[int], place: int) -> list[int]:
        """The running slots after new inputs came in, or after the slots were made fewer."""
        capacity = self.rows.capacity
        if alive and len(self._free) < REFILL_AT * capacity:
            return alive
        while self._free and (inputs := self._inputs()) is not None:
            alive = sorted([*alive, *self._enter(inputs, place)])
        if alive and self._inputs() is None and len(alive) <= COMPACT_AT * capacity:
            self.compact(alive, place)
            self.rows = Rows(list(range(len(alive))), len(alive), self.device)
            alive = self.rows.slots
        return alive

    def _inputs(self) -> Inputs | None:
        """Inputs that wait for a slot, one or more; None when there are no more."""
        if self._waiting is not None and len(self._waiting):
            return self._waiting
        batch = next(self._batches, None)
        if self.watch is not None:
            self.watch.other()
        self._waiting = None if batch is None else self.stack.read(*batch)
        if self.watch is not None:
            self.watch.encoder()
        return self._waiting

    def _enter(self, inputs: Inputs, place: int) -> list[int]:
        """Inputs take free slots; which they took."""
        count = min(len(inputs), len(self._free))
        slots = sorted(self._free[:count])
        self._free = self._free[count:]
        if self.watch is not None:
            self.watch.other()
        self.cache.enter(slots, place)
        self.window.enter(slots, [place] * len(slots))
        self.memory.enter(slots, inputs.take(count), place)
        if self.watch is not None:
            self.watch.encoder()
        for slot in slots:
            self.owners[slot] = len(self.outputs)
            self.outputs.append(DecodedSample([], [], []))
            self._next[slot] = self._start
        return slots

    def _rewind(self, position: int) -> int:
        """Move what the running rows still see to the front; by how many places.

        The longest input must still have room before its output.
        """
        offset = min(self.sight.first, position - self.origin)
        self.cache.shift(offset)
        for window in self.windows:
            window.shift(offset)
        if self.session is not None:
            self.session.shift(offset)
        return offset

    def compact(self, slots: list[int], done: int) -> None:
        super().compact(slots, done)
        self._next = [self._next[slot] for slot in slots]
        self._free = []
