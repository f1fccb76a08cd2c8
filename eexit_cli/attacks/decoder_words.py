"""Changing a text of several words, as SAME does to a classifier's input.

Words give way to whole words of the vocabulary; stop-words stay, no word changes twice, and at
most max(3, ceil(rate * words)) words change.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import Any, cast

from textattack.constraints.pre_transformation import RepeatModification
from textattack.shared import AttackedText

from eexit_cli.attacks.constraints import ChangeLimit, NoStopWords, most_changes
from eexit_cli.attacks.decoder_victim import DecoderVictim
from eexit_cli.attacks.random_control import RandomSubstitution
from eexit_cli.attacks.token_mutation import ESTIMATE, TokenMutation
from eexit_cli.attacks.victim import Loss
from eexit_cli.attacks.words import changed_words


@dataclass(frozen=True)
class Wording:
    """A text on its way.

    Attributes:
        attacked: with what was changed so far.
    """

    attacked: AttackedText

    @property
    def text(self) -> str:
        return str(self.attacked.tokenizer_input)


class WordEditor:
    """The words of a text.

    Args:
        victim: gives gradients and vocabulary.
        loss: to be lowered.
        rate: share of the words that may change, 3 at least.
        top_n: candidates per text.
    """

    unit = "words"

    def __init__(self, victim: DecoderVictim, loss: Loss, *, rate: float, top_n: int) -> None:
        self.victim = victim
        self.rate = rate
        # These ask a victim for its gradients, embeddings and tokenizer alone, which a decoder has.
        like = cast(Any, victim)
        self._mutation = TokenMutation(like, cast(Any, loss), top_n=top_n)
        self._random = RandomSubstitution(like, rate=rate)
        self._stop = NoStopWords()
        self._constraints = [RepeatModification(), self._stop, ChangeLimit(rate)]

    def begin(self, text: str) -> Wording:
        return Wording(AttackedText(text))

    def count(self, text: str) -> int:
        """Units of an input."""
        return int(AttackedText(text).num_words)

    def most_changes(self, text: str) -> int:
        return most_changes(self.count(text), self.rate)

    def can_change(self, draft: Wording, original: str) -> bool:
        return bool(self._indices(draft))

    def candidates(self, draft: Wording, original: str, top_n: int) -> list[Wording]:
        """The ``top_n`` swaps with the lowest first-order estimate of the loss, lowest first.

        The draft's gradient must be known, or affordable.
        """
        self._mutation.top_n = top_n
        swapped = self._mutation._get_transformations(draft.attacked, self._indices(draft))
        swapped.sort(key=lambda text: float(text.attack_attrs[ESTIMATE]))
        return [Wording(text) for text in swapped]

    def draw(self, original: str, chance: random.Random) -> Wording:
        """As many random words as may be, in random places."""
        text = AttackedText(original)
        allowed = sorted(self._stop(text, self._random))
        if not allowed or not len(self._random.table):
            return Wording(text)
        return Wording(self._random.draw(text, allowed, chance))

    def changes(self, original: str, perturbed: str) -> list[dict[str, Any]]:
        """What was done, word by word."""
        return changed_words(AttackedText(original), AttackedText(perturbed))

    def _indices(self, draft: Wording) -> set[int]:
        allowed = set(range(draft.attacked.num_words))
        for constraint in self._constraints:
            allowed &= set(constraint(draft.attacked, self._mutation))
        return allowed
