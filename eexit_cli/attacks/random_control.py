"""The control: as many words replaced as SAME may, by random ones from the same vocabulary.

What it reaches needs no gradient and no idea, only queries; an attack is as good as what it gains
beyond that. It draws a text with all its changes at once, scores it, and keeps the deepest of up to
``top_n * per_size`` draws (SAME's candidates per beam member), or of what the budget allows.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from itertools import islice
from typing import TYPE_CHECKING

from textattack.search_methods import SearchMethod
from textattack.shared import AttackedText
from textattack.transformations import WordSwap

from eexit_cli.attacks.budget import Budget
from eexit_cli.attacks.constraints import NoStopWords, most_changes
from eexit_cli.attacks.encoder_victim import EncoderVictim
from eexit_cli.attacks.goal import Slowdown, SlowdownResult
from eexit_cli.attacks.recipe import AttackSettings
from eexit_cli.attacks.vocabulary import WordTable, apply_capitalisation, capitalisation
from eexit_cli.attacks.words import swap_word, word_spans
from eexit_cli.core.seed import stream

if TYPE_CHECKING:
    import textattack

FINAL_CHECK = 1
"""Queries kept back to score the chosen text alone."""


class RandomSubstitution(WordSwap):
    """Draws texts in which random words stand for random others.

    Args:
        victim: whose vocabulary the words are from, as for SAME's token mutation.
        rate: share of the words that change, 3 at least.
        most: words that change at most, whatever the rate; None is no such bound.
    """

    def __init__(self, victim: EncoderVictim, *, rate: float, most: int | None = None) -> None:
        super().__init__()
        self.rate = rate
        self.most = most
        self.victim = victim
        self.table = WordTable.of(victim.tokenizer, size=len(victim.model.word_embeddings.weight))

    def draw(self, text: AttackedText, indices: list[int], chance: random.Random) -> AttackedText:
        """One text with as many of the words at ``indices`` changed as may be."""
        count = min(len(indices), most_changes(text.num_words, self.rate))
        if self.most is not None:
            count = min(count, self.most)
        for index in sorted(chance.sample(indices, count)):
            word = text.words[index]
            new = self._other_word(word, chance)
            text = swap_word(text, word_spans(text)[index], index, new)
        return text

    def draws(self, text: AttackedText, indices: list[int]) -> Iterator[AttackedText]:
        """Texts without end, the same ones for the same sample and text."""
        chance = stream(self.victim.seed, "random substitution", text.text)
        while True:
            yield self.draw(text, indices, chance)

    def _other_word(self, word: str, chance: random.Random) -> str:
        new = word
        while new.casefold() == word.casefold():
            new = chance.choice(self.table.words)
        return new if self.table.cased else apply_capitalisation(new, capitalisation(word))

    def _get_transformations(
        self, current_text: AttackedText, indices_to_modify: set[int]
    ) -> list[AttackedText]:
        raise NotImplementedError("RandomSearch draws whole texts")

    def extra_repr_keys(self) -> list[str]:
        return ["rate"]


class RandomSearch(SearchMethod):
    """The deepest of so many random texts; stops where one reaches the last layer.

    Args:
        victim: gives the sample's seed.
        substitution: draws the texts.
        draws: texts scored at most.
    """

    def __init__(
        self, victim: EncoderVictim, substitution: RandomSubstitution, *, draws: int
    ) -> None:
        self.victim = victim
        self.substitution = substitution
        self.draws = draws
        self.goal_function: Slowdown

    @property
    def is_black_box(self) -> bool:
        return True

    def perform_search(self, initial_result: SlowdownResult) -> SlowdownResult:
        """The deepest text, scored once more alone; the input where none is deeper."""
        original = initial_result.attacked_text
        indices = sorted(int(index) for index in self.get_indices_to_order(original)[1])
        best, left = initial_result, self.draws if indices else 0
        drawn = self.substitution.draws(original, indices)
        while left > 0 and best.raw_output.exit_layer < self.victim.num_layers:
            count = min(left, self.victim.batch_size)
            texts = list(islice(drawn, count))
            results, spent = self.goal_function.get_results(texts, reserve=FINAL_CHECK)
            best = max([best, *results], key=lambda result: result.score)
            if spent or len(results) < count:
                break
            left -= count
        if best is initial_result:
            return initial_result
        alone = self.goal_function.confirm(best.attacked_text)
        before = initial_result.raw_output.exit_layer
        return (
            alone if alone is not None and alone.raw_output.exit_layer > before else initial_result
        )

    def extra_repr_keys(self) -> list[str]:
        return ["draws"]


def build_random(
    victim: EncoderVictim, budget: Budget, settings: AttackSettings
) -> textattack.Attack:
    """Random substitution under SAME's constraints."""
    import textattack

    substitution = RandomSubstitution(victim, rate=settings.change_rate)
    return textattack.Attack(
        Slowdown(victim),
        [NoStopWords()],
        substitution,
        RandomSearch(victim, substitution, draws=settings.top_n * settings.per_size),
    )
