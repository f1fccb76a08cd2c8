"""Swapping words for substitutes, whatever source these come from."""

from __future__ import annotations

from textattack.shared import AttackedText
from textattack.transformations import WordSwap

from eexit_cli.attacks.substitutes import SubstituteSource
from eexit_cli.attacks.vocabulary import apply_capitalisation, capitalisation
from eexit_cli.attacks.words import swap_word, word_spans


class SubstituteSwap(WordSwap):
    """Replace a word by a substitute, written with its capitals.

    Args:
        source: gives the substitutes.
        count: most substitutes per word.
    """

    def __init__(self, source: SubstituteSource, *, count: int) -> None:
        super().__init__()
        self.source = source
        self.count = count

    def _get_transformations(
        self, current_text: AttackedText, indices_to_modify: set[int]
    ) -> list[AttackedText]:
        spans = word_spans(current_text)
        return [
            swap_word(
                current_text,
                spans[index],
                index,
                apply_capitalisation(word, capitalisation(current_text.words[index])),
            )
            for index in sorted(indices_to_modify)
            for word in self.source.substitutes(current_text.words[index], self.count)
        ]

    def extra_repr_keys(self) -> list[str]:
        return ["count"]
