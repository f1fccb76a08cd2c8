"""A decoder under attack: decodes inputs by its live exits, and gives gradients through them.

Whatever generates texts with exits can be one; what is asked of it is :class:`Decoder` and
:class:`ExitReader`.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

from eexit_cli.attacks.budget import Budget
from eexit_cli.attacks.victim import Loss, Victim
from eexit_cli.attacks.words import TextInput

DEFAULT_BATCH_SIZE = 64
MOST_LOGITS = 1 << 25
"""Numbers that the exits of one gradient pass may hold: outputs x tokens x exits x vocabulary."""


class Decoder(Protocol):
    """What is asked of a model beside ``word_embeddings``.

    Attributes:
        depth: L, of what decodes.
    """

    @property
    def depth(self) -> int: ...
    @property
    def word_embeddings(self) -> Any: ...

    def decode(self, input_ids: Tensor, attention_mask: Tensor, settings: Any) -> Any:
        """``samples``, each with ``tokens``, ``exit_layers`` and ``confidences`` (NaN at L), and
        with ``passes`` where it speculates."""
        ...


class ExitReader(Protocol):
    """What the loss looks at: outputs that are known, run through all layers (teacher-forced).

    Attributes:
        layers: after which tokens are asked for their confidence, 1..L-1, ascending.
        width: numbers per token and exit: the vocabulary's size, or 1.
    """

    @property
    def layers(self) -> tuple[int, ...]: ...
    @property
    def width(self) -> int: ...

    def __call__(self, embedded: Tensor, attention_mask: Tensor, outputs: Tensor) -> Tensor:
        """Of each of :attr:`layers`, differentiable. Shape: [batch, tokens, exits, ...].

        Args:
            embedded: the inputs' word embeddings. Shape: [batch, source tokens, embedding].
            attention_mask: of the inputs. Shape: [batch, source tokens].
            outputs: ids, -100 where padded. Shape: [batch, tokens].
        """
        ...


@dataclass(frozen=True, slots=True)
class Generation:
    """What the decoder did with one input.

    Attributes:
        tokens: ids of the output, the end token included when it was reached.
        exit_layers: layer that emitted each token, 1..L.
        confidence: mean over the tokens of the confidence that they left with, 0 for those that
            used all layers.
        passes: of self-speculation, (drafted, accepted) tokens of each verification.
    """

    tokens: tuple[int, ...]
    exit_layers: tuple[int, ...]
    confidence: float
    passes: tuple[tuple[int, int], ...] = ()

    @property
    def total_layers(self) -> int:
        """Decoder layers of all tokens together."""
        return sum(self.exit_layers)

    @property
    def layers_per_token(self) -> float:
        return self.total_layers / len(self.exit_layers)

    @property
    def tokens_per_verification(self) -> float:
        """Of self-speculation; infinite where the output ended with its first token."""
        if not self.passes:
            return math.inf
        # The first token comes from the prompt's pass.
        return (len(self.tokens) - 1) / len(self.passes)


class DecoderVictim(Victim[Generation]):
    """A decoder with exits, its tokenizer and its way of leaving. A query is one input decoded.

    For gradients the input's own greedy output is fed back, all layers run on it, and the loss of
    its tokens is summed. Layers that a token skips when it is decoded live see the copied state
    there and their own here, so the gradient is of a close relative of what is attacked; candidates
    are decoded anew whatever it says. So it is with 8-bit weights, which have no gradient: it is
    that of the float weights. Inputs must be decoded before they are differentiated.

    Args:
        model: the decoder, in eval mode.
        settings: how it decodes (``models.decoding.settings.DecodeSettings``).
        reader: what the loss looks at.
        batcher, budget, prefix, batch_size: as of :class:`~eexit_cli.attacks.victim.Victim`.
    """

    def __init__(
        self,
        model: Decoder,
        batcher: Any,
        settings: Any,
        reader: ExitReader,
        budget: Budget,
        *,
        prefix: str = "",
        batch_size: int = DEFAULT_BATCH_SIZE,
    ) -> None:
        super().__init__(model, batcher, budget, prefix=prefix, batch_size=batch_size)
        self.settings = settings
        self.reader = reader

    @property
    def num_layers(self) -> int:
        """L, of the decoder."""
        return int(self.model.depth)

    def _gradient_batches(self, texts: list[TextInput]) -> Iterator[list[TextInput]]:
        if not texts:
            return
        longest = max(len(self._known[text].tokens) for text in texts)
        per_text = longest * len(self.reader.layers) * self.reader.width
        size = max(1, MOST_LOGITS // per_text)
        for start in range(0, len(texts), size):
            yield texts[start : start + size]

    def _losses(
        self, texts: list[TextInput], embedded: Tensor, batch: dict[str, Tensor], loss: Loss
    ) -> Tensor:
        generations = [self._known[text] for text in texts]
        # Shape: [batch, tokens] each; -100 and L where padded
        shape = (len(generations), max(len(one.tokens) for one in generations))
        outputs = torch.full(shape, -100, dtype=torch.int64, device=embedded.device)
        exit_layers = torch.full_like(outputs, self.num_layers)
        for row, one in enumerate(generations):
            outputs[row, : len(one.tokens)] = torch.tensor(one.tokens)
            exit_layers[row, : len(one.tokens)] = torch.tensor(one.exit_layers)
        values = self.reader(embedded, batch["attention_mask"], outputs)
        return loss(values, exit_layers).masked_fill(outputs == -100, 0.0).sum(dim=1)

    def _run(self, model: Any, batch: dict[str, Tensor]) -> list[Generation]:
        decoded = model.decode(**batch, settings=self.settings)
        return [
            Generation(
                tuple(sample.tokens),
                tuple(sample.exit_layers),
                sum(0.0 if math.isnan(value) else value for value in sample.confidences)
                / len(sample.confidences),
                tuple(getattr(sample, "passes", ())),
            )
            for sample in decoded.samples
        ]

    def _encode(self, texts: Sequence[TextInput]) -> dict[str, Tensor]:
        batch = super()._encode(texts)
        return {name: batch[name] for name in ("input_ids", "attention_mask")}
