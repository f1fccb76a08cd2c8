"""Exit heads: pooling, the papers' pooler (dense + tanh), classifier."""

from __future__ import annotations

from typing import Literal, get_args

import torch
from torch import Tensor, nn

Pooling = Literal["first", "mean"]
POOLINGS: tuple[str, ...] = get_args(Pooling)


def pool(hidden: Tensor, attention_mask: Tensor | None, pooling: str) -> Tensor:
    """One vector per sample.

    ``first`` is the papers' choice. ``mean`` averages over the tokens that are not padding: in
    small backbones the first token says nothing in the early layers.

    Args:
        hidden: Shape: [batch, tokens, hidden].
        attention_mask: 1 for tokens, 0 for padding; None when nothing is padded.
            Shape: [batch, tokens].

    Returns:
        Shape: [batch, hidden].
    """
    if pooling == "first":
        return hidden[:, 0]
    if attention_mask is None:
        return hidden.mean(dim=1)
    weights = attention_mask.to(hidden.dtype).unsqueeze(-1)
    return (hidden * weights).sum(dim=1) / weights.sum(dim=1).clamp_min(1)


class Pooler(nn.Module):
    """Dense and tanh on the pooled vector. Shape: [batch, hidden] -> [batch, hidden]."""

    def __init__(self, hidden_size: int) -> None:
        super().__init__()
        self.dense = nn.Linear(hidden_size, hidden_size)

    def forward(self, pooled: Tensor) -> Tensor:
        return torch.tanh(self.dense(pooled))


class UntrainedRamp(nn.Module):
    """DeeBERT's last highway: published files hold it, but nobody trained it.

    It never answers here. Its weights are kept because the published attack code reads them,
    and a comparison with that code needs them.
    """

    def __init__(self, hidden_size: int, num_labels: int) -> None:
        super().__init__()
        self.pooler = Pooler(hidden_size)
        self.classifier = nn.Linear(hidden_size, num_labels)

    def forward(self, pooled: Tensor) -> Tensor:
        return self.classifier(self.pooler(pooled))
