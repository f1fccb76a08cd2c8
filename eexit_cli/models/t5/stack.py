"""T5's weights rearranged for decoding: fused, folded, transposed or packed; made once per model.

T5's norm is x * w / rms(x). Here ``unit`` is x / sqrt(|x|^2 + d eps), and w * sqrt(d) is folded
into the columns of the maps that read it. So one ``unit`` serves every layer that may read it,
which is what makes the keys and values of all skipped layers one product.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers.activations import ACT2FN

from eexit_cli.models.decoding.int8 import Int8Product, Maker
from eexit_cli.models.decoding.products import Activation, HalfProduct, Product, gelu_new
from eexit_cli.models.decoding.rearranged import rearranged
from eexit_cli.models.decoding.rows import Rows
from eexit_cli.models.decoding.timing import Stopwatch
from eexit_cli.models.t5.cross import CrossAttention, Encoded

if TYPE_CHECKING:
    from eexit_cli.models.t5.model import MultiExitT5

_ACTIVATIONS: dict[str, Activation] = {
    "gelu_new": gelu_new,
    "gelu": F.gelu,
    "silu": F.silu,
    "swish": F.silu,
}


class FeedForward:
    """x + wo act(wi unit), or x + wo (act(wi_0 unit) * wi_1 unit) for the gated form."""

    def __init__(self, block: Any, fold: Tensor, config: Any, make: Maker) -> None:
        dense = block.DenseReluDense
        self.gated = bool(config.is_gated_act)
        self.plain_relu = config.dense_act_fn == "relu" and not self.gated
        name = config.dense_act_fn
        self.activation: Activation = _ACTIVATIONS.get(name) or ACT2FN[name]
        inner = torch.cat((dense.wi_0.weight, dense.wi_1.weight)) if self.gated else dense.wi.weight
        self.inner = make(inner * fold)
        self.outer = _onto_stream(inner.dtype, make)(dense.wo.weight)

    def __call__(self, unit: Tensor, residual: Tensor) -> Tensor:
        """Shape: [rows, d], [rows, d] -> [rows, d]."""
        if self.plain_relu:
            hidden = self.inner.relu(unit)
        elif self.gated:
            gate, value = self.inner(unit).chunk(2, dim=-1)
            hidden = self.activation(gate) * value
        else:
            hidden = self.activation(self.inner(unit))
        return self.outer.add(hidden, residual)


class EncoderLayer:
    """Self-attention and feed-forward maps of one encoder layer."""

    def __init__(self, block: Any, root: float, config: Any, make: Maker) -> None:
        attention, norm = block.layer[0].SelfAttention, block.layer[0].layer_norm
        fold = norm.weight * root
        self.qkv = make(_stack(attention.q, attention.k, attention.v) * fold)
        self.out = _onto_stream(attention.o.weight.dtype, make)(attention.o.weight)
        self.feed = FeedForward(
            block.layer[1], block.layer[1].layer_norm.weight * root, config, make
        )


class DecoderLayer:
    """Maps of one decoder layer.

    Attributes:
        qkv: unit -> query, key, value. Outputs: 3 * inner.
        key_value: the last two alone, for waiting tokens. Outputs: 2 * inner.
        cross_key_value: encoder unit -> cross-attention's keys and values. Outputs: 2 * inner.
    """

    def __init__(
        self, block: Any, root: float, encoder_fold: Tensor, config: Any, make: Maker
    ) -> None:
        own, cross = block.layer[0].SelfAttention, block.layer[1].EncDecAttention
        fold = block.layer[0].layer_norm.weight * root
        self.key_value_weight = _stack(own.k, own.v) * fold
        self.qkv = make(torch.cat((own.q.weight * fold, self.key_value_weight)))
        self.key_value = make(self.key_value_weight)
        onto_stream = _onto_stream(own.o.weight.dtype, make)
        self.out = onto_stream(own.o.weight)
        self.cross_query = make(cross.q.weight * (block.layer[1].layer_norm.weight * root))
        self.cross_key_value = make(_stack(cross.k, cross.v) * encoder_fold)
        self.cross_out = onto_stream(cross.o.weight)
        self.feed = FeedForward(
            block.layer[2], block.layer[2].layer_norm.weight * root, config, make
        )


class T5Stack:
    """Everything that decoding reads, for one model in one state; see ``models.decoding.stack``.

    Attributes:
        embedding: word embeddings. Shape: [vocabulary, d].
        final_scale: unit * final_scale is the final-normed state. Shape: [d].
        head_scale: unit * head_scale is what the LM head multiplies. Shape: [d].
        head_rows: the LM head's weight, for single rows of it. Shape: [vocabulary, d].
        head_is_finite: it has no NaN and no infinity.
    """

    single = True
    shared_sight = True
    turns_by_place = False
    cap: float | None = None

    def __init__(self, model: MultiExitT5, *, pack: bool = True) -> None:
        config = model.config
        make = Maker(model.weights, pack=pack)
        d = config.d_model
        self.embedding = model.shared.weight.detach()
        half = self.embedding.dtype == torch.float16
        # In float16 the root goes into unit instead: beside an outlier of thousands, which T5's
        # states have, the other entries of x / |x| would be too small for the dtype.
        root = 1.0 if half else math.sqrt(d)
        self._shrink = 1 / math.sqrt(d) if half else None
        self.width = d
        self.heads = int(config.num_heads)
        self.head_size = int(config.d_kv)
        self.kv_heads = self.heads
        self.inner = self.heads * self.head_size
        self._epsilon = self.embedding.new_tensor(math.sqrt(d * config.layer_norm_epsilon))
        self._wide = self.embedding.dtype in (torch.float16, torch.bfloat16)
        encoder_fold = model.encoder.final_layer_norm.weight * root
        encoder: Any = model.encoder.block
        decoder: Any = model.decoder.block
        self.encoder = [EncoderLayer(block, root, config, make) for block in encoder]
        self.decoder = [DecoderLayer(block, root, encoder_fold, config, make) for block in decoder]
        self.final_scale = model.decoder.final_layer_norm.weight.detach() * root
        self.head_scale = self.final_scale / math.sqrt(d) if config.tied_head else self.final_scale
        head = model.lm_head.weight.detach()
        self.head, self.head_rows = make.head(head)
        # Once here: of the logits only the chosen ones are looked at, and -inf is never chosen.
        self.head_is_finite = bool(head.isfinite().all())
        self._encoder_bias: Any = encoder[0].layer[0].SelfAttention
        self._decoder_bias: Any = decoder[0].layer[0].SelfAttention
        self._encoder_table: Tensor | None = None
        self._stacked: Tensor | None = None
        self._int8 = make.int8

    @property
    def stream(self) -> torch.dtype:
        """Of the residual stream after a feed-forward."""
        outer = self.decoder[0].feed.outer
        return torch.promote_types(self.embedding.dtype, outer.dtype)

    @property
    def depth(self) -> int:
        """L."""
        return len(self.decoder)

    def unit(self, x: Tensor) -> Tensor:
        """x / sqrt(|x|^2 + d eps), times sqrt(d) in float16. Shape: [..., d]."""
        if self._wide:  # a sum of squares needs more than half precision
            norm = torch.linalg.vector_norm(x, dim=-1, keepdim=True, dtype=torch.float32)
            norm = norm.hypot_(self._epsilon.float())
            if self._shrink is not None:
                norm.mul_(self._shrink)
            return (x / norm).to(self.embedding.dtype)
        return x / torch.linalg.vector_norm(x, dim=-1, keepdim=True).hypot_(self._epsilon)

    def logits(self, unit: Tensor) -> Tensor:
        """The whole LM head. Shape: [rows, d] -> [rows, vocabulary]."""
        return self.head(unit * self.head_scale)

    def read(self, input_ids: Tensor, mask: Tensor | None) -> Encoded:
        padding = padding_bias(mask, self.embedding.dtype)
        return Encoded(self.encode(input_ids, padding), padding)

    def memory(self, inputs: Encoded, depth: int, watch: Stopwatch | None) -> CrossAttention:
        maps = [layer.cross_key_value for layer in self.decoder[:depth]]
        return CrossAttention(inputs.states, inputs.padding, self.heads, maps, watch)

    def places_before(self, longest: int) -> int:
        """None: an output begins with its start token."""
        return 0

    def embed(self, tokens: Tensor, positions: int | Tensor) -> Tensor:
        return self.embedding.index_select(0, tokens)

    def projection(self, index: int) -> Product | Int8Product:
        """The query, key and value maps of a layer as one. Shape: [n, d] -> [n, 3 * inner]."""
        return self.decoder[index].qkv

    def turn(self, positions: int | Tensor) -> None:
        return None

    def project(self, index: int, unit: Tensor, turn: None) -> tuple[Tensor, Tensor]:
        made = self.decoder[index].qkv(unit)
        return made[:, : self.inner], made[:, self.inner :]

    def reach(self, index: int) -> int | None:
        return None

    def prepare(self, index: int, memory: CrossAttention) -> None:
        memory.prepare(index)

    def after_attention(
        self, index: int, attended: Tensor, x: Tensor, memory: CrossAttention, rows: Rows
    ) -> Tensor:
        maps = self.decoder[index]
        x = maps.out.add(attended, x)
        query = maps.cross_query(self.unit(x))
        x = maps.cross_out.add(memory.attend(index, query, rows), x)
        return maps.feed(self.unit(x), x)

    def after_attention_of_spans(
        self,
        index: int,
        attended: Tensor,
        x: Tensor,
        memory: CrossAttention,
        slots: list[int],
        lengths: list[int],
    ) -> Tensor:
        maps = self.decoder[index]
        x = maps.out.add(attended, x)
        queries = maps.cross_query(self.unit(x)).split(lengths)
        spans = zip(queries, slots, strict=True)
        attended = torch.cat([memory.attend_many(index, query, slot) for query, slot in spans])
        x = maps.cross_out.add(attended, x)
        return maps.feed(self.unit(x), x)

    def state(self, unit: Tensor) -> Tensor:
        return unit * self.final_scale

    def head_input(self, unit: Tensor) -> Tensor:
        return unit * self.head_scale

    def skipped_key_values(self, unit: Tensor, first: int, turn: None) -> Iterable[Tensor]:
        """In one product of float weights. Shape: layers x [rows, 2 * inner]."""
        if self._int8:
            return [layer.key_value(unit) for layer in self.decoder[first:]]
        if self._stacked is None:
            self._stacked = torch.cat([layer.key_value_weight for layer in self.decoder])
        weight = self._stacked[first * 2 * self.inner :]
        return F.linear(unit, weight).view(unit.shape[0], -1, 2 * self.inner).unbind(1)

    def encode(self, input_ids: Tensor, padding: Tensor | None) -> Tensor:
        """The encoder's output as ``unit``: its final norm is folded into the cross-attention.

        Args:
            input_ids: Shape: [batch, tokens].
            padding: of :func:`padding_bias`. Shape: [batch, tokens].

        Returns:
            Shape: [batch, tokens, d].
        """
        batch, tokens = input_ids.shape
        heads, size = self.heads, self.head_size
        # Shape: [batch * tokens, d]
        x = self.embedding.index_select(0, input_ids.reshape(-1))
        # Shape: [1, heads, tokens, tokens], or [batch, heads, tokens, tokens] when padded
        bias = self.encoder_bias(tokens)
        if padding is not None:
            bias = bias + padding[:, None, None, :]
        for layer in self.encoder:
            fused = layer.qkv(self.unit(x)).view(batch, tokens, 3, heads, size)
            # Shape: 3 x [batch, heads, tokens, size]
            query, key, value = fused.permute(2, 0, 3, 1, 4).unbind(0)
            attended = F.scaled_dot_product_attention(query, key, value, attn_mask=bias, scale=1.0)
            x = layer.out.add(attended.transpose(1, 2).reshape(batch * tokens, -1), x)
            x = layer.feed(self.unit(x), x)
        return self.unit(x).view(batch, tokens, -1)

    def encoder_bias(self, tokens: int) -> Tensor:
        """Relative position bias of the encoder. Shape: [1, heads, tokens, tokens]."""
        table = self._encoder_table
        if table is None or table.shape[-1] != tokens:
            bias: Tensor = self._encoder_bias.compute_bias(tokens, tokens)
            table = self._encoder_table = bias.detach()
        return table

    def bias(self, tokens: int) -> Tensor:
        """Bias of a query by its distance to the key, largest distance first.

        For the query at position t, the last t + 1 columns are the biases of keys 0..t.
        Shape: [heads, tokens].
        """
        # The bias depends on the distance alone, so the last query's row holds all of them.
        module = self._decoder_bias
        distance = torch.arange(tokens - 1, -1, -1, device=self.embedding.device)
        buckets = module._relative_position_bucket(
            -distance,
            bidirectional=False,
            num_buckets=module.relative_attention_num_buckets,
            max_distance=module.relative_attention_max_distance,
        )
        # Shape: [tokens, heads] -> [heads, tokens]
        return module.relative_attention_bias.weight.detach()[buckets].t().contiguous()


def padding_bias(attention_mask: Tensor | None, dtype: torch.dtype) -> Tensor | None:
    """Additive mask, None when nothing is padded. Shape: [batch, tokens] -> [batch, tokens]."""
    if attention_mask is None or bool(attention_mask.all()):
        return None
    bias = torch.zeros_like(attention_mask, dtype=dtype)
    return bias.masked_fill_(attention_mask == 0, torch.finfo(dtype).min)


def _onto_stream(dtype: torch.dtype, make: Maker) -> Callable[[Tensor], Product | Int8Product]:
    """What makes a map that adds to the residual stream of a model of this dtype."""
    return partial(HalfProduct, pack=make.pack) if dtype == torch.float16 else make


def _stack(*maps: nn.Linear) -> Tensor:
    return torch.cat([item.weight.detach() for item in maps])


def stack_of(model: MultiExitT5, *, pack: bool = True) -> T5Stack:
    """The model's rearranged weights, made again only when a parameter has changed."""
    return rearranged(model, T5Stack, pack=pack)
