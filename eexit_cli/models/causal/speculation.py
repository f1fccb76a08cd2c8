"""Self-speculative decoding: early layers draft, the others verify (LayerSkip, arXiv:2404.16710).

The first E layers and the exit after them write a draft, token by token; the deeper layers then
run over the whole draft in one pass, from the states that the first ones left. Accepted is what
the full model would have written itself, and its next token comes with it, so the outputs are
those of the full model, whatever E. Nothing is computed twice: keys and values of the first layers
serve both, and those of rejected tokens are overwritten.

All outputs of a batch are drafted together. Their lengths differ after the first verification, so
each row has a place of its own in the caches.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, cast

import torch
from torch import Tensor

from eexit_cli.core.vocabulary import best
from eexit_cli.models.causal.maps import Turn
from eexit_cli.models.causal.stack import CausalStack
from eexit_cli.models.decoding.caches import BatchCache
from eexit_cli.models.decoding.generation import TokenRules
from eexit_cli.models.decoding.loop import COMPACT_AT
from eexit_cli.models.decoding.results import DecodeCounts, Decoded, DecodedSample
from eexit_cli.models.decoding.scoring import allowed
from eexit_cli.models.decoding.settings import DecodeSettings
from eexit_cli.models.decoding.timing import Stopwatch
from eexit_cli.models.finite import Finite


@dataclass(frozen=True)
class Span:
    """Consecutive tokens of every slot, and where they are in the caches.

    Attributes:
        firsts: place of the first token of each slot.
        count: tokens of each.
        low, end: the places that any slot sees.
        index: slot and place of each token, where slots are at different places. Shapes: [tokens].
        masks: by how far a layer sees.
    """

    firsts: list[int]
    count: int
    low: int
    end: int
    index: tuple[Tensor, Tensor] | None
    masks: dict[int | None, Tensor | None] = field(default_factory=dict)

    @property
    def first(self) -> int:
        """Where all slots are at one place."""
        return self.firsts[0]


class SpeculativeBatch:
    """One batch on its way; see :class:`eexit_cli.models.decoding.loop.Batch`.

    Args:
        stack: the model's.
        input_ids: prompts. Shape: [batch, tokens].
        attention_mask: Shape: [batch, tokens].
        settings: with ``draft_layer``, checked against the model.
        start: not read.
        end: ids that end an output.
        rules: which tokens may be chosen; None is all of them.
    """

    def __init__(
        self,
        stack: CausalStack,
        input_ids: Tensor,
        attention_mask: Tensor | None,
        settings: DecodeSettings,
        *,
        start: int,
        end: frozenset[int],
        rules: TokenRules | None = None,
    ) -> None:
        assert settings.draft_layer is not None
        self.stack, self.settings, self.end, self.rules = stack, settings, end, rules
        self.early = settings.draft_layer
        self.device = input_ids.device
        self.finite = Finite()
        self.counts = DecodeCounts()
        self.watch = Stopwatch(stack.depth, self.device) if settings.timings else None
        self.prompts = stack.read(input_ids, attention_mask)
        count, self.origin = len(self.prompts), input_ids.shape[1] - 1
        self.capacity = self.origin + settings.max_new_tokens + settings.draft_tokens + 1
        # With room to spare, so that what nobody has written yet is finite.
        spare = self.capacity - 1
        self.own = stack.own_layer(self.early)
        extra = () if self.own is None else (self.own,)
        self.cache = BatchCache(cast(Any, stack), count, 1, stack.depth, extra=extra, spare=spare)
        self.outputs = [DecodedSample([], [], []) for _ in range(count)]
        # Of each cache slot: its output, the place of its newest token, where its prompt starts.
        self.owners = list(range(count))
        self.places = [self.origin + 1] * count
        self.starts = [self.origin + 1 - length for length in self.prompts.lengths]
        self.done = [False] * count

    def run(self) -> Decoded:
        """All outputs, to their ends."""
        tokens = self._first()
        while not all(self.done):
            tokens = self._cycle(tokens)
            tokens = self._compacted(tokens)
        if self.watch is not None:
            self.watch.other()
        timings = None if self.watch is None else self.watch.timings
        finite = self.stack.head_is_finite and self.finite.all()
        return Decoded(self.outputs, self.counts, timings, [], finite)

    def _first(self) -> list[int]:
        """The first token of each output, from the pass over its prompt."""
        stack, slots = self.stack, list(range(len(self.owners)))
        states = stack.run_prompts(self.prompts, stack.depth, self.cache, slots, self.origin)
        if self.watch is not None:
            self.watch.encoder()
        self.counts.layer_tokens += stack.depth * len(slots)
        tokens, _ = self._choose(states, [0] * len(slots), asked=len(slots))
        for slot, token in enumerate(tokens):
            self._emit(slot, [token])
        if self.watch is not None:
            self.watch.head()
        return tokens

    def _emit(self, slot: int, tokens: Sequence[int]) -> None:
        """Append what fits, up to an end."""
        output = self.outputs[self.owners[slot]]
        for token in tokens:
            output.tokens.append(token)
            output.exit_layers.append(self.stack.depth)
            output.confidences.append(math.nan)
            self.counts.tokens += 1
            if token in self.end or len(output.tokens) == self.settings.max_new_tokens:
                self.done[slot] = True
                return

    def _ages(self) -> list[int]:
        """Tokens of each slot's output."""
        return [len(self.outputs[owner].tokens) for owner in self.owners]

    def _cycle(self, tokens: list[int]) -> list[int]:
        """One draft and its verification; the newest token of each slot."""
        ages = self._ages()
        longest = self.settings.max_new_tokens
        live = [slot for slot, done in enumerate(self.done) if not done]
        # A draft that fills the output leaves no room for the verification's own token.
        room = [longest - ages[slot] - 1 if slot in set(live) else 0 for slot in range(len(ages))]
        states, drafts = self._draft(tokens, ages, room)
        verified = self._verify(states, ages, [len(draft) for draft in drafts])
        for slot in live:
            draft, own = drafts[slot], verified[slot]
            accepted = 0
            while accepted < len(draft) and draft[accepted] == own[accepted]:
                accepted += 1
            self.outputs[self.owners[slot]].passes.append((len(draft), accepted))
            self.counts.drafted += len(draft)
            self.counts.accepted += accepted
            self.counts.verifications += 1
            self._emit(slot, own[: accepted + 1])
            self.places[slot] += accepted + 1
            tokens[slot] = own[accepted]
        return tokens

    def _draft(
        self, tokens: list[int], ages: list[int], room: list[int]
    ) -> tuple[list[Tensor], list[list[int]]]:
        """Run the newest tokens and their drafts through the early layers.

        Returns:
            States after layer E, of the newest token and of each draft. Shape: [slots, d] each.
            The drafts of each slot.
        """
        stack, watch, settings = self.stack, self.watch, self.settings
        drafts: list[list[int]] = [[] for _ in tokens]
        most = [min(settings.draft_tokens, free) for free in room]
        going = [not done for done in self.done]
        newest = list(tokens)
        states: list[Tensor] = []
        while True:
            offset = len(states)
            asked = sum(going)
            self.counts.layer_tokens += self.early * asked
            positions = self._positions(offset, 1)
            read = torch.tensor(newest, device=self.device)
            x = stack.embed(read, positions)
            turn, span = stack.turn(positions), self._at(offset, 1)
            if watch is not None:
                watch.other()
            for index in range(self.early):
                x = self._span(index, x, turn, span)
                if watch is not None:
                    watch.layer(index)
            states.append(x)
            if self.own is not None:
                # For every token, since those after it attend to what this layer made of it.
                self.counts.layer_tokens += asked
                x = self._span(self.own, x, turn, span)
            going = [
                on and len(draft) < top for on, draft, top in zip(going, drafts, most, strict=True)
            ]
            if not any(going):
                return states, drafts
            at = [age + offset for age in ages]
            newest, sure = self._choose(x, at, asked=sum(going), layer=self.early)
            for slot, on in enumerate(going):
                if on:
                    drafts[slot].append(newest[slot])
                    # A token that may well be wrong is verified, but nothing is built on it.
                    if sure[slot] < settings.draft_threshold or newest[slot] in self.end:
                        most[slot] = len(drafts[slot])
            if watch is not None:
                watch.confidence(self.early - 1)

    def _verify(self, states: list[Tensor], ages: list[int], drafted: list[int]) -> list[list[int]]:
        """What the full model writes after the newest token and after each draft, by slot."""
        stack, watch = self.stack, self.watch
        count, slots = len(states), len(self.owners)
        # Shape: [slots * count, d]
        x = torch.stack(states, dim=1).flatten(0, 1)
        turn, span = stack.turn(self._positions(0, count)), self._at(0, count)
        real = sum(n + 1 for n, done in zip(drafted, self.done, strict=True) if not done)
        self.counts.layer_tokens += (stack.depth - self.early) * real
        if watch is not None:
            watch.other()
        for index in range(self.early, stack.depth):
            x = self._span(index, x, turn, span)
            if watch is not None:
                watch.layer(index)
        at = [age + offset for age in ages for offset in range(count)]
        tokens, _ = self._choose(x, at, asked=real)
        if watch is not None:
            watch.head()
        return [tokens[slot * count : (slot + 1) * count] for slot in range(slots)]

    def _choose(
        self, states: Tensor, ages: Sequence[int], *, asked: int, layer: int | None = None
    ) -> tuple[list[int], list[float]]:
        """The head's choice for each state, and its probability where a threshold needs it.

        Args:
            ages: tokens of the output before each.
            asked: states that are of a running output.
            layer: that of the exit, by default the last.
        """
        self.counts.head_rows += asked
        logits = self.stack.exit_at(layer or self.stack.depth).logits(states)
        if self.rules is not None:
            logits = allowed(logits, self.rules.of_rows(torch.tensor(ages)))
        largest, where = best(logits)
        self.finite.see(largest)
        if self.settings.draft_threshold <= 0:
            return where.tolist(), [1.0] * len(ages)
        sure = (largest - torch.logsumexp(logits, dim=-1)).exp()
        return where.tolist(), sure.tolist()

    def _positions(self, offset: int, count: int) -> int | Tensor:
        """Of ``count`` tokens of every slot, from ``offset`` after its newest on.

        Returns:
            One number, or Shape: [slots * count].
        """
        firsts = [
            place - start + offset for place, start in zip(self.places, self.starts, strict=True)
        ]
        if count == 1 and len(set(firsts)) == 1:
            return firsts[0]
        return torch.tensor([first + step for first in firsts for step in range(count)])

    def _span(self, index: int, x: Tensor, turn: Turn | None, span: Span) -> Tensor:
        """One layer for a span of every slot. Shape: [slots * count, d], in and out."""
        stack, slots, count = self.stack, len(self.owners), span.count
        query, made = stack.project(index, x, turn)
        cache = self.cache.layer(index)
        if span.index is None:
            # Shape: [2, slots, key heads, count, size]
            made = made.view(slots, count, *made.shape[1:]).permute(2, 0, 3, 1, 4)
            cache.narrow(3, span.first, count).copy_(made)
        else:
            self.cache.write(index, *span.index, made)
        query = query.view(slots, count, stack.heads, stack.head_size).transpose(1, 2)
        keys, values = cache.narrow(3, span.low, span.end - span.low).unbind(0)
        attended = stack.attend_spans(query, keys, values, self._mask(index, span))
        return stack.layers[index].rest(attended.flatten(0, 1), x)

    def _at(self, offset: int, count: int) -> Span:
        """``count`` tokens of every slot, from ``offset`` after its newest on."""
        first = [place + offset for place in self.places]
        index = None
        if min(first) != max(first):
            places = [place + step for place in first for step in range(count)]
            slots = [slot for slot in range(len(first)) for _ in range(count)]
            both = torch.tensor([slots, places], device=self.device)
            index = both[0], both[1]
        return Span(first, count, min(self.starts), max(first) + count, index)

    def _mask(self, index: int, span: Span) -> Tensor | None:
        """Added to the scores; None where everything is seen. Shape: [slots, 1, count, places]."""
        reach = self.stack.reach(index)
        if reach not in span.masks:
            span.masks[reach] = self._make_mask(reach, span)
        return span.masks[reach]

    def _make_mask(self, reach: int | None, span: Span) -> Tensor | None:
        alike = span.index is None and min(self.starts) == max(self.starts)
        if alike and span.count == 1 and (reach is None or span.end - span.low <= reach):
            return None
        places = torch.arange(span.low, span.end)
        own = torch.tensor(span.firsts).unsqueeze(1) + torch.arange(span.count)
        seen = (places <= own.unsqueeze(-1)) & (places >= torch.tensor(self.starts)[:, None, None])
        if reach is not None:
            seen &= own.unsqueeze(-1) - places < reach
        like = self.stack.embedding
        mask = torch.zeros(seen.shape, dtype=like.dtype)
        return mask.masked_fill_(~seen, torch.finfo(like.dtype).min).unsqueeze(1).to(self.device)

    def _compacted(self, tokens: list[int]) -> list[int]:
        """Drop slots that are done, when they are many."""
        live = [slot for slot, done in enumerate(self.done) if not done]
        if not live or len(live) > COMPACT_AT * len(self.done):
            return tokens
        # All places: rows that are behind read, with no weight, what others have written.
        self.cache.compact(live, self.capacity)
        self.owners = [self.owners[slot] for slot in live]
        self.places = [self.places[slot] for slot in live]
        self.starts = [self.starts[slot] for slot in live]
        self.done = [False] * len(live)
        return [tokens[slot] for slot in live]
