"""WAFFLE's objective (Coalson et al., NeurIPS 2023): how near every exit is to knowing nothing."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from eexit_cli.attacks.encoder_victim import EncoderVictim, Outcome
from eexit_cli.attacks.goal import Slowdown
from eexit_cli.attacks.recipe import UPSTREAM


def uncertainty(probabilities: Tensor, *, compat: str | None = None) -> Tensor:
    """Mean over exits of 1 - ||p_i - uniform||_1, scaled to its largest value.

    That value is 2 (K - 1) / K, at a one-hot p_i, so the score is 0 where every exit is certain
    and 1 where every exit is uniform. The published code divides by K - 1 instead: the same for
    K = 2, but for K = 3 its lowest score is 1/3, and it grows with K. ``compat="upstream"`` does
    that.

    Args:
        probabilities: of every exit. Shape: [..., exits, classes], at least two classes.

    Returns:
        In [0, 1]. Shape: [...].
    """
    classes = probabilities.shape[-1]
    farthest = classes - 1.0 if compat == UPSTREAM else 2 * (classes - 1) / classes
    # Shape: [..., exits]
    distances = (probabilities - 1 / classes).abs().sum(dim=-1)
    return (1 - distances / farthest).mean(dim=-1)


def certainty_loss(logits: Tensor, exit_layers: Tensor) -> Tensor:
    """What WAFFLE minimises: 1 - :func:`uncertainty`.

    Only its gradient's relative size at the words is used, which no normaliser changes.

    Args:
        logits: every exit's logits. Shape: [batch, exits, classes].
        exit_layers: not used; a loss of the victim gets them.

    Returns:
        Shape: [batch].
    """
    return 1 - uncertainty(torch.softmax(logits, dim=-1))


class Uncertain(Slowdown):
    """The score is the uncertainty of all exits; done above ``alpha``.

    A query runs every layer, since the score needs all exits. Where the text leaves is known from
    the same pass. An input that is above ``alpha`` and leaves early all the same is done when it
    uses all layers: ``alpha`` can tell nothing there.

    Args:
        victim: the model, with counts and budget.
        alpha: the score to exceed.
        compat: ``upstream`` for the published normaliser, and for its rule that an input above
            ``alpha`` is skipped, whether or not it leaves early.
    """

    all_exits = True

    def __init__(self, victim: EncoderVictim, alpha: float, *, compat: str | None = None) -> None:
        super().__init__(victim)
        self.alpha = alpha
        self.compat = compat

    def _start(self, outcome: Outcome) -> None:
        super()._start(outcome)
        self._starts_above = self._get_score(outcome, None) > self.alpha

    def _is_goal_complete(self, model_output: Outcome, attacked_text: Any) -> bool:
        if self._starts_above and self.compat != UPSTREAM:
            return super()._is_goal_complete(model_output, attacked_text)
        return self._get_score(model_output, attacked_text) > self.alpha

    def _note(self, text: Any, outcome: Outcome) -> None:
        layer = outcome.exit_layer
        if self.compat != UPSTREAM:
            # A text that leaves earlier than the input is not returned.
            layer = max(layer, self.initial.exit_layer)
        spent = self.victim.paid(text.tokenizer_input)
        self.best.note(self._get_score(outcome, text), layer, spent)

    def _should_skip(self, model_output: Outcome, attacked_text: Any) -> bool:
        if self.compat == UPSTREAM:
            return self._is_goal_complete(model_output, attacked_text)
        return super()._should_skip(model_output, attacked_text)

    def _get_score(self, model_output: Outcome, attacked_text: Any) -> float:
        exits = torch.tensor(model_output.exits, dtype=torch.float64)
        return float(uncertainty(exits, compat=self.compat))
