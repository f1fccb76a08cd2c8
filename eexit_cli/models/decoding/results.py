"""What decoding gives back."""

from __future__ import annotations

import math
from dataclasses import dataclass, field


@dataclass(frozen=True)
class DecodedSample:
    """One output.

    Attributes:
        tokens: ids, the end token included when it was reached.
        exit_layers: layer that emitted each token, 1..L.
        confidences: confidence that each token left with; NaN where none was asked (the last
            layer, a static exit, the full model).
        passes: of self-speculation, (drafted, accepted) tokens of each verification.
        log_likelihoods: where the output is given, log-probability of each of its tokens in nats,
            as the exit that answered found it; ``tokens`` are what it would have chosen.
    """

    tokens: list[int]
    exit_layers: list[int]
    confidences: list[float]
    passes: list[tuple[int, int]] = field(default_factory=list)
    log_likelihoods: list[float] = field(default_factory=list)

    @property
    def mean_exit_layer(self) -> float:
        """NaN for an output without tokens."""
        if not self.exit_layers:
            return math.nan
        return sum(self.exit_layers) / len(self.exit_layers)


@dataclass
class DecodeTimings:
    """Seconds by part; filled only when asked for.

    Attributes:
        encoder: the encoder and the cross-attention's keys and values, once per input.
        layers: decoder layers, one entry per layer.
        confidence: the measure, one entry per layer. For softmax response this holds the LM head
            too, without which it has nothing to measure.
        head: the LM head and the choice of the token, outside of the measure.
        filling: keys and values of skipped layers. Where they share one product with the running
            token's, the product's time is split by rows.
        other: embeddings, bookkeeping.
    """

    encoder: float = 0.0
    layers: list[float] = field(default_factory=list)
    confidence: list[float] = field(default_factory=list)
    head: float = 0.0
    filling: float = 0.0
    other: float = 0.0

    def as_dict(self) -> dict[str, float | list[float]]:
        """JSON-ready, in the attributes' names, with totals of the lists."""
        return {
            "encoder_seconds": self.encoder,
            "layers_seconds": sum(self.layers),
            "layers_seconds_by_layer": list(self.layers),
            "confidence_seconds": sum(self.confidence),
            "confidence_seconds_by_layer": list(self.confidence),
            "head_seconds": self.head,
            "filling_seconds": self.filling,
            "other_seconds": self.other,
        }


@dataclass
class DecodeCounts:
    """How much was computed for a batch.

    Attributes:
        tokens: emitted.
        layer_tokens: decoder layer executions, one token each.
        filled: keys and values computed for layers that a token skipped, one layer and token each.
        head_rows: states that met the whole LM head.
        kept_rows: states that met only the K kept rows of it.
        drafted, accepted: tokens of self-speculation's drafts, and those that the full model
            would have written too.
        verifications: its passes through the deep layers, one output each.
    """

    tokens: int = 0
    layer_tokens: int = 0
    filled: int = 0
    head_rows: int = 0
    kept_rows: int = 0
    drafted: int = 0
    accepted: int = 0
    verifications: int = 0


@dataclass(frozen=True)
class Decoded:
    """A batch of outputs.

    Attributes:
        samples: in the order of the inputs.
        counts: how much was computed.
        timings: None unless asked for.
        pairs: (confidence, agreement) of FREE's deep passes; empty otherwise.
        finite: no confidence, no chosen token's logit and no weight of the LM head was NaN or
            infinite.
    """

    samples: list[DecodedSample]
    counts: DecodeCounts
    timings: DecodeTimings | None = None
    pairs: list[tuple[float, bool]] = field(default_factory=list)
    finite: bool = True
