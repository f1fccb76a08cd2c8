"""What a T5's decoder reads of its encoder, and what its layers make of that."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from eexit_cli.models.decoding.attention import attend, attend_span
from eexit_cli.models.decoding.rows import Rows
from eexit_cli.models.decoding.timing import Stopwatch


class Encoded:
    """Encoder outputs of inputs, which may wait for a slot.

    Attributes:
        states: Shape: [inputs, tokens, d].
        padding: additive mask. Shape: [inputs, tokens].
        taken: inputs that got a slot.
    """

    def __init__(self, states: Tensor, padding: Tensor | None) -> None:
        self.states, self.padding, self.taken = states, padding, 0

    def __len__(self) -> int:
        return self.states.shape[0] - self.taken

    def take(self, count: int) -> tuple[Tensor, Tensor | None]:
        """The next inputs. Shapes: [count, tokens, d], [count, tokens]."""
        part = slice(self.taken, self.taken + count)
        self.taken += count
        return self.states[part], None if self.padding is None else self.padding[part]


class CrossAttention:
    """Keys and values of the encoder's output, made for a layer when it first runs.

    Args:
        encoded: the encoder's output as ``unit``. Shape: [slots, tokens, d].
        padding: additive mask. Shape: [slots, tokens].
        heads: of the attention.
        key_values: of each layer that runs: makes its keys and values of encoder outputs.
            Shape: [slots * tokens, d] -> [slots * tokens, 2 * inner].
        watch: told what making them takes.
    """

    def __init__(
        self,
        encoded: Tensor,
        padding: Tensor | None,
        heads: int,
        key_values: Sequence[Callable[[Tensor], Tensor]],
        watch: Stopwatch | None = None,
    ) -> None:
        self._encoded = encoded
        self._padding = padding
        self._heads = heads
        # Shape: layers x [2, slots, heads, tokens, size]
        self._made: list[Tensor | None] = [None] * len(key_values)
        self._key_values = key_values
        self._watch = watch
        # Source tokens of each slot, padding included, and the most of any running one.
        self._lengths = [encoded.shape[1]] * encoded.shape[0]
        self._longest = encoded.shape[1]

    def prepare(self, index: int) -> None:
        """Make a layer's keys and values if nobody has run it yet."""
        if self._made[index] is not None:
            return
        if self._watch is not None:
            self._watch.layer(index)
        made = self._key_values[index](self._encoded.flatten(0, 1))
        self._made[index] = self._split(made, self._encoded).contiguous()
        if self._watch is not None:
            self._watch.encoder()

    def _split(self, key_values: Tensor, encoded: Tensor) -> Tensor:
        """Shape: [slots * tokens, 2 * inner] -> [2, slots, heads, tokens, size]."""
        slots, tokens, _ = encoded.shape
        return key_values.view(slots, tokens, 2, self._heads, -1).permute(2, 0, 3, 1, 4)

    fresh: frozenset[int] = frozenset()

    def start(self, cache: object, sight: object, place: int, told: object = None) -> None:
        """The first sources are there already."""

    def enter(self, slots: list[int], inputs: tuple[Tensor, Tensor | None], place: int) -> None:
        """New sources in these slots.

        Args:
            inputs: encoder outputs and additive mask.
                Shapes: [slots given, tokens, d], [slots given, tokens].
        """
        encoded, padding = inputs
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
                new = self._split(self._key_values[layer](flat), encoded)
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
