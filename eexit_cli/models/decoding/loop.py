"""Greedy decoding in which tokens leave the decoder early, and rows that left do no more work.

At each step the running rows go through the layers together. After a layer the confident ones
are taken out of the tensors and the rest goes on; finished outputs are taken out for good.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence

import torch
from torch import Tensor

from eexit_cli.core.decoding import LayerView, MeasureSession, Needs
from eexit_cli.core.vocabulary import best
from eexit_cli.models.decoding.caches import BatchCache, SelfCache, SingleRowCache
from eexit_cli.models.decoding.generation import TokenRules
from eexit_cli.models.decoding.given import Given
from eexit_cli.models.decoding.results import DecodeCounts, Decoded, DecodedSample
from eexit_cli.models.decoding.rows import Rows
from eexit_cli.models.decoding.scoring import FullScorer, allowed, scorer_for
from eexit_cli.models.decoding.settings import DecodeSettings
from eexit_cli.models.decoding.stack import Exit, Stack
from eexit_cli.models.decoding.timing import Stopwatch
from eexit_cli.models.decoding.window import Window
from eexit_cli.models.finite import Finite

COMPACT_AT = 0.75
"""Caches are copied together when at most this share of their slots still runs."""


class Batch:
    """One batch on its way: inputs, caches, outputs so far. All rows start together.

    Args:
        stack: the model's.
        input_ids: Shape: [batch, tokens].
        attention_mask: 1 for tokens, 0 for padding. Shape: [batch, tokens].
        settings: checked against the model.
        start: id that every output starts from.
        end: ids that end an output.
        rules: which tokens may be chosen; None is all of them.
        longest: tokens of the longest input that will come; None is this batch's.
        given: outputs that are read in place of the chosen ones.

    Attributes:
        window: where each slot's output starts.
        sight: where what each slot sees starts: its prompt or, where none is decoded, its output.
        origin: the place that the outputs start at.
    """

    spare = 0
    """Places of the caches for outputs that start late."""

    def __init__(
        self,
        stack: Stack,
        input_ids: Tensor,
        attention_mask: Tensor | None,
        settings: DecodeSettings,
        *,
        start: int,
        end: frozenset[int],
        rules: TokenRules | None = None,
        longest: int | None = None,
        given: Given | None = None,
    ) -> None:
        self.stack = stack
        self.given = given
        self.settings = settings
        self.end = end
        self.rules = rules
        # Of the confidences and the chosen tokens' logits.
        self.finite = Finite()
        self.device = input_ids.device
        self.watch = Stopwatch(stack.depth, self.device) if settings.timings else None
        self.counts = DecodeCounts()
        batch = input_ids.shape[0]
        inputs = stack.read(input_ids, attention_mask)
        if self.watch is not None:
            self.watch.encoder()
        self.depth = settings.static_layer or stack.depth
        self.memory = stack.memory(inputs, self.depth, self.watch)
        self.origin = stack.places_before(longest or input_ids.shape[1])
        self.window = Window(batch, self.places, stack.embedding, start=self.origin)
        self.sight = self.window
        if not stack.shared_sight:
            self.sight = Window(batch, self.capacity, stack.embedding)
        self.windows = tuple(dict.fromkeys((self.window, self.sight)))
        self.cache = self._new_cache(batch)
        self.session: MeasureSession | None = None
        if settings.measure is not None:
            self.session = settings.measure.session(
                slots=batch,
                num_layers=stack.depth,
                max_tokens=self.capacity,
                like=stack.embedding,
            )
        self.rows = Rows(list(range(batch)), batch, self.device)
        told = self._see_prompts if self._needs == "state" else None
        self.memory.start(self.cache, self.sight, self.origin, told)
        if self.watch is not None:
            self.watch.encoder()
        self.scorer = scorer_for(stack, self.counts, self.finite, settings.top_k)
        self.outputs = [DecodedSample([], [], []) for _ in range(batch)]
        # Index into outputs of each cache slot; slots shrink, outputs do not.
        self.owners = list(range(batch))
        self.sight.look(self.rows.slots)
        self.tokens = torch.full((batch,), start, dtype=torch.int64, device=self.device)
        self.pairs: list[tuple[float, bool]] = []

    def _new_cache(self, batch: int) -> SelfCache:
        if batch > 1 or not self.stack.single:
            return self._batch_cache(batch)
        return SingleRowCache(
            self.stack,
            self.settings.max_new_tokens,
            self.depth,
            immediate=self.settings.filling == "immediate",
            watch=self.watch,
        )

    def _batch_cache(self, batch: int) -> BatchCache:
        return BatchCache(
            self.stack,
            batch,
            self.settings.max_new_tokens,
            self.depth,
            extra=self.extra,
            window=self.sight,
            spare=self.capacity - self.settings.max_new_tokens,
            immediate=self.settings.filling == "immediate",
            watch=self.watch,
        )

    @property
    def extra(self) -> Collection[int]:
        """Layers of exits that will run; see :class:`BatchCache`."""
        return ()

    @property
    def places(self) -> int:
        """Places that are run."""
        return self.origin + self.settings.max_new_tokens + self.spare

    @property
    def capacity(self) -> int:
        """Places of the caches: a prompt may enter when the last one has just been filled."""
        return self.places + (not self.stack.shared_sight)

    def run(self) -> Decoded:
        """All steps, until every output has ended or is as long as it may be."""
        for position in range(self.origin, self.origin + self.settings.max_new_tokens):
            chosen = self.step(position)
            self.advance(chosen, position)
            if not len(self.rows):
                break
        return self.result()

    def result(self) -> Decoded:
        """What has been decoded."""
        if self.watch is not None:
            self.watch.other()
        self.counts.filled += self.cache.filled
        timings = None if self.watch is None else self.watch.timings
        finite = self.stack.head_is_finite and self.finite.all()
        return Decoded(self.outputs, self.counts, timings, self.pairs, finite)

    def step(self, position: int) -> list[int]:
        """One token for every running row. Returns the tokens, in the rows' order."""
        stack, watch, session = self.stack, self.watch, self.session
        rows, tokens = self.rows, self.tokens
        chosen: dict[int, int] = {}
        fresh = [number for number, slot in enumerate(rows.slots) if slot in self.memory.fresh]
        if fresh:
            rows, tokens = self._beside(fresh)
        self.scorer.begin()
        depth = self.depth if len(rows) else 0
        # Shape: [rows, d]
        x = stack.embed(tokens, self.sight.ages(rows.host, position))
        unit = stack.unit(x)
        if watch is not None:
            watch.other()
        for index in range(depth):
            previous = x
            x = self.layer(index, x, unit, rows, position)
            unit = stack.unit(x)
            if watch is not None:
                watch.layer(index)
            if index + 1 == depth:
                self.record(rows, self.depth, [math.nan] * len(rows))
                answer = self.answer(depth, unit, rows, position)
                self.cache.leave(index, answer, rows, position, None)
                break
            if session is None or not self.offers(index + 1):
                continue
            answer = self.answer(index + 1, unit, rows, position)
            view = self.view(index + 1, position, rows, x, previous, answer)
            confidence = session.confidence(view)
            self.finite.see(confidence)
            leaving, staying = self.split(confidence, rows, position)
            if watch is not None:
                watch.confidence(index)
            if not leaving:
                continue
            gone = rows.take(leaving) if staying else rows
            if self.scores_layers:
                told = self.tell(index + 1, answer, gone, leaving if staying else None, position)
                chosen.update(zip(gone.slots, told, strict=True))
                if watch is not None:
                    watch.head()
            values = confidence.tolist()
            self.record(gone, index + 1, [values[number] for number in leaving])
            self.cache.leave(index, unit, rows, position, leaving if staying else None)
            if not staying:
                rows = rows.take([])
                break
            keep = torch.tensor(staying, device=self.device)
            x, unit = x.index_select(0, keep), unit.index_select(0, keep)
            self.scorer.keep(staying)
            rows = rows.take(staying)
            if watch is not None:
                watch.other()
        if fresh:
            rows = self._joined(rows, fresh)
        return self.choose(rows, position, chosen)

    def _beside(self, fresh: list[int]) -> tuple[Rows, Tensor]:
        """The running rows without those whose prompt has just been run, and what they read."""
        old = [number for number in range(len(self.rows)) if number not in set(fresh)]
        gone = self.rows.take(fresh)
        self.record(gone, self.depth, [math.nan] * len(gone))
        self.counts.layer_tokens += self.depth * len(gone)
        return self.rows.take(old), self.tokens[old]

    def _see_prompts(self, layer: int, slots: Sequence[int], place: int, residual: Tensor) -> None:
        """A measure that remembers tokens sees a prompt's last one, which it is not asked about."""
        if layer == self.stack.depth or self.session is None:
            return
        rows = Rows(list(slots), self.rows.capacity, self.device)
        view = LayerView(layer, place, rows.index, residual, residual, first=place)
        view.state = self.exit_at(layer).state(self.stack.unit(residual))
        self.session.confidence(view)

    def _joined(self, rest: Rows, fresh: list[int]) -> Rows:
        """Rows that reached the last layer now, or in their prompt's pass."""
        slots = {*rest.slots, *(self.rows.slots[number] for number in fresh)}
        self.memory.fresh.clear()
        return Rows(sorted(slots), self.rows.capacity, self.device)

    def offers(self, layer: int) -> bool:
        """May tokens leave after this layer, 1..L?"""
        return layer >= self.settings.min_layer

    def exit_at(self, layer: int) -> Exit:
        """What answers after this layer."""
        return self.stack

    def answer(self, layer: int, unit: Tensor, rows: Rows, position: int) -> Tensor:
        """What the exit after this layer reads. Shape: [rows, d], in and out."""
        return unit

    @property
    def scores_layers(self) -> bool:
        """Is the LM head computed where tokens leave? Where the measure itself computes it."""
        return self._needs == "logits"

    @property
    def _needs(self) -> Needs | None:
        return None if self.settings.measure is None else self.settings.measure.needs

    def tell(
        self, layer: int, answer: Tensor, gone: Rows, leaving: list[int] | None, position: int
    ) -> list[int]:
        """Tokens of the rows that leave after this layer, where heads are computed there.

        Args:
            answer: what the exit reads, of all rows that ran the layer. Shape: [rows, d].
            gone: the rows that leave.
            leaving: their places among those that ran the layer; None is all.
        """
        told = self.scorer.choose(leaving)
        if self.given is not None and isinstance(self.scorer, FullScorer):
            self.given.judge(self.scorer.last(leaving), self._owners(gone), self.outputs)
        return told

    def split(self, confidence: Tensor, rows: Rows, position: int) -> tuple[list[int], list[int]]:
        """Places of the rows that leave, and of those that go on."""
        assert self.settings.rule is not None
        age = self.window.ages(rows.host, position)
        leave = self.settings.rule.leave(confidence, age).tolist()
        leaving = [number for number, gone in enumerate(leave) if gone]
        return leaving, [number for number, gone in enumerate(leave) if not gone]

    def choose(self, rest: Rows, position: int, chosen: dict[int, int]) -> list[int]:
        """Tokens of all running rows, in their order.

        Args:
            rest: rows that reached the last layer.
            chosen: token by slot of the rows whose exit was scored already; where the measure
                does not score exits, one product serves the whole step.
        """
        rows = rest if self.scores_layers else self.rows
        if len(rows):
            self.counts.head_rows += len(rows)
            logits = self.exit_at(self.depth).logits(self.cache.ended(rows, position))
            if self.given is not None:
                self.given.judge(logits, self._owners(rows), self.outputs)
            largest, where = best(allowed(logits, self.ban(rows, position)))
            self.finite.see(largest)
            chosen.update(zip(rows.slots, where.tolist(), strict=True))
        if self.watch is not None:
            self.watch.head()
        return [chosen[slot] for slot in self.rows.slots]

    def ban(self, rows: Rows, position: int) -> Tensor | None:
        """What the rules take from the rows' logits. Shape: [rows or 1, vocabulary]."""
        if self.rules is None:
            return None
        return self.rules.of_rows(self.window.ages(rows.host, position))

    def record(self, rows: Rows, layer: int, confidences: list[float]) -> None:
        """These rows' tokens are those of this layer."""
        for slot, confidence in zip(rows.slots, confidences, strict=True):
            output = self.outputs[self.owners[slot]]
            output.exit_layers.append(layer)
            output.confidences.append(confidence)

    def _owners(self, rows: Rows) -> list[int]:
        return [self.owners[slot] for slot in rows.slots]

    def write(self, slot: int, token: int) -> tuple[int, bool]:
        """Append a chosen token. What its output reads next, and whether it has ended."""
        owner = self.owners[slot]
        written = self.outputs[owner].tokens
        written.append(token)
        if self.given is None:
            return token, token in self.end
        return self.given.next(owner, len(written))

    def advance(self, chosen: list[int], position: int) -> None:
        """Append the tokens; take out what has ended."""
        self.counts.tokens += len(chosen)
        alive, read = [], []
        for number, (slot, token) in enumerate(zip(self.rows.slots, chosen, strict=True)):
            following, over = self.write(slot, token)
            if not over:
                alive.append(number)
                read.append(following)
        self.tokens = torch.tensor(read, dtype=torch.int64, device=self.device)
        if len(alive) == len(chosen):
            return
        slots = [self.rows.slots[number] for number in alive]
        capacity = self.rows.capacity
        if slots and len(slots) <= COMPACT_AT * capacity:
            self.compact(slots, position + 1)
            slots, capacity = list(range(len(slots))), len(slots)
        self.rows = Rows(slots, capacity, self.device)

    def compact(self, slots: list[int], done: int) -> None:
        """Keep these cache slots, renumbered; ``done`` positions are in use."""
        index = torch.tensor(slots, device=self.device)
        # Prompts that have just been run end at the place of the coming step.
        self.cache.compact(slots, done + bool(self.memory.fresh))
        for window in self.windows:
            window.compact(slots)
            window.look(list(range(len(slots))))
        self.memory.compact(index)
        if self.session is not None:
            self.session.compact(index)
        self.owners = [self.owners[slot] for slot in slots]

    def layer(self, index: int, x: Tensor, unit: Tensor, rows: Rows, position: int) -> Tensor:
        """One decoder layer for one token per row. Shape: [rows, d] -> [rows, d]."""
        self.counts.layer_tokens += len(rows)
        self.stack.prepare(index, self.memory)
        attended = self.cache.attend(index, unit, rows, position)
        return self.stack.after_attention(index, attended, x, self.memory, rows)

    def view(
        self,
        layer: int,
        position: int,
        rows: Rows,
        x: Tensor,
        previous: Tensor,
        unit: Tensor,
    ) -> LayerView:
        """What the measure may look at, with the parts that it asks for."""
        hidden = self.window.hidden(position + 1)
        view = LayerView(
            layer, position, rows.index, x, previous, first=self.window.first, hidden=hidden
        )
        if self._needs == "state":
            view.state = self.exit_at(layer).state(unit)
        elif self._needs == "logits":
            ban = self.ban(rows, position)
            view.logits = self.scorer.logits(unit, ban, self.exit_at(layer))
        return view
