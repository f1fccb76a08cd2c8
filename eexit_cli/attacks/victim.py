"""The model under attack: scores texts by its live exits, and gives gradients, within a budget.

A query is one text scored, however many exits or tokens that takes. A text is scored once per
sample, however often it is asked for; only the check of a chosen text alone
(:meth:`Victim.confirm`) is a second query of the same text, and it is counted.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import takewhile
from typing import TYPE_CHECKING, Any, Generic, TypeVar

import torch
from torch import Tensor

from eexit_cli.attacks.buckets import Buckets
from eexit_cli.attacks.budget import FINAL_CHECK, Budget
from eexit_cli.attacks.words import TextInput

if TYPE_CHECKING:
    from eexit_cli.core.protocols import Crew

Loss = Callable[[Tensor, Tensor], Tensor]
"""(what the exits say, exit layers) -> loss of each decision: of a classifier's exits logits
[batch, exits, classes], of a generator's what its reader reads [batch, tokens, exits, ...]. Exit
layers and loss: Shape: [batch] or [batch, tokens]."""

Answer = TypeVar("Answer")


@dataclass(frozen=True)
class TextGradient:
    """Gradient of a loss with respect to the word embeddings of one text's tokens.

    Attributes:
        input_ids: Shape: [tokens], int64.
        gradient: one row per position, so repeated words keep theirs apart.
            Shape: [tokens, embedding].
        offsets: characters of each token in its column, without the prefix.
        columns: 0, or 1 for the second text of a pair; None for special tokens and the prefix.
        loss: the loss itself.
    """

    input_ids: Tensor
    gradient: Tensor
    offsets: list[tuple[int, int]]
    columns: list[int | None]
    loss: float


@dataclass(frozen=True)
class _Scores:
    """Texts to be scored, tokenised."""

    batch: dict[str, Tensor]

    def __len__(self) -> int:
        return len(self.batch["input_ids"])


@dataclass(frozen=True)
class _Gradients:
    """Texts to be differentiated, with what is known of them."""

    texts: list[TextInput]
    loss: Loss
    known: dict[TextInput, Any]

    def __len__(self) -> int:
        return len(self.texts)


class Victim(ABC, Generic[Answer]):
    """A model with its tokenizer and its way of leaving; what it answers is its family's.

    Args:
        model: in eval mode, with ``word_embeddings``; gradients are its.
        batcher: tokenises and pads (``models.batching.TextBatcher``).
        budget: counts, and limits, what is spent on each sample.
        live: what is attacked, where that has no gradients and ``model`` is its twin; None is
            ``model``.
        scorer: a copy of what is attacked with faster kernels for scoring candidates; None is that
            itself.
        prefix: stands before every text and is never attacked.
        batch_size: most texts per forward pass.

    Attributes:
        seed: of the current sample's random choices; set by whoever runs the samples.
        crew: does the passes over many texts; None does them here.
    """

    crew: Crew | None = None

    def __init__(
        self,
        model: Any,
        batcher: Any,
        budget: Budget,
        *,
        live: Any = None,
        scorer: Any = None,
        prefix: str = "",
        batch_size: int,
    ) -> None:
        self.model = model
        self.live = model if live is None else live
        self.batcher = batcher
        self.tokenizer = batcher.tokenizer
        self.budget = budget
        self.scorer = self.live if scorer is None else scorer
        self.prefix = prefix
        self.batch_size = batch_size
        self.seed = 0
        self.buckets = Buckets(batch_size)
        self._known: dict[TextInput, Answer] = {}
        self._paid: dict[TextInput, int] = {}
        self._alone: dict[TextInput, Answer] = {}
        self._gradients: dict[tuple[TextInput, Loss], TextGradient] = {}

    @property
    @abstractmethod
    def num_layers(self) -> int:
        """L: the most layers that a decision can take."""

    @abstractmethod
    def _run(self, model: Any, batch: dict[str, Tensor]) -> list[Answer]:
        """What the model, or its faster copy, says to each row of a batch, by its live exits."""

    @abstractmethod
    def _losses(
        self, texts: list[TextInput], embedded: Tensor, batch: dict[str, Tensor], loss: Loss
    ) -> Tensor:
        """Loss of each text where it leaves now, differentiable. Shape: [batch].

        Args:
            embedded: stands for the batch's ``input_ids``. Shape: [batch, tokens, embedding].
            batch: everything else.
        """

    @property
    def tokens_held(self) -> int:
        """Tokens that the texts of all batches so far have."""
        return self.buckets.tokens_held

    @property
    def tokens_computed(self) -> int:
        """Tokens of all batches so far, padding included."""
        return self.buckets.tokens_computed

    @property
    def embedding(self) -> Tensor:
        """Word embeddings. Shape: [vocabulary, embedding]."""
        weight: Tensor = self.model.word_embeddings.weight
        return weight.detach()

    @property
    def max_length(self) -> int:
        """Tokens per input; TextAttack's A2T asks for it."""
        return int(self.batcher.max_length)

    def begin(self) -> None:
        """Forget the last sample: nothing is spent, nothing is known."""
        self.budget.reset()
        self.forget()

    @contextmanager
    def account(self, budget: Budget) -> Iterator[Budget]:
        """Spend on another budget for a while, for what is done once for all samples.

        Nothing is known at its start, and nothing is at its end.
        """
        mine, self.budget = self.budget, budget
        try:
            self.begin()
            yield budget
        finally:
            self.forget()
            self.budget = mine

    def forget(self) -> None:
        """Free what is remembered of texts; what was spent on them stays counted."""
        self._known.clear()
        self._paid.clear()
        self._alone.clear()
        self._gradients.clear()

    def score(self, texts: Sequence[TextInput], *, reserve: int = 0) -> list[Answer]:
        """What the victim does with each text, by its live exits, in batches of similar length.

        Args:
            texts: without the prefix, in order of preference.
            reserve: queries to leave unspent.

        Returns:
            One per text; fewer, for the first ones, where the budget ends.
        """
        new = [text for text in dict.fromkeys(texts) if text not in self._known]
        new = new[: self.budget.affordable(len(new), reserve=reserve)]
        if new:
            for number, text in enumerate(new, start=self.budget.spent + 1):
                self._paid[text] = number + FINAL_CHECK
            self.budget.queries += len(new)
            self._known.update(zip(new, self._run_in_buckets(new), strict=True))
        return _first_ones(self._known, texts)

    def confirm(self, text: TextInput) -> Answer | None:
        """Score a text alone with the plain kernels, exactly as a user's single input would be.

        Rounding depends on a batch's shape, so a text within rounding of a threshold may leave
        elsewhere alone than in a batch of candidates. What this says counts. It is a query the
        first time, and remembered within a sample.

        Returns:
            None where the budget has nothing left.
        """
        if text not in self._alone:
            if not self.budget.affordable(1):
                return None
            self.budget.queries += 1
            (answer,) = self._run(self.live, self._encode([text]))
            self._alone[text] = self._known[text] = answer
            self._paid.setdefault(text, self.budget.spent)
        return self._alone[text]

    def paid(self, text: TextInput) -> int:
        """The budget with which a search would know this text, its check alone included.

        Texts of a batch are numbered in their order, since a smaller budget scores the first ones.
        """
        return self._paid[text]

    def gradients(
        self,
        texts: Sequence[TextInput],
        loss: Loss,
        *,
        reserve: int = 0,
        together: int | None = None,
    ) -> list[TextGradient]:
        """Fresh gradients with respect to the word embeddings at each text's own positions.

        Args:
            texts: each counts as one gradient pass.
            loss: minimising it is what the attack wants. The same text and loss again are free
                within a sample.
            reserve: queries to leave unspent.
            together: most texts that are differentiated together; None is as many as fit.

        Returns:
            One per text; fewer, for the first ones, where the budget ends.
        """
        new = [text for text in dict.fromkeys(texts) if (text, loss) not in self._gradients]
        new = new[: self.budget.affordable(len(new), reserve=reserve)]
        self.budget.gradient_passes += len(new)
        size = together or max(1, len(new))
        parts = [
            part
            for start in range(0, len(new), size)
            for part in self._gradient_batches(new[start : start + size])
        ]
        passes = self._passes([self._asked(part, loss) for part in parts])
        for part, found in zip(parts, passes, strict=True):
            for text, gradient in zip(part, found, strict=True):
                self._gradients[text, loss] = gradient
        return _first_ones(self._gradients, [(text, loss) for text in texts])

    def _asked(self, texts: list[TextInput], loss: Loss) -> _Gradients:
        return _Gradients(texts, loss, {t: self._known[t] for t in texts if t in self._known})

    def _gradient_batches(self, texts: list[TextInput]) -> Iterable[list[TextInput]]:
        """Parts of the texts that fit into one forward and backward pass."""
        return [texts] if texts else []

    def _differentiate(self, texts: list[TextInput], loss: Loss) -> Iterator[TextGradient]:
        batch = self._encode(texts)
        input_ids = batch.pop("input_ids")
        # Shape: [batch, tokens, embedding]
        embedded = self.model.word_embeddings(input_ids).detach().requires_grad_(True)
        with torch.enable_grad():
            losses = self._losses(texts, embedded, batch, loss)
            # Rows do not meet in the model, so the gradient of the sum holds each one's own.
            (gradient,) = torch.autograd.grad(losses.sum(), embedded)
        before = len(self.prefix)
        for row, encoding in enumerate(self._encodings(texts)):
            length = len(encoding.ids)
            ends = zip(encoding.columns, encoding.offsets, strict=True)
            yield TextGradient(
                input_ids=input_ids[row, :length],
                gradient=gradient[row, :length],
                offsets=[(start - before, end - before) for start, end in encoding.offsets],
                columns=[None if end <= before else column for column, (_, end) in ends],
                loss=float(losses[row].detach()),
            )

    def _run_in_buckets(self, texts: list[TextInput]) -> list[Answer]:
        return self.buckets.run(
            self._encode(texts), lambda parts: self._passes(list(map(_Scores, parts)))
        )

    def _passes(self, parts: list[Any]) -> Iterator[list[Any]]:
        """What each part says, in their order."""
        if self.crew is None:
            return map(self._pass, parts)
        found = dict(self.crew.do(parts, [len(part) for part in parts]))
        return (found[place] for place in range(len(parts)))

    def _pass(self, part: Any) -> list[Any]:
        if isinstance(part, _Scores):
            return self._run(self.scorer, part.batch)
        return list(self._differentiate(part.texts, part.loss))

    def share(self, part: Any) -> list[Any]:
        """What a member of the crew does: a part of a pass, as the victim that has the crew cut
        it."""
        if isinstance(part, _Scores):
            return self._pass(_Scores(self._on_device(part.batch)))
        self._known = dict(part.known)
        return [
            replace(one, input_ids=one.input_ids.cpu(), gradient=one.gradient.cpu())
            for one in self._pass(part)
        ]

    def _encode(self, texts: Sequence[TextInput]) -> dict[str, Tensor]:
        return self._on_device(self.batcher(*self._columns(texts)))

    def _on_device(self, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
        device = self.model.word_embeddings.weight.device
        return {name: value.to(device) for name, value in batch.items()}

    def _encodings(self, texts: Sequence[TextInput]) -> Any:
        return self.batcher.encoded(*self._columns(texts))

    def _columns(self, texts: Sequence[TextInput]) -> tuple[list[str], list[str] | None]:
        """First texts, with the prefix, and second ones where they are pairs."""
        rows = [(text,) if isinstance(text, str) else text for text in texts]
        firsts = [self.prefix + row[0] for row in rows]
        return firsts, [row[1] for row in rows] if len(rows[0]) > 1 else None


Key = TypeVar("Key")
Value = TypeVar("Value")


def _first_ones(known: dict[Key, Value], keys: Sequence[Key]) -> list[Value]:
    """The values up to the first key that has none."""
    return [known[key] for key in takewhile(known.__contains__, keys)]
