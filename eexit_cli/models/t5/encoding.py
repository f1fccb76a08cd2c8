"""The encoder's pass, once per input."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from eexit_cli.models.t5.weights import T5Weights


def padding_bias(attention_mask: Tensor | None, dtype: torch.dtype) -> Tensor | None:
    """Additive mask, None when nothing is padded. Shape: [batch, tokens] -> [batch, tokens]."""
    if attention_mask is None or bool(attention_mask.all()):
        return None
    bias = torch.zeros_like(attention_mask, dtype=dtype)
    return bias.masked_fill_(attention_mask == 0, torch.finfo(dtype).min)


def encode(weights: T5Weights, input_ids: Tensor, padding: Tensor | None) -> Tensor:
    """The encoder's output as ``unit``: its final norm is folded into the cross-attention.

    Args:
        input_ids: Shape: [batch, tokens].
        padding: of :func:`padding_bias`. Shape: [batch, tokens].

    Returns:
        Shape: [batch, tokens, d].
    """
    batch, tokens = input_ids.shape
    heads, size = weights.heads, weights.head_size
    # Shape: [batch * tokens, d]
    x = weights.embedding.index_select(0, input_ids.reshape(-1))
    # Shape: [1, heads, tokens, tokens], or [batch, heads, tokens, tokens] when padded
    bias = weights.encoder_bias(tokens)
    if padding is not None:
        bias = bias + padding[:, None, None, :]
    for layer in weights.encoder:
        fused = layer.qkv(weights.unit(x)).view(batch, tokens, 3, heads, size)
        # Shape: 3 x [batch, heads, tokens, size]
        query, key, value = fused.permute(2, 0, 3, 1, 4).unbind(0)
        attended = F.scaled_dot_product_attention(query, key, value, attn_mask=bias, scale=1.0)
        x = layer.out.add(attended.transpose(1, 2).reshape(batch * tokens, -1), x)
        x = layer.feed(weights.unit(x), x)
    return weights.unit(x).view(batch, tokens, -1)
