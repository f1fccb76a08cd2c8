"""DL2-CALM's ``transformer_*`` classifiers: causal attention over all states of a layer so far."""

from __future__ import annotations

import torch
from torch import Tensor, nn

HEADS = 16


class AttentionClassifier(nn.Module):
    """Three maps d -> e, attention of width e with 16 heads and its own projections, then a head.

    No residual, no norm, no positions. ``linear`` ends in e -> 2, ``mlp`` in e -> e, ReLU, -> 2.

    Args:
        d_model: width of the decoder.
        width: e, 64 or 512.
        head: ``linear`` or ``mlp``.
    """

    def __init__(self, d_model: int, width: int, head: str) -> None:
        super().__init__()
        self.name = f"transformer_{head}_{width}"
        self.width = width
        self.query_proj = nn.Linear(d_model, width)
        self.key_proj = nn.Linear(d_model, width)
        self.value_proj = nn.Linear(d_model, width)
        self.multihead_attn = nn.MultiheadAttention(width, HEADS, batch_first=True)
        self.classifier: nn.Module = _HEADS[head](width)

    def forward(self, states: Tensor) -> Tensor:
        """Every token against the tokens up to it, for training and tests.

        Args:
            states: final-normed states of one layer. Shape: [batch, tokens, d_model].

        Returns:
            Shape: [batch, tokens, 2].
        """
        tokens = states.shape[1]
        # Shape: [tokens, tokens], True where a query must not look
        later = torch.ones(tokens, tokens, dtype=torch.bool, device=states.device).triu(1)
        attended, _ = self.multihead_attn(
            self.query_proj(states),
            self.key_proj(states),
            self.value_proj(states),
            attn_mask=later,
            need_weights=False,
        )
        return self.classifier(attended)


_HEADS = {
    "linear": lambda width: nn.Linear(width, 2),
    "mlp": lambda width: nn.Sequential(nn.Linear(width, width), nn.ReLU(), nn.Linear(width, 2)),
}


def build_linear_64(d_model: int) -> AttentionClassifier:
    return AttentionClassifier(d_model, 64, "linear")


def build_linear_512(d_model: int) -> AttentionClassifier:
    return AttentionClassifier(d_model, 512, "linear")


def build_mlp_64(d_model: int) -> AttentionClassifier:
    return AttentionClassifier(d_model, 64, "mlp")


def build_mlp_512(d_model: int) -> AttentionClassifier:
    return AttentionClassifier(d_model, 512, "mlp")
