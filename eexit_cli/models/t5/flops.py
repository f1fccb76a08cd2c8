"""Floating-point operations of decoding, by formula: a multiplication and an addition count two.

Norms, softmaxes, activations and embeddings are left out: they are well below one percent.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from eexit_cli.models.t5.config import MultiExitT5Config


@dataclass(frozen=True)
class T5Flops:
    """The products of one T5 shape.

    Attributes:
        d_model, inner, d_ff: widths of the stream, of all attention heads, of the feed-forward.
        gated: the feed-forward has three maps instead of two.
        encoder_layers: depth of the encoder.
        vocabulary: rows of the LM head.
    """

    d_model: int
    inner: int
    d_ff: int
    gated: bool
    encoder_layers: int
    vocabulary: int

    @classmethod
    def of(cls, config: MultiExitT5Config) -> T5Flops:
        return cls(
            d_model=int(config.d_model),
            inner=int(config.num_heads) * int(config.d_kv),
            d_ff=int(config.d_ff),
            gated=bool(config.is_gated_act),
            encoder_layers=int(config.num_layers),
            vocabulary=int(config.vocab_size),
        )

    @property
    def feed_forward(self) -> int:
        """One token through one feed-forward."""
        return 2 * self.d_model * self.d_ff * (3 if self.gated else 2)

    @property
    def fill(self) -> int:
        """One waiting token's key and value in one skipped layer."""
        return 2 * self.d_model * 2 * self.inner

    def encoder(self, source_tokens: int, reached: int) -> int:
        """The encoder on one source, with the keys and values that cross-attention reads.

        Args:
            reached: decoder layers that any token of the output ran, 0..L: a layer's keys and
                values are made when it first runs.
        """
        n = source_tokens
        maps = 2 * self.d_model * 4 * self.inner + self.feed_forward
        scores = 2 * 2 * self.inner * n
        cross = reached * 2 * self.d_model * 2 * self.inner
        return n * (self.encoder_layers * (maps + scores) + cross)

    def decoder_layer(self, position: int, source_tokens: int) -> int:
        """One token at ``position`` (from 0) through one decoder layer."""
        own = 2 * self.d_model * 4 * self.inner + 2 * 2 * self.inner * (position + 1)
        cross = 2 * self.d_model * 2 * self.inner + 2 * 2 * self.inner * source_tokens
        return own + cross + self.feed_forward

    def head(self, rows: int | None = None) -> int:
        """The LM head on one state: whole, or ``rows`` of it under top-k propagation."""
        return 2 * self.d_model * (self.vocabulary if rows is None else rows)

    def token(
        self,
        exit_layer: int,
        position: int,
        source_tokens: int,
        *,
        filled_layers: int = 0,
        heads: int = 1,
        kept_rows: int = 0,
        confidence: int = 0,
    ) -> int:
        """One output token, the encoder's share left out.

        Args:
            exit_layer: layers that it ran.
            position: its place in the output, from 0.
            source_tokens: tokens that cross-attention reads.
            filled_layers: skipped layers whose key and value were made for it after all.
            heads: states of it that met the whole LM head.
            kept_rows: rows of the head that its other states met, in total.
            confidence: operations of its confidence classifiers, in total.
        """
        return (
            exit_layer * self.decoder_layer(position, source_tokens)
            + filled_layers * self.fill
            + heads * self.head()
            + 2 * self.d_model * kept_rows
            + confidence
        )
