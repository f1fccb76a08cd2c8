"""A classifier under attack: where its live early-exit path leaves, and gradients of its exits."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from textattack.models.wrappers import ModelWrapper
from torch import Tensor

from eexit_cli.attacks.budget import Budget
from eexit_cli.attacks.closeness import closeness_for
from eexit_cli.attacks.victim import Loss, Victim
from eexit_cli.attacks.words import TextInput
from eexit_cli.core.errors import UsageError
from eexit_cli.core.protocols import ExitCriterion
from eexit_cli.core.stepping import replay

DEFAULT_BATCH_SIZE = 32


@dataclass(frozen=True, slots=True)
class Outcome:
    """What the victim did with one text.

    Attributes:
        exit_layer: layers executed, 1..L.
        prediction: class index of the answer.
        closeness: how near the executed exits were to letting it go on, in [0, 1).
        probabilities: of the answering exit, one per class.
        exits: every exit's probabilities, L tuples of K; None where the sample is scored by the
            live path, which stops at its exit.
    """

    exit_layer: int
    prediction: int
    closeness: float
    probabilities: tuple[float, ...]
    exits: tuple[tuple[float, ...], ...] | None = None


class EncoderVictim(Victim[Outcome], ModelWrapper):  # type: ignore[misc]
    """A multi-exit classifier with its tokenizer and exit criterion; a TextAttack model wrapper.

    Args:
        model: the classifier (``models.encoder.model.MultiExitClassifier``), in eval mode.
        criterion: the exit criterion in force.
        batcher, budget, live, scorer, batch_size: as of :class:`~eexit_cli.attacks.victim.Victim`.

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
        live: Any = None,
        scorer: Any = None,
        batch_size: int = DEFAULT_BATCH_SIZE,
    ) -> None:
        if model.num_classes < 2:
            raise UsageError(
                "Slowdown attacks need classes; this model has one output (regression)",
                hint="Choose a classification model: eexit models list",
            )
        super().__init__(model, batcher, budget, live=live, scorer=scorer, batch_size=batch_size)
        self.criterion = criterion
        self._closeness = closeness_for(criterion)
        self._all_exits = False

    @property
    def num_layers(self) -> int:
        """L: an attack succeeds when this many layers are executed."""
        return int(self.model.num_exits)

    def begin(self, *, all_exits: bool = False) -> None:
        """Forget the last sample: nothing is spent, nothing is known.

        Args:
            all_exits: queries run every layer, for :attr:`Outcome.exits`, until the next sample.
        """
        super().begin()
        self._all_exits = all_exits

    def _losses(
        self, texts: list[TextInput], embedded: Tensor, batch: dict[str, Tensor], loss: Loss
    ) -> Tensor:
        logits = self.model(inputs_embeds=embedded, **batch).logits
        return loss(logits, replay(logits.detach(), self.criterion).exit_layers)

    def __call__(self, text_input_list: Sequence[TextInput], **kwargs: Any) -> np.ndarray:
        """Class probabilities of the answering exits, for TextAttack's own goal functions.

        Returns:
            Shape: [texts, classes].
        """
        outcomes = self.score(list(text_input_list))
        return np.array([outcome.probabilities for outcome in outcomes])

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
            gradient = torch.zeros(len(ids), self.embedding.shape[1])
        return {"ids": ids[None], "gradient": gradient.cpu().numpy()}

    def _tokenize(self, inputs: Sequence[TextInput]) -> list[list[str]]:
        """The pieces of each text, special ones included, as the gradient has them."""
        encoded = self._encodings(inputs)
        return [self.tokenizer.convert_ids_to_tokens(each.ids) for each in encoded]

    @torch.inference_mode()
    def _run(self, model: Any, batch: dict[str, Tensor]) -> list[Outcome]:
        rows = len(batch["input_ids"])
        # Shape: [batch, exits, classes]; zero where an exit was not executed
        trail = torch.zeros(
            rows, self.num_layers, int(self.model.num_classes), device=self.embedding.device
        )

        def remember(layer: int, running: Tensor, logits: Tensor) -> None:
            trail[running, layer - 1] = logits.to(trail.dtype)

        criterion = None if self._all_exits else self.criterion
        decision = model.infer(**batch, criterion=criterion, on_exit=remember)
        exits: list[tuple[tuple[float, ...], ...] | None] = [None] * rows
        if self._all_exits:
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


def answer_loss(logits: Tensor, exit_layers: Tensor) -> Tensor:
    """Cross-entropy of the answering exit with its own answer. Shape: [batch]."""
    answering = logits[torch.arange(len(logits), device=logits.device), exit_layers - 1]
    return torch.nn.functional.cross_entropy(answering, answering.argmax(dim=-1), reduction="none")
