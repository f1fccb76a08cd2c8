"""Decoder-only weights as decoding reads them, and the pass over prompts.

Each layer's keys and values are made of the residual stream itself (every layer has norms of its
own), so a token that left early hands on its residual state.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.nn import functional as F

from eexit_cli.models.causal.exits import StackExit, finite_heads
from eexit_cli.models.causal.maps import Layer, Turn, norm_of
from eexit_cli.models.decoding.int8 import Maker
from eexit_cli.models.decoding.rows import Rows
from eexit_cli.models.decoding.timing import Stopwatch

if TYPE_CHECKING:
    from eexit_cli.models.causal.model import MultiExitCausal
    from eexit_cli.models.decoding.caches import BatchCache
    from eexit_cli.models.decoding.stack import Exit
    from eexit_cli.models.decoding.window import Window

FUSE_UP_TO = 4 << 30
"""Bytes of weights up to which maps are copied into fused products; larger models keep one copy."""


Told = Callable[[int, Sequence[int], int, Tensor], None]
"""Of a layer (from 1), slots, their place, and its output there. Shape: [slots given, d]."""


class Prompts:
    """Prompts that were read and wait for a slot.

    Attributes:
        ids: Shape: [prompts, tokens], padded on the right.
        lengths: tokens of each.
    """

    def __init__(self, ids: Tensor, lengths: list[int]) -> None:
        self.ids, self.lengths = ids, lengths

    def __len__(self) -> int:
        return len(self.lengths)

    def take(self, count: int) -> Prompts:
        taken = Prompts(self.ids[:count], self.lengths[:count])
        self.ids, self.lengths = self.ids[count:], self.lengths[count:]
        return taken


class PromptMemory:
    """Runs the prompts of rows that enter through all layers, into the cache.

    What comes of it is the state that the first token of each output is chosen from: such rows are
    ``fresh`` until their first step.
    """

    def __init__(self, stack: CausalStack, prompts: Prompts, depth: int) -> None:
        self._stack, self._depth = stack, depth
        self._prompts: Prompts | None = prompts
        self.fresh: set[int] = set()
        self._cache: BatchCache | None = None
        self._sight: Window | None = None
        self._told: Told | None = None

    def start(self, cache: Any, sight: Window, place: int, told: Told | None = None) -> None:
        self._cache, self._sight, self._told = cache, sight, told
        prompts, self._prompts = self._prompts, None
        assert prompts is not None
        self.enter(list(range(len(prompts))), prompts, place)

    def enter(self, slots: list[int], inputs: Prompts, place: int) -> None:
        cache, sight = self._cache, self._sight
        assert cache is not None
        assert sight is not None
        sight.enter(slots, [place + 1 - length for length in inputs.lengths])
        state = self._stack.run_prompts(inputs, self._depth, cache, slots, place, self._told)
        cache.settle(slots, place, state)
        self.fresh |= set(slots)

    def look(self, slots: list[int]) -> None:
        """A prompt is seen through the caches."""

    def compact(self, slots: Tensor) -> None:
        if self.fresh:
            kept = slots.tolist()
            self.fresh = {new for new, old in enumerate(kept) if old in self.fresh}


class CausalStack:
    """See :class:`eexit_cli.models.decoding.stack.Stack`; ``unit`` is the residual itself.

    Attributes:
        layers: the model's, and after them those of exits.
        exits: those that have parts of their own, by layer.
        embedding: word embeddings. Shape: [vocabulary, embedding width].
        head_rows: the LM head's weight, for single rows of it. Shape: [vocabulary, d].
    """

    single = False
    shared_sight = False
    turns_by_place = True

    def __init__(self, model: MultiExitCausal, *, pack: bool = True) -> None:
        config, row, body = model.config, model.parts, model.body
        self.embedding = model.word_embeddings.weight.detach()
        size = sum(each.numel() * each.element_size() for each in model.parameters())  # type: ignore[attr-defined]
        make = Maker(model.weights, pack=pack and size <= FUSE_UP_TO)
        fuse = make.int8 or size <= FUSE_UP_TO
        self.layers = [
            Layer(layer, row, config, index, fuse=fuse, make=make)
            for index, layer in enumerate(model.layers)
        ]
        self._depth = len(self.layers)
        first = self.layers[0]
        self.width = int(config.hidden_size)
        self.heads, self.kv_heads, self.head_size = first.heads, first.kv_heads, first.size
        self.inner = self.heads * self.head_size
        self.cap = getattr(config, "attn_logit_softcapping", None)
        self._logit_cap = getattr(config, "final_logit_softcapping", None)
        self._norm = norm_of(getattr(body, row.norm), row)
        self._project_in = getattr(body, "project_in", None)
        self._project_out = getattr(body, "project_out", None)
        self._scale = (
            # As transformers rounds it, in the embeddings' dtype.
            self.embedding.new_tensor(self.width**0.5) if row.scaled_embedding else None
        )
        self._places: Tensor | None = None
        if row.positions is not None:
            table = getattr(body, row.positions).weight.detach()
            self._places = table[row.position_offset :]
        self._rotary = getattr(body, "rotary_emb", None)
        self._turns: Turn | None = None
        head = model.head
        weight = head.weight.detach()
        bias = None if head.bias is None else head.bias.detach()
        self.head, self.head_rows = make.head(weight, bias)
        self.head_is_finite = bool(weight.isfinite().all()) and finite_heads(model.exits)
        self.exits: dict[int, StackExit] = {}
        for name, module in model.exits.items():
            after, own = int(name), None
            if module.layer is not None:
                own = len(self.layers)
                made = Layer(module.layer, row, config, after - 1, fuse=fuse, make=make)
                self.layers.append(made)
            self.exits[after] = StackExit(self, module, row, own, make)

    @property
    def depth(self) -> int:
        """L."""
        return self._depth

    def exit_at(self, layer: int) -> Exit:
        """What answers after this layer."""
        return self.exits.get(layer, self)

    def own_layer(self, layer: int) -> int | None:
        """Number of the decoder layer of the exit after this layer; None where it has none."""
        found = self.exits.get(layer)
        return None if found is None else found.own_layer

    @property
    def stream(self) -> torch.dtype:
        return self.embedding.dtype

    def places_before(self, longest: int) -> int:
        """Of a prompt of ``longest`` tokens, the last of which is read where the output begins."""
        return longest - 1

    def read(self, input_ids: Tensor, mask: Tensor | None) -> Prompts:
        batch, tokens = input_ids.shape
        return Prompts(input_ids, [tokens] * batch if mask is None else mask.sum(dim=1).tolist())

    def memory(self, inputs: Prompts, depth: int, watch: Stopwatch | None) -> PromptMemory:
        return PromptMemory(self, inputs, depth)

    def embed(self, tokens: Tensor, positions: int | Tensor) -> Tensor:
        x = self.embedding.index_select(0, tokens)
        if self._project_in is not None:
            x = self._project_in(x)
        if self._scale is not None:
            x = x * self._scale
        if self._places is not None:
            if isinstance(positions, int):
                return x + self._places[positions]
            x = x + self._places.index_select(0, positions.to(x.device))
        return x

    def unit(self, x: Tensor) -> Tensor:
        return x

    def state(self, unit: Tensor) -> Tensor:
        return self.projected(unit if self._norm is None else self._norm(unit))

    def projected(self, state: Tensor) -> Tensor:
        """A normed state in the LM head's width (OPT). Shape: [..., d]."""
        return state if self._project_out is None else self._project_out(state)

    def head_input(self, unit: Tensor) -> Tensor:
        return self.state(unit)

    def logits(self, unit: Tensor) -> Tensor:
        return self.capped(self.head(self.state(unit)))

    def capped(self, logits: Tensor) -> Tensor:
        """Gemma's bound on logits. Shape: any."""
        if self._logit_cap is None:
            return logits
        return torch.tanh(logits / self._logit_cap) * self._logit_cap

    def turn(self, positions: int | Tensor) -> Turn | None:
        """What rotates queries and keys at these positions; None without rotary ones.

        Args:
            positions: one for all, or Shape: [n].
        """
        if self._rotary is None:
            return None
        last = positions if isinstance(positions, int) else int(positions.max())
        cosines, sines = self._table(last + 1)
        if isinstance(positions, int):
            return cosines[positions : positions + 1], sines[positions : positions + 1]
        index = positions.to(cosines.device)
        return cosines.index_select(0, index), sines.index_select(0, index)

    def _table(self, end: int) -> Turn:
        if self._turns is None or len(self._turns[0]) < end:
            assert self._rotary is not None
            count = max(end, 256, 0 if self._turns is None else 2 * len(self._turns[0]))
            count = min(count, max(end, self.rotary_end))
            positions = torch.arange(count, device=self.embedding.device).unsqueeze(0)
            with torch.inference_mode(False), torch.no_grad():
                cosines, sines = self._rotary(self.embedding[:1].unsqueeze(0), positions)
            half = sines.shape[-1] // 2
            # rotate_half(x) * sin is x rolled by a half, times sines whose first half is negative.
            signed = torch.cat((-sines[..., :half], sines[..., half:]), dim=-1)
            self._turns = cosines[0].unsqueeze(1), signed[0].unsqueeze(1)
        return self._turns

    @property
    def rotary_end(self) -> int:
        """Positions that one table of frequencies serves."""
        return int(getattr(self._rotary, "original_max_seq_len", 1 << 30))

    def project(self, index: int, x: Tensor, turn: Turn | None) -> tuple[Tensor, Tensor]:
        """Query, and key and value, of layer ``index``, rotated.

        Returns:
            Shapes: [n, heads, size], [n, 2, key heads, size].
        """
        return self.layers[index].query_key_value(x, turn)

    def skipped_key_values(self, x: Tensor, first: int, turn: Turn | None) -> Iterator[Tensor]:
        """Layer by layer: each has norms of its own. Shape: layers x [n, 2, key heads, size]."""
        for index in range(first, self.depth):
            yield self.project(index, x, turn)[1]

    def reach(self, index: int) -> int | None:
        """Places that layer ``index`` sees, the token's own among them; None is all."""
        return self.layers[index].window

    def bias(self, tokens: int) -> None:
        return None

    def prepare(self, index: int, memory: PromptMemory) -> None:
        return None

    def after_attention(
        self, index: int, attended: Tensor, x: Tensor, memory: Any, rows: Rows
    ) -> Tensor:
        return self.layers[index].rest(attended, x)

    def run_prompts(
        self,
        prompts: Prompts,
        depth: int,
        cache: BatchCache,
        slots: Sequence[int],
        place: int,
        told: Told | None = None,
    ) -> Tensor:
        """Run prompts through ``depth`` layers; their last tokens stand at ``place``.

        Layers of exits on the way get their keys and values, where the cache holds such.

        Args:
            told: told each layer's output of the last tokens.

        Returns:
            What the exit after the last of these layers reads of each last token: the residual, or
            what the exit's own layer makes of it. Shape: [prompts, d].
        """
        count, longest = len(prompts), max(prompts.lengths)
        device = self.embedding.device
        lengths = torch.tensor(prompts.lengths, device=device).unsqueeze(1)
        # Prompts end side by side. Shape: [prompts, longest]
        positions = torch.arange(longest, device=device) - (longest - lengths)
        ids = prompts.ids.gather(1, positions.clamp(min=0))
        flat = positions.clamp(min=0).flatten()
        padded = min(prompts.lengths) < longest
        x = self.embed(ids.flatten(), flat)
        turn = self.turn(flat)
        masks: dict[int | None, Tensor | None] = {}
        path: list[int] = []
        for layer in range(1, depth + 1):
            own = self.own_layer(layer)
            path += [layer - 1] if own is None or not cache.holds(own) else [layer - 1, own]
        for index in path:
            query, made = self.project(index, x, turn)
            made = made.view(count, longest, 2, self.kv_heads, self.head_size)
            # Shape: [2, prompts, key heads, longest, size]
            made = made.permute(2, 0, 3, 1, 4)
            cache.put(index, slots, place + 1 - longest, made)
            if index >= self.depth and index != path[-1]:
                continue  # tokens of the prompt leave nowhere: the stream goes on without it
            window = self.reach(index)
            if window not in masks:
                masks[window] = self._prompt_mask(positions if padded else None, longest, window)
            query = query.view(count, longest, self.heads, self.head_size).transpose(1, 2)
            attended = self.attend_spans(query, made[0], made[1], masks[window])
            x = self.layers[index].rest(attended.flatten(0, 1), x)
            if told is not None and index < self.depth:
                told(index + 1, slots, place, x.view(count, longest, -1)[:, -1])
        return x.view(count, longest, -1)[:, -1]

    def _prompt_mask(
        self, positions: Tensor | None, longest: int, window: int | None
    ) -> Tensor | None:
        """Added to the scores; None where all that came before is seen. [prompts or 1, 1, n, n]."""
        if longest == 1:
            return None
        at = torch.arange(longest, device=self.embedding.device)
        seen = at.unsqueeze(1) >= at
        if window is not None and window < longest:
            seen &= at.unsqueeze(1) - at < window
        seen = seen.unsqueeze(0)
        if positions is not None:
            seen = seen & (positions >= 0).unsqueeze(1)
        mask = torch.zeros(seen.shape, dtype=self.embedding.dtype, device=at.device)
        # Not -inf: a place of padding that sees nothing must stay finite.
        return mask.masked_fill_(~seen, torch.finfo(mask.dtype).min).unsqueeze(1)

    def attend_spans(
        self, query: Tensor, keys: Tensor, values: Tensor, mask: Tensor | None
    ) -> Tensor:
        """Several queries per row.

        Args:
            query: scaled. Shape: [rows, heads, n, size].
            keys, values: Shape: [rows, key heads, m, size].
            mask: added to the scores. Shape: [rows or 1, 1, n, m].

        Returns:
            Shape: [rows, n, heads * size].
        """
        rows, heads, count, size = query.shape
        if self.cap is None:
            attended = F.scaled_dot_product_attention(
                query, keys, values, attn_mask=mask, scale=1.0, enable_gqa=heads != self.kv_heads
            )
            return attended.transpose(1, 2).reshape(rows, count, heads * size)
        shared = heads // self.kv_heads
        query = query.reshape(rows, self.kv_heads, shared * count, size)
        scores = query @ keys.transpose(2, 3)
        scores = scores.div_(self.cap).tanh_().mul_(self.cap)
        scores = scores.view(rows, heads, count, -1)
        if mask is not None:
            scores = scores + mask
        weights = torch.softmax(scores, dim=-1).view(rows, self.kv_heads, shared * count, -1)
        attended = (weights @ values).view(rows, heads, count, size)
        return attended.transpose(1, 2).reshape(rows, count, heads * size)
