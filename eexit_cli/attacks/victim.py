"""The model under attack: scores texts by its live early-exit path, and gives gradients.

A query is one text scored. A text is scored once per sample, however often it is asked for; only
the check of a chosen text alone (:meth:`EncoderVictim.confirm`) is a second query of the same
text, and it is counted.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from textattack.models.wrappers import ModelWrapper
from torch import Tensor

from eexit_cli.attacks.best_so_far import FINAL_CHECK
from eexit_cli.attacks.buckets import Buckets
from eexit_cli.attacks.closeness import closeness_for
from eexit_cli.attacks.recipe import Budget
from eexit_cli.attacks.words import TextInput
from eexit_cli.core.errors import UsageError
from eexit_cli.core.protocols import ExitCriterion
from eexit_cli.core.stepping import replay

Loss = Callable[[Tensor, Tensor], Tensor]
"""(logits [batch, exits, classes], exit layers [batch]) -> loss per input [batch]."""

DEFAULT_BATCH_SIZE = 32


@dataclass(frozen=True, slots=True)
class Outcome:
    """What the victim did with one text.

    Attributes:
        exit_layer: layers executed, 1..L.
        prediction: class index of the answer.
        closeness: how near the executed exits were to letting it go on, in [0, 1).
        probabilities: of the answering exit, one per class.
        exits: every exit's probabilities, L tuples of K; None where the text was scored by the
            live path, which stops at its exit.
    """

    exit_layer: int
    prediction: int
    closeness: float
    probabilities: tuple[float, ...]
    exits: tuple[tuple[float, ...], ...] | None = None


@dataclass(frozen=True)
class TextGradient:
    """Gradient of a loss with respect to the word embeddings of one text's tokens.

    Attributes:
        input_ids: Shape: [tokens], int64.
        gradient: one row per position, so repeated words keep theirs apart.
            Shape: [tokens, embedding].
        offsets: characters of each token in its column.
        columns: 0, or 1 for the second text of a pair; None for special tokens.
        loss: the loss itself.
        exit_layer: where the text leaves, 1..L.
    """

    input_ids: Tensor
    gradient: Tensor
    offsets: list[tuple[int, int]]
    columns: list[int | None]
    loss: float
    exit_layer: int


class EncoderVictim(ModelWrapper):
    """A multi-exit classifier with its tokenizer and exit criterion; a TextAttack model wrapper.

    Args:
        model: the classifier (``models.encoder.model.MultiExitClassifier``), in eval mode.
        batcher: tokenises and pads (``models.batching.TextBatcher``).
        criterion: the exit criterion in force.
        budget: counts, and limits, what is spent on each sample.
        scorer: a copy of ``model`` with faster kernels for scoring candidates; None is ``model``.
        batch_size: most texts per forward pass.

    Attributes:
        seed: of the current sample's random choices; set by whoever runs the samples.
        tokens_held, tokens_computed: over all batches scored so far, tokens that texts have, and
            tokens computed with padding.

    Raises:
        UsageError: a regression model, or a criterion that ignores its input.
    """

    def __init__(
        self,
        model: Any,
        batcher: Any,
        criterion: ExitCriterion,
        budget: Budget,
        *,
        scorer: Any = None,
        batch_size: int = DEFAULT_BATCH_SIZE,
    ) -> None:
        if model.num_classes < 2:
            raise UsageError(
                "Slowdown attacks need classes; this model has one output (regression)",
                hint="Choose a classification model: eexit models list",
            )
        self.model = model
        self.batcher = batcher
        self.tokenizer = batcher.tokenizer
        self.criterion = criterion
        self.budget = budget
        self.scorer = model if scorer is None else scorer
        self.batch_size = batch_size
        self.seed = 0
        self.buckets = Buckets(batch_size)
        self._closeness = closeness_for(criterion)
        self._known: dict[TextInput, Outcome] = {}
        self._paid: dict[TextInput, int] = {}
        self._alone: dict[TextInput, Outcome] = {}
        self._gradients: dict[tuple[TextInput, Loss], TextGradient] = {}

    @property
    def tokens_held(self) -> int:
        return self.buckets.tokens_held

    @property
    def tokens_computed(self) -> int:
        return self.buckets.tokens_computed

    @property
    def num_layers(self) -> int:
        """L: an attack succeeds when this many layers are executed."""
        return int(self.model.num_exits)

    @property
    def device(self) -> torch.device:
        return self.model.word_embeddings.weight.device

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

    def is_known(self, text: TextInput) -> bool:
        """The text was scored for this sample, so asking again costs nothing."""
        return text in self._known

    def score(
        self, texts: Sequence[TextInput], *, reserve: int = 0, all_exits: bool = False
    ) -> list[Outcome]:
        """Where each text leaves, by the live path, in batches of similar length.

        Args:
            texts: in order of preference.
            reserve: queries to leave unspent.
            all_exits: run every layer, for :attr:`Outcome.exits`. One query per text all the same.

        Returns:
            One outcome per text; fewer, for the first ones, where the budget ends.
        """
        new = [text for text in dict.fromkeys(texts) if self._is_new(text, all_exits)]
        new = new[: self.budget.affordable(len(new), reserve=reserve)]
        if new:
            for number, text in enumerate(new, start=self.budget.spent + 1):
                self._paid.setdefault(text, number + FINAL_CHECK)
            self.budget.queries += len(new)
            self._known.update(zip(new, self._run_in_buckets(new, all_exits), strict=True))
        outcomes = []
        for text in texts:
            if self._is_new(text, all_exits):
                break
            outcomes.append(self._known[text])
        return outcomes

    def confirm(self, text: TextInput, *, all_exits: bool = False) -> Outcome | None:
        """Score a text alone with the plain kernels, exactly as a user's single input would be.

        Rounding depends on a batch's shape, so a text within rounding of a threshold may leave
        elsewhere alone than in a batch of candidates. What this says counts. It is a query the
        first time, and remembered within a sample.

        Returns:
            None where the budget has nothing left.
        """
        alone = self._alone.get(text)
        if alone is not None and not (all_exits and alone.exits is None):
            return alone
        if not self.budget.affordable(1):
            return None
        self.budget.queries += 1
        batch = self._encode([text])
        (outcome,) = self._run(self.model, batch, all_exits)
        self._alone[text] = self._known[text] = outcome
        self._paid.setdefault(text, self.budget.spent)
        return outcome

    def paid(self, text: TextInput) -> int:
        """The budget with which a search would know this text, its check alone included.

        Texts of a batch are numbered in their order, since a smaller budget scores the first ones.
        """
        return self._paid[text]

    def _is_new(self, text: TextInput, all_exits: bool) -> bool:
        known = self._known.get(text)
        return known is None or (all_exits and known.exits is None)

    def gradients(
        self, texts: Sequence[TextInput], loss: Loss, *, reserve: int = 0
    ) -> list[TextGradient]:
        """Fresh gradients with respect to the word embeddings at each text's own positions.

        Args:
            texts: together one forward and backward pass; each counts as one gradient pass.
            loss: minimising it is what the attack wants. The same text and loss again are free
                within a sample.
            reserve: queries to leave unspent.

        Returns:
            One per text; fewer, for the first ones, where the budget ends.
        """
        new = [text for text in dict.fromkeys(texts) if (text, loss) not in self._gradients]
        new = new[: self.budget.affordable(len(new), reserve=reserve)]
        if new:
            self.budget.gradient_passes += len(new)
            for text, gradient in zip(new, self._differentiate(new, loss), strict=True):
                self._gradients[text, loss] = gradient
        found = []
        for text in texts:
            if (text, loss) not in self._gradients:
                break
            found.append(self._gradients[text, loss])
        return found

    def loss_gradient(self, text: TextInput, loss: Loss) -> TextGradient | None:
        """:meth:`gradients` of one text; None where the budget has nothing left."""
        found = self.gradients([text], loss)
        return found[0] if found else None

    def _differentiate(self, texts: list[TextInput], loss: Loss) -> Iterator[TextGradient]:
        encodings = self._encodings(texts)
        batch = self._encode(texts)
        input_ids = batch.pop("input_ids")
        # Shape: [batch, tokens, embedding]
        embedded = self.model.word_embeddings(input_ids).detach().requires_grad_(True)
        with torch.enable_grad():
            logits = self.model(inputs_embeds=embedded, **batch).logits
            exit_layers = replay(logits.detach(), self.criterion).exit_layers
            losses = loss(logits, exit_layers)
            # Rows do not meet in the model, so the gradient of the sum holds each one's own.
            (gradient,) = torch.autograd.grad(losses.sum(), embedded)
        for row, encoding in enumerate(encodings):
            length = len(encoding.ids)
            yield TextGradient(
                input_ids=input_ids[row, :length],
                gradient=gradient[row, :length],
                offsets=list(encoding.offsets),
                columns=list(encoding.sequence_ids),
                loss=float(losses[row].detach()),
                exit_layer=int(exit_layers[row]),
            )

    def __call__(self, text_input_list: Sequence[TextInput], **kwargs: Any) -> np.ndarray:
        """Class probabilities of the answering exits, for TextAttack's own goal functions.

        Returns:
            Shape: [texts, classes].
        """
        outcomes = self.score(list(text_input_list))
        return np.array([outcome.probabilities for outcome in outcomes])

    @property
    def max_length(self) -> int:
        """Tokens per input; TextAttack's A2T asks for it."""
        return int(self.batcher.max_length)

    def get_grad(self, text_input: TextInput) -> dict[str, Any]:
        """What TextAttack's own recipes ask of a model: the gradient of its answer's loss.

        A gradient pass of our budget like any other; zeros where that is spent.

        Returns:
            ``ids``, Shape: [1, tokens], and ``gradient``, Shape: [tokens, embedding].
        """
        found = self.gradients([text_input], answer_loss)
        if found:
            ids, gradient = found[0].input_ids, found[0].gradient
        else:
            ids = torch.tensor(self._encodings([text_input])[0].ids)
            gradient = torch.zeros(len(ids), self.model.word_embeddings.weight.shape[1])
        return {"ids": ids[None], "gradient": gradient.cpu().numpy()}

    def _tokenize(self, inputs: Sequence[TextInput]) -> list[list[str]]:
        """The pieces of each text, special ones included, as the gradient has them."""
        return [list(encoding.tokens) for encoding in self._encodings(inputs)]

    def _run_in_buckets(self, texts: list[TextInput], all_exits: bool = False) -> list[Outcome]:
        return self.buckets.run(
            self._encode(texts), lambda part: self._run(self.scorer, part, all_exits)
        )

    @torch.inference_mode()
    def _run(self, model: Any, batch: dict[str, Tensor], all_exits: bool = False) -> list[Outcome]:
        rows = len(batch["input_ids"])
        # Shape: [batch, exits, classes]; zero where an exit was not executed
        trail = torch.zeros(rows, self.num_layers, int(self.model.num_classes), device=self.device)

        def remember(layer: int, running: Tensor, logits: Tensor) -> None:
            trail[running, layer - 1] = logits.to(trail.dtype)

        criterion = None if all_exits else self.criterion
        decision = model.infer(**batch, criterion=criterion, on_exit=remember)
        exits: list[tuple[tuple[float, ...], ...] | None] = [None] * rows
        if all_exits:
            decision = replay(trail, self.criterion)
            every = torch.softmax(trail.double(), dim=-1).tolist()
            exits = [tuple(tuple(one) for one in text) for text in every]
        layers = decision.exit_layers.cpu()
        near = self._closeness(trail.cpu(), layers)
        near = near.masked_fill(layers >= self.num_layers, 0.0)
        probabilities = torch.softmax(decision.logits.double(), dim=-1)
        return [
            Outcome(layer, prediction, closeness, tuple(answer), every_exit)
            for layer, prediction, closeness, answer, every_exit in zip(
                layers.tolist(),
                decision.predictions.tolist(),
                near.tolist(),
                probabilities.tolist(),
                exits,
                strict=True,
            )
        ]

    def _encode(self, texts: Sequence[TextInput]) -> dict[str, Tensor]:
        firsts, seconds = _columns(texts)
        batch = self.batcher(firsts, seconds)
        return {name: value.to(self.device) for name, value in batch.items()}

    def _encodings(self, texts: Sequence[TextInput]) -> Any:
        firsts, seconds = _columns(texts)
        return self.tokenizer(
            firsts, seconds, truncation=True, max_length=self.batcher.max_length
        ).encodings


def answer_loss(logits: Tensor, exit_layers: Tensor) -> Tensor:
    """Cross-entropy of the answering exit with its own answer. Shape: [batch]."""
    answering = logits[torch.arange(len(logits), device=logits.device), exit_layers - 1]
    return torch.nn.functional.cross_entropy(answering, answering.argmax(dim=-1), reduction="none")


def _columns(texts: Sequence[TextInput]) -> tuple[list[str], list[str] | None]:
    if isinstance(texts[0], str):
        return [str(text) for text in texts], None
    return [text[0] for text in texts], [text[1] for text in texts]
