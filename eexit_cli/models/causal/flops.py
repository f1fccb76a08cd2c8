"""Floating-point operations of decoder-only models, by formula; see ``models.t5.flops``.

The decoder layers that some exits have of their own are not among them (``DecodeCounts`` has them
among the layers that were run).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from eexit_cli.models.causal.model import MultiExitCausal


@dataclass(frozen=True)
class CausalFlops:
    """The products of one shape.

    Attributes:
        maps: one token through the maps of one layer.
        inner: width of all attention heads.
        fill: one waiting token's key and value in one skipped layer.
        d_head: width that the LM head reads.
        vocabulary: rows of the LM head.
    """

    maps: int
    inner: int
    fill: int
    d_head: int
    vocabulary: int

    @classmethod
    def of(cls, model: MultiExitCausal) -> CausalFlops:
        layer: Any = model.layers[0]
        stack = model.stack()
        first = stack.layers[0]
        return cls(
            maps=2 * sum(weight.numel() for weight in layer.parameters() if weight.dim() > 1),
            inner=stack.inner,
            fill=2 * stack.width * 2 * first.kv_heads * first.size,
            d_head=model.state_width,
            vocabulary=int(model.config.vocab_size),
        )

    def encoder(self, source_tokens: int, reached: int) -> int:
        """The prompt through ``reached`` layers; each token attends to those before it."""
        n = source_tokens
        return reached * (n * self.maps + 2 * 2 * self.inner * n * (n + 1) // 2)

    def decoder_layer(self, position: int, source_tokens: int) -> int:
        """What the token at ``position`` of the output (from 0) is chosen from, in one layer.

        That of the first is the prompt's last token, which the prompt's pass has run.
        """
        if position == 0:
            return 0
        return self.maps + 2 * 2 * self.inner * (source_tokens + position)

    def head(self, rows: int | None = None) -> int:
        """The LM head on one state: whole, or ``rows`` of it under top-k propagation."""
        return 2 * self.d_head * (self.vocabulary if rows is None else rows)
