"""FREE (arXiv:2310.05424): a shallow exit, a deep one, and stacked tokens that go deep together.

Tokens that leave at the shallow layer are stacked. When a token of the same row goes deep, the
deep layers run for all of them at once, each attending to what came before it, so that the deep
layers' keys and values are real ones and not copied states.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from eexit_cli.core.vocabulary import best
from eexit_cli.models.decoding.attention import attend_span
from eexit_cli.models.decoding.caches import BatchCache, SelfCache
from eexit_cli.models.decoding.loop import Batch
from eexit_cli.models.decoding.rows import Rows
from eexit_cli.models.decoding.scoring import allowed


class ShallowDeepBatch(Batch):
    """FREE's decoding at any batch size; each row has a stack of its own."""

    cache: BatchCache

    def _new_cache(self, batch: int) -> SelfCache:
        like = self.stack.embedding
        positions = self.settings.max_new_tokens
        # States after the shallow layer of every token. Shape: [slots, positions, d]
        shape = (batch, positions, self.stack.width)
        self._waiting = like.new_zeros(shape, dtype=self.stack.stream)
        # Positions of each slot that the deep layers have seen.
        self._deep = [0] * batch
        self._confidences: list[list[float]] = [[] for _ in range(batch)]
        self._shallow_tokens: list[list[int]] = [[] for _ in range(batch)]
        return BatchCache(self.stack, batch, positions, self.depth, watch=self.watch)

    def step(self, position: int) -> list[int]:
        """One token for every running row. Returns the tokens, in the rows' order."""
        shallow = self.settings.shallow_layer
        assert shallow is not None
        assert self.session is not None
        rows, watch = self.rows, self.watch
        x = previous = self.stack.embed(self.tokens, position)
        unit = self.stack.unit(x)
        if watch is not None:
            watch.other()
        for index in range(shallow):
            previous = x
            x = self.layer(index, x, unit, rows, position)
            unit = self.stack.unit(x)
            if watch is not None:
                watch.layer(index)
        if rows.index is None:
            self._waiting[:, position].copy_(x)
        else:
            self._waiting.select(1, position).index_copy_(0, rows.index, x)
        confidence = self.session.confidence(self.view(shallow, position, rows, x, previous, unit))
        self.finite.see(confidence)
        leaving, staying = self.split(confidence, rows, position)
        if watch is not None:
            watch.confidence(shallow - 1)
        shallow_tokens = self._shallow(rows, unit, position, leaving, confidence.tolist())
        chosen = {rows.slots[number]: shallow_tokens[number] for number in leaving}
        if staying:
            chosen.update(self._go_deep(rows.take(staying), position))
        return [chosen[slot] for slot in rows.slots]

    def _shallow(
        self,
        rows: Rows,
        unit: Tensor,
        position: int,
        leaving: list[int],
        confidences: list[float],
    ) -> dict[int, int]:
        """Shallow tokens by place, of the rows that leave, or of all when pairs are collected."""
        collect = self.settings.collect_pairs
        wanted = list(range(len(rows))) if collect else leaving
        tokens: list[int] = []
        if wanted and self.scores_layers:
            tokens = self.scorer.choose(wanted)
        elif wanted:
            self.counts.head_rows += len(wanted)
            logits = self.stack.logits(unit[wanted])
            tokens = self._best(logits, self.ban(rows.take(wanted), position))
        gone = rows.take(leaving)
        shallow = self.settings.shallow_layer
        assert shallow is not None
        self.record(gone, shallow, [confidences[number] for number in leaving])
        if collect:
            for number, slot in enumerate(rows.slots):
                self._confidences[slot].append(confidences[number])
                self._shallow_tokens[slot].append(tokens[number])
        if self.watch is not None:
            self.watch.head()
        return dict(zip(wanted, tokens, strict=True))

    def _best(self, logits: Tensor, ban: Tensor | None) -> list[int]:
        """Tokens, one per row of the logits."""
        largest, where = best(allowed(logits, ban))
        self.finite.see(largest)
        return where.tolist()

    def _go_deep(self, rows: Rows, position: int) -> dict[int, int]:
        """Run the deep layers for these rows' tokens and all that wait in front of them."""
        shallow = self.settings.shallow_layer
        assert shallow is not None
        starts = [self._deep[slot] for slot in rows.slots]
        lengths = [position + 1 - start for start in starts]
        slots = torch.tensor(
            [slot for slot, n in zip(rows.slots, lengths, strict=True) for _ in range(n)],
            device=self.device,
        )
        positions = torch.tensor(
            [place for start in starts for place in range(start, position + 1)],
            device=self.device,
        )
        # Shape: [waiting tokens of all rows, d]
        x = self._waiting[slots, positions]
        biases = [self._causal_bias(start, position + 1) for start in starts]
        for index in range(shallow, self.depth):
            x = self._deep_layer(index, x, rows, slots, positions, lengths, biases)
            if self.watch is not None:
                self.watch.layer(index)
        ends = torch.tensor(lengths, device=self.device).cumsum(0) - 1
        unit = self.stack.unit(x)
        needed = unit if self.settings.collect_pairs else unit.index_select(0, ends)
        self.counts.head_rows += needed.shape[0]
        ban = None
        if self.rules is not None:
            ban = self.rules.of_rows(positions if self.settings.collect_pairs else position)
        tokens = self._best(self.stack.logits(needed), ban)
        if self.settings.collect_pairs:
            self._collect(rows, lengths, tokens)
            tokens = [tokens[end] for end in ends.tolist()]
        for slot in rows.slots:
            self._deep[slot] = position + 1
        self.record(rows, self.depth, [math.nan] * len(rows))
        if self.watch is not None:
            self.watch.head()
        return dict(zip(rows.slots, tokens, strict=True))

    def _deep_layer(
        self,
        index: int,
        x: Tensor,
        rows: Rows,
        slots: Tensor,
        positions: Tensor,
        lengths: list[int],
        biases: list[Tensor],
    ) -> Tensor:
        """One layer for several tokens per row. Shape: [tokens, d] -> [tokens, d]."""
        inner = self.stack.inner
        self.stack.prepare(index, self.memory)
        self.counts.layer_tokens += x.shape[0]
        fused = self.stack.projection(index)(self.stack.unit(x))
        self.cache.write(index, slots, positions, fused[:, inner:])
        cache = self.cache.layer(index)
        queries = fused[:, :inner].split(lengths)
        attended = torch.cat(
            [
                attend_span(query, cache[:, slot, :, : bias.shape[2]], bias)
                for query, slot, bias in zip(queries, rows.slots, biases, strict=True)
            ]
        )
        return self.stack.after_attention_of_spans(
            index, attended, x, self.memory, rows.slots, lengths
        )

    def _causal_bias(self, start: int, end: int) -> Tensor:
        """Of queries ``start`` to ``end`` - 1 on keys 0 to ``end`` - 1.

        Shape: [heads, end - start, end].
        """
        row = self.cache.bias(end)
        if end - start == 1:
            return row.unsqueeze(1)
        query = torch.arange(start, end, device=self.device).unsqueeze(1)
        distance = query - torch.arange(end, device=self.device)
        # Column end - 1 - distance of the last query's row has that distance.
        bias = row[:, (end - 1 - distance).clamp(max=end - 1)]
        return bias.masked_fill(distance < 0, torch.finfo(row.dtype).min)

    def _collect(self, rows: Rows, lengths: list[int], deep_tokens: list[int]) -> None:
        """Compare deep with shallow tokens of everything that this pass ran."""
        at = 0
        for slot, length in zip(rows.slots, lengths, strict=True):
            deep = deep_tokens[at : at + length]
            at += length
            pairs = zip(
                self._confidences[slot][-length:],
                self._shallow_tokens[slot][-length:],
                deep,
                strict=True,
            )
            self.pairs.extend((confidence, shown == token) for confidence, shown, token in pairs)

    def compact(self, slots: list[int], done: int) -> None:
        super().compact(slots, done)
        index = torch.tensor(slots, device=self.device)
        self._waiting = self._waiting.index_select(0, index)
        self._deep = [self._deep[slot] for slot in slots]
        self._confidences = [self._confidences[slot] for slot in slots]
        self._shallow_tokens = [self._shallow_tokens[slot] for slot in slots]
