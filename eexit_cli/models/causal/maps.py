"""The maps of one decoder-only layer as decoding reads them: fused, scaled, or the modules' own."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers.activations import ACT2FN

from eexit_cli.models.causal.architectures import Architecture
from eexit_cli.models.decoding.int8 import Int8Product, Maker
from eexit_cli.models.decoding.products import Activation, Product, gelu_new

Map = Callable[[Tensor], Tensor]

Turn = tuple[Tensor, Tensor]
"""Cosines and signed sines of positions. Shapes: [n, 1, rotated]."""

_ACTIVATIONS: dict[str, Activation] = {
    "gelu_new": gelu_new,
    "gelu_pytorch_tanh": gelu_new,
    "gelu": F.gelu,
    "silu": F.silu,
    "swish": F.silu,
    "relu": torch.relu,
}


def activation_of(config: Any) -> Activation:
    """The feed-forward's, by whatever name the architecture has for it."""
    for key in ("hidden_activation", "hidden_act", "activation_function"):
        name = getattr(config, key, None)
        if name is not None:
            return _ACTIVATIONS.get(name) or ACT2FN[name]
    raise ValueError(f"{type(config).__name__} names no activation")


def norm_of(module: Any, row: Architecture) -> Map | None:
    """A norm as one kernel where that is exact enough; in half precision the module itself."""
    if module is None:
        return None
    weight = module.weight
    if isinstance(module, nn.LayerNorm) or weight.dtype in (torch.float16, torch.bfloat16):
        return module
    scale = weight.detach() + 1.0 if row.unit_offset else weight.detach()
    epsilon = getattr(module, "variance_epsilon", None) or module.eps
    shape = (weight.shape[0],)
    return lambda x: F.rms_norm(x, shape, scale, epsilon)


class Layer:
    """One layer.

    Args:
        layer: transformers' module.
        row: what its parts are called.
        config: the model's.
        index: of the layer, from 0.
        fuse: maps of one input become one product, which copies their weights.
        make: makes the products.
    """

    def __init__(
        self, layer: Any, row: Architecture, config: Any, index: int, *, fuse: bool, make: Maker
    ) -> None:
        attention = getattr(layer, row.attention)
        heads = int(config.num_attention_heads)
        self.heads = heads
        width = int(config.hidden_size)
        self.size = int(getattr(config, "head_dim", None) or width // heads)
        scale = _scale(attention, config, self.size, index)
        self.window = _window(attention, config, index)
        before_sum = getattr(config, "do_layer_norm_before", True)
        norms = [
            norm_of(None if name is None else getattr(layer, name), row)
            for name in (row.before, row.after, row.before_mlp, row.after_mlp)
        ]
        self.before, self.after, self.before_mlp, self.after_mlp = norms
        self.late: tuple[Map | None, Map | None] = (None, None)
        if not before_sum:
            self.late = (self.before, self.before_mlp)
            self.before = self.before_mlp = None
        self.parallel = row.parallel and bool(config.use_parallel_residual)
        self.query_norm, self.key_norm = (
            norm_of(None if name is None else getattr(attention, name), row)
            for name in (row.query_norm, row.key_norm)
        )
        self._normed = [
            getattr(attention, name).weight.shape[0]
            for name in (row.query_norm, row.key_norm)
            if name is not None
        ]
        maps = [_weights(getattr(attention, name), row) for name in row.qkv]
        if row.interleaved:
            maps = [_sorted(*maps[0], heads)]
        outputs = sum(weight.shape[0] for weight, _ in maps)
        self.kv_heads = (outputs // self.size - heads) // 2
        self.scale: float | None = scale
        if fuse and self.query_norm is None:
            # In float32 the weights themselves are scaled, which spares a product per layer.
            maps, self.scale = _scaled(maps, heads * self.size, scale), None
        self.qkv = _product(maps, fuse=fuse, make=make)
        self.out = _product([_weights(getattr(attention, row.out), row)], fuse=fuse, make=make)
        mlp = getattr(layer, row.mlp) if row.mlp else layer
        self.up = _product(
            [_weights(getattr(mlp, name), row) for name in row.up], fuse=fuse, make=make
        )
        self.down = _product([_weights(getattr(mlp, row.down), row)], fuse=fuse, make=make)
        self.gated = row.gated
        self.activation = activation_of(config)

    def query_key_value(self, x: Tensor, turn: Turn | None) -> tuple[Tensor, Tensor]:
        """Rotated, the query scaled.

        Args:
            x: the residual stream. Shape: [n, d].
            turn: of the positions; None without rotary ones.

        Returns:
            Query. Shape: [n, heads, size]; key and value. Shape: [n, 2, key heads, size].
        """
        fused = self.qkv(x if self.before is None else self.before(x))
        n, size, heads, held = x.shape[0], self.size, self.heads, self.kv_heads
        split = fused.view(n, heads + 2 * held, size)
        if self.query_norm is not None and self.key_norm is not None:
            # Over each head (Qwen3) or over all of them (OLMo 2): the norm's own width says.
            query = self.query_norm(split[:, :heads].reshape(n, -1, self._normed[0]))
            key = self.key_norm(split[:, heads : heads + held].reshape(n, -1, self._normed[1]))
            split[:, :heads] = query.view(n, heads, size)
            split[:, heads : heads + held] = key.view(n, held, size)
        if turn is not None:
            turned = split[:, : heads + held, : turn[0].shape[-1]]
            turned.copy_(rotated(turned, turn))
        query = split[:, :heads]
        if self.scale is not None:
            query = query * self.scale
        return query, split[:, heads:].view(n, 2, held, size)

    def _onto(self, x: Tensor, attended: Tensor) -> Tensor:
        if self.after is None:
            return self.out.add(attended, x)
        return x + self.after(self.out(attended))

    def rest(self, attended: Tensor, x: Tensor) -> Tensor:
        """The layer's output. Shape: [n, inner], [n, d] -> [n, d]."""
        y = self._onto(x, attended)
        late_attention, late_mlp = self.late
        if late_attention is not None:
            y = late_attention(y)
        read = x if self.parallel else y
        hidden = self.up(read if self.before_mlp is None else self.before_mlp(read))
        if self.gated:
            gate, value = hidden.chunk(2, dim=-1)
            hidden = self.activation(gate) * value
        else:
            hidden = self.activation(hidden)
        if self.after_mlp is not None:
            return y + self.after_mlp(self.down(hidden))
        y = self.down.add(hidden, y)
        return y if late_mlp is None else late_mlp(y)


class Parts:
    """Several maps of one input as they are stored, without a copy of their weights."""

    def __init__(self, maps: list[tuple[Tensor, Tensor | None]]) -> None:
        self.maps = maps

    def __call__(self, x: Tensor) -> Tensor:
        """Shape: [n, inputs] -> [n, outputs of all]."""
        made = [F.linear(x, weight, bias) for weight, bias in self.maps]
        return made[0] if len(made) == 1 else torch.cat(made, dim=-1)

    def add(self, x: Tensor, residual: Tensor) -> Tensor:
        """residual + the map. Shape: [n, outputs]."""
        return residual + self(x)


def _product(
    maps: list[tuple[Tensor, Tensor | None]], *, fuse: bool, make: Maker
) -> Product | Int8Product | Parts:
    if not fuse:
        return Parts(maps)
    weight = torch.cat([weight for weight, _ in maps]) if len(maps) > 1 else maps[0][0]
    biases = [bias for _, bias in maps if bias is not None]
    return make(weight, torch.cat(biases) if biases else None)


def _weights(module: Any, row: Architecture) -> tuple[Tensor, Tensor | None]:
    weight = module.weight.detach()
    bias = None if module.bias is None else module.bias.detach()
    return (weight.t() if row.transposed else weight), bias


def _scaled(
    maps: list[tuple[Tensor, Tensor | None]], outputs: int, scale: float
) -> list[tuple[Tensor, Tensor | None]]:
    """With the first outputs, those of the query, multiplied."""

    def times(tensor: Tensor) -> Tensor:
        made = tensor.clone()
        made[:outputs] *= scale
        return made

    weight, bias = maps[0]
    return [(times(weight), None if bias is None else times(bias)), *maps[1:]]


def rotated(x: Tensor, turn: Turn) -> Tensor:
    """Rotary positions (RoFormer, arXiv:2104.09864).

    Args:
        x: Shape: [n, heads, rotated].
        turn: Shapes: [n or 1, 1, rotated].
    """
    cosines, sines = turn
    return (x * cosines).addcmul_(x.roll(cosines.shape[-1] // 2, -1), sines)


def _sorted(weight: Tensor, bias: Tensor | None, heads: int) -> tuple[Tensor, Tensor | None]:
    """From query, key and value of each head side by side to all queries, all keys, all values."""

    def by_kind(tensor: Tensor) -> Tensor:
        size = tensor.shape[0] // (3 * heads)
        split = tensor.view(heads, 3, size, *tensor.shape[1:])
        return split.transpose(0, 1).reshape(tensor.shape)

    return by_kind(weight), None if bias is None else by_kind(bias)


def _scale(attention: Any, config: Any, size: int, index: int) -> float:
    """What scores are multiplied with: the module's own, where it says."""
    scaling = getattr(attention, "scaling", None)
    scale = float(size**-0.5 if scaling is None else scaling)
    if getattr(config, "scale_attn_weights", True) is False:
        scale = 1.0
    if getattr(config, "scale_attn_by_inverse_layer_idx", False):
        scale /= index + 1
    return scale


def _window(attention: Any, config: Any, index: int) -> int | None:
    """Places that this layer sees, its own among them; None is all."""
    kinds = getattr(config, "layer_types", None)
    if kinds is not None and kinds[index] != "sliding_attention":
        return None
    window = getattr(attention, "sliding_window", None)
    if window is None and getattr(config, "use_sliding_window", True):
        window = getattr(config, "sliding_window", None)
    return None if window is None else int(window)
