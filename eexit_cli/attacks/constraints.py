"""SAME's constraints: which words may change, and how many."""

from __future__ import annotations

import math

from textattack.constraints import PreTransformationConstraint
from textattack.constraints.pre_transformation import StopwordModification
from textattack.shared import AttackedText

MINIMUM_CHANGES = 3


def most_changes(num_words: int, rate: float, minimum: int = MINIMUM_CHANGES) -> int:
    """max(minimum, ceil(rate * words)), and never more than there are words."""
    # 0.07 * 100 is 7.000000000000001 in binary: the ceiling must not turn that into 8.
    return min(num_words, max(minimum, math.ceil(rate * num_words - 1e-9)))


class ChangeLimit(PreTransformationConstraint):
    """Nothing more may change once max(3, ceil(rate * words)) words have.

    It acts before the transformation, so an exhausted text costs no gradient pass. The
    transformations here swap one word for one word, so the number of words stays as it was.

    Args:
        rate: share of the words that may change, in (0, 1].
    """

    def __init__(self, rate: float, minimum: int = MINIMUM_CHANGES) -> None:
        self.rate = rate
        self.minimum = minimum

    def _get_modifiable_indices(self, current_text: AttackedText) -> set[int]:
        limit = most_changes(current_text.num_words, self.rate, self.minimum)
        if len(current_text.attack_attrs["modified_indices"]) >= limit:
            return set()
        return set(range(current_text.num_words))


class NoStopWords(StopwordModification):
    """English stop-words stay, however they are capitalised ("The" is one too)."""

    def _get_modifiable_indices(self, current_text: AttackedText) -> set[int]:
        return {
            index
            for index, word in enumerate(current_text.words)
            if word.lower() not in self.stopwords
        }
