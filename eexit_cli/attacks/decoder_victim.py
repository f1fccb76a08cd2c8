"""The decoder under attack: decodes inputs by its live exits, and gives gradients through them.

A query is one input decoded, however long its output. An input is decoded once per sample, but for
the check of a chosen one alone (:meth:`DecoderVictim.confirm`), which counts again.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

from eexit_cli.attacks.best_so_far import FINAL_CHECK
from eexit_cli.attacks.buckets import Buckets
from eexit_cli.attacks.recipe import Budget
from eexit_cli.attacks.victim import TextGradient

DEFAULT_BATCH_SIZE = 64
MOST_LOGITS = 1 << 25
"""Numbers that the exits of one gradient pass may hold: outputs x tokens x exits x vocabulary."""

TokenLoss = Callable[[Tensor, Tensor], Tensor]
"""(what the reader reads [batch, tokens, exits, ...], exit layers [batch, tokens]) -> loss of each
token [batch, tokens]."""


class ExitReader(Protocol):
    """What the loss looks at, from the states of a teacher-forced pass.

    Attributes:
        layers: after which tokens are asked for their confidence, 1..L-1, ascending.
        width: numbers per token and exit: the vocabulary's size, or 1.
    """

    @property
    def layers(self) -> tuple[int, ...]: ...
    @property
    def width(self) -> int: ...

    def __call__(self, states: Any) -> Tensor:
        """Of each of :attr:`layers`, differentiable. Shape: [batch, tokens, exits, ...]."""
        ...


@dataclass(frozen=True, slots=True)
class Generation:
    """What the decoder did with one input.

    Attributes:
        tokens: ids of the output, the end token included when it was reached.
        exit_layers: layer that emitted each token, 1..L.
        confidence: mean over the tokens of the confidence that they left with, 0 for those that
            used all layers.
    """

    tokens: tuple[int, ...]
    exit_layers: tuple[int, ...]
    confidence: float

    @property
    def total_layers(self) -> int:
        """Decoder layers of all tokens together."""
        return sum(self.exit_layers)

    @property
    def layers_per_token(self) -> float:
        return self.total_layers / len(self.exit_layers)


class DecoderVictim:
    """A decoder with exits, its tokenizer and its way of leaving.

    Args:
        model: the decoder (``models.seq2seq.MultiExitT5``), in eval mode.
        batcher: tokenises and pads (``models.batching.TextBatcher``).
        settings: how it decodes (``models.seq2seq.DecodeSettings``).
        reader: what the loss looks at.
        budget: counts, and limits, what is spent on each sample.
        prefix: stands before every input and is never attacked.
        batch_size: most inputs decoded together.

    Attributes:
        seed: of the current sample's random choices; set by whoever runs the samples.
        tokens_held, tokens_computed: over all batches decoded so far, tokens that the inputs have,
            and tokens computed with padding.
    """

    def __init__(
        self,
        model: Any,
        batcher: Any,
        settings: Any,
        reader: ExitReader,
        budget: Budget,
        *,
        prefix: str = "",
        batch_size: int = DEFAULT_BATCH_SIZE,
    ) -> None:
        self.model = model
        self.batcher = batcher
        self.tokenizer = batcher.tokenizer
        self.settings = settings
        self.reader = reader
        self.budget = budget
        self.prefix = prefix
        self.batch_size = batch_size
        self.seed = 0
        self.buckets = Buckets(batch_size)
        self._known: dict[str, Generation] = {}
        self._paid: dict[str, int] = {}
        self._alone: dict[str, Generation] = {}
        self._gradients: dict[tuple[str, TokenLoss], TextGradient] = {}

    @property
    def tokens_held(self) -> int:
        return self.buckets.tokens_held

    @property
    def tokens_computed(self) -> int:
        return self.buckets.tokens_computed

    @property
    def num_layers(self) -> int:
        """L, of the decoder."""
        return int(self.model.depth)

    @property
    def embedding(self) -> Tensor:
        """Word embeddings. Shape: [vocabulary, d]."""
        weight: Tensor = self.model.word_embeddings.weight
        return weight.detach()

    def begin(self) -> None:
        """Forget the last sample: nothing is spent, nothing is known."""
        self.budget.reset()
        self.forget()

    def forget(self) -> None:
        """Free what is remembered of inputs; what was spent on them stays counted."""
        self._known.clear()
        self._paid.clear()
        self._alone.clear()
        self._gradients.clear()

    def score(self, texts: Sequence[str], *, reserve: int = 0) -> list[Generation]:
        """Decode each input by the live exits, in batches of similar length.

        Args:
            texts: without the prefix, in order of preference.
            reserve: queries to leave unspent.

        Returns:
            One per input; fewer, for the first ones, where the budget ends.
        """
        new = [text for text in dict.fromkeys(texts) if text not in self._known]
        new = new[: self.budget.affordable(len(new), reserve=reserve)]
        if new:
            for number, text in enumerate(new, start=self.budget.spent + 1):
                self._paid[text] = number + FINAL_CHECK
            self.budget.queries += len(new)
            generations = self.buckets.run(self._encode(new), self._decode)
            self._known.update(zip(new, generations, strict=True))
        found = []
        for text in texts:
            if text not in self._known:
                break
            found.append(self._known[text])
        return found

    def confirm(self, text: str) -> Generation | None:
        """Decode an input alone, exactly as a user's single input would be.

        Rounding depends on a batch's shape, so a token within rounding of its threshold may leave
        elsewhere alone than in a batch. What this says counts. It is a query the first time, and
        remembered within a sample.

        Returns:
            None where the budget has nothing left.
        """
        if text in self._alone:
            return self._alone[text]
        if not self.budget.affordable(1):
            return None
        self.budget.queries += 1
        (generation,) = self._decode(self._encode([text]))
        self._alone[text] = self._known[text] = generation
        self._paid.setdefault(text, self.budget.spent)
        return generation

    def paid(self, text: str) -> int:
        """The budget with which a search would know this input, its check alone included.

        Inputs of a batch are numbered in their order, since a smaller budget decodes the first.
        """
        return self._paid[text]

    def gradients(
        self, texts: Sequence[str], loss: TokenLoss, *, reserve: int = 0
    ) -> list[TextGradient]:
        """Gradients with respect to the word embeddings at each input's own positions.

        The input's own greedy output is fed back to the decoder, all layers run on it, and the
        loss of its tokens is summed. Layers that a token skips when it is decoded live see the
        copied state there and their own here, so the gradient is of a close relative of what is
        attacked; candidates are decoded anew whatever it says.

        Args:
            texts: without the prefix, decoded before. Each counts as one gradient pass; the same
                one again is free within a sample.
            loss: minimising it is what the attack wants.
            reserve: queries to leave unspent.

        Returns:
            One per input; fewer, for the first ones, where the budget ends.
        """
        new = [text for text in dict.fromkeys(texts) if (text, loss) not in self._gradients]
        new = new[: self.budget.affordable(len(new), reserve=reserve)]
        self.budget.gradient_passes += len(new)
        for part in self._gradient_batches(new):
            for text, gradient in zip(part, self._differentiate(part, loss), strict=True):
                self._gradients[text, loss] = gradient
        found = []
        for text in texts:
            if (text, loss) not in self._gradients:
                break
            found.append(self._gradients[text, loss])
        return found

    def _gradient_batches(self, texts: list[str]) -> Iterator[list[str]]:
        if not texts:
            return
        longest = max(len(self._known[text].tokens) for text in texts)
        per_text = longest * len(self.reader.layers) * self.reader.width
        size = max(1, MOST_LOGITS // per_text)
        for start in range(0, len(texts), size):
            yield texts[start : start + size]

    def _differentiate(self, texts: list[str], loss: TokenLoss) -> Iterator[TextGradient]:
        encodings = self._encodings(texts)
        batch = self._encode(texts)
        generations = [self._known[text] for text in texts]
        labels, exit_layers, mask = self._targets(generations)
        # Shape: [batch, source tokens, d]
        embedded = self.model.word_embeddings(batch["input_ids"]).detach().requires_grad_(True)
        with torch.enable_grad():
            states = self.model.layer_states(
                None,
                batch["attention_mask"],
                self.model.shift_right(labels),
                inputs_embeds=embedded,
            )
            # Shape: [batch, tokens]
            losses = loss(self.reader(states), exit_layers).masked_fill(~mask, 0.0)
            # Inputs do not meet in the model, so the gradient of the sum holds each one's own.
            (gradient,) = torch.autograd.grad(losses.sum(), embedded)
        for row, encoding in enumerate(encodings):
            length = len(encoding.ids)
            yield TextGradient(
                input_ids=batch["input_ids"][row, :length],
                gradient=gradient[row, :length],
                offsets=[(a - len(self.prefix), b - len(self.prefix)) for a, b in encoding.offsets],
                columns=[
                    None if column is None or end <= len(self.prefix) else 0
                    for column, (_, end) in zip(
                        encoding.sequence_ids, encoding.offsets, strict=True
                    )
                ],
                loss=float(losses[row].detach().sum()),
                exit_layer=max(generations[row].exit_layers),
            )

    def _targets(self, generations: list[Generation]) -> tuple[Tensor, Tensor, Tensor]:
        """Labels (-100 where padded), exit layers (L there), mask. Shape: [batch, tokens] each."""
        device = self.model.word_embeddings.weight.device
        shape = (len(generations), max(len(one.tokens) for one in generations))
        labels = torch.full(shape, -100, dtype=torch.int64, device=device)
        exit_layers = torch.full(shape, self.num_layers, dtype=torch.int64, device=device)
        for row, one in enumerate(generations):
            labels[row, : len(one.tokens)] = torch.tensor(one.tokens, device=device)
            exit_layers[row, : len(one.tokens)] = torch.tensor(one.exit_layers, device=device)
        return labels, exit_layers, labels != -100

    def _decode(self, batch: dict[str, Tensor]) -> list[Generation]:
        decoded = self.model.decode(**batch, settings=self.settings)
        return [
            Generation(
                tuple(sample.tokens),
                tuple(sample.exit_layers),
                sum(0.0 if math.isnan(value) else value for value in sample.confidences)
                / len(sample.confidences),
            )
            for sample in decoded.samples
        ]

    def _encode(self, texts: Sequence[str]) -> dict[str, Tensor]:
        batch = self.batcher([self.prefix + text for text in texts])
        device = self.model.word_embeddings.weight.device
        return {name: batch[name].to(device) for name in ("input_ids", "attention_mask")}

    def _encodings(self, texts: Sequence[str]) -> Any:
        return self.tokenizer(
            [self.prefix + text for text in texts],
            truncation=True,
            max_length=self.batcher.max_length,
        ).encodings
