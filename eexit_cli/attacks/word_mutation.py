"""Changing words: by gradient (SAME's token mutation), at random, for substitutes; and a decoder's.

A word gives way to one whole word, so the places of the others stay.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from textattack.constraints.pre_transformation import RepeatModification
from textattack.shared import AttackedText
from textattack.transformations import WordSwap
from torch import Tensor

from eexit_cli.attacks.constraints import ChangeLimit, NoStopWords, most_changes
from eexit_cli.attacks.saliency import WordGradients, word_gradients
from eexit_cli.attacks.substitutes import SubstituteSource
from eexit_cli.attacks.victim import Loss, Victim
from eexit_cli.attacks.vocabulary import MIXED, WordTable, capitalisation, written_like
from eexit_cli.attacks.words import changed_words, swap_word, word_spans
from eexit_cli.core.seed import stream

ESTIMATE = "estimated_change"
"""``attack_attrs`` key: first-order estimate of how much the loss changes."""


class TokenMutation(WordSwap):
    """Replace a word by a whole-word vocabulary entry v with small (E_v - E_word) . gradient.

    All (position, entry) pairs of a text are ranked together and the best ``top_n`` are kept, with
    one matrix product and a partial selection. A word of several pieces counts with the mean of
    their embeddings and the sum of their gradients. Capitals are kept: with an uncased vocabulary
    in how the replacement is written, with a cased one by choosing entries written alike.

    Args:
        victim: gives the gradients.
        loss: to be lowered.
        top_n: candidates per text.
    """

    def __init__(self, victim: Victim[Any], loss: Loss, *, top_n: int) -> None:
        super().__init__()
        self.victim = victim
        self.loss = loss
        self.top_n = top_n
        self.is_black_box = False
        embedding = victim.embedding
        self.table = WordTable.of(victim.tokenizer, size=len(embedding))
        # Shape: [entries, embedding]
        self._spaced = embedding[self.table.spaced_ids.to(embedding.device)]
        self._has_bare = (self.table.bare_ids >= 0).to(embedding.device)
        marked = self.table.mark is not None
        self._bare = (
            embedding[self.table.bare_ids.clamp_min(0).to(embedding.device)]
            if marked
            else self._spaced
        )
        self._entry_of: dict[str, list[int]] = {}
        for entry, word in enumerate(self.table.folded):
            self._entry_of.setdefault(word, []).append(entry)

    def _get_transformations(
        self, current_text: AttackedText, indices_to_modify: set[int]
    ) -> list[AttackedText]:
        words = word_gradients(self.victim, self.loss, current_text, indices_to_modify)
        if words is None or not len(self.table):
            return []
        changes, rows, entries = self.best_pairs(words, current_text.words)
        candidates = []
        for change, row, entry in zip(changes, rows, entries, strict=True):
            index = words.indices[row]
            new = self.table.written(self.table.words[entry], current_text.words[index])
            candidates.append(
                swap_word(current_text, words.spans[index], index, new, **{ESTIMATE: change})
            )
        return candidates

    def best_pairs(
        self, words: WordGradients, texts: list[str]
    ) -> tuple[list[float], list[int], list[int]]:
        """The ``top_n`` pairs with the lowest estimated change, lowest first.

        Args:
            words: rows = the words that may change.
            texts: all words of the text.

        Returns:
            Estimated change, row and vocabulary entry of each pair.
        """
        # Shape: [rows, entries]
        changes = self._estimated_changes(words)
        self._forbid(changes, [texts[index] for index in words.indices])
        flat = changes.flatten()
        count = min(self.top_n, int((flat < float("inf")).sum()))
        values, places = flat.topk(count, largest=False)
        rows = places.div(changes.shape[1], rounding_mode="floor")
        return values.tolist(), rows.tolist(), (places % changes.shape[1]).tolist()

    def _estimated_changes(self, words: WordGradients) -> Tensor:
        own = (words.gradients * words.embeddings).sum(dim=1, keepdim=True)
        if self.table.mark is None:
            return words.gradients @ self._spaced.T - own
        spaced = torch.tensor(self._are_spaced(words), device=own.device)[:, None]
        bare = words.gradients @ self._bare.T
        bare = bare.masked_fill(~self._has_bare, float("inf"))
        return torch.where(spaced, words.gradients @ self._spaced.T, bare) - own

    def _are_spaced(self, words: WordGradients) -> list[bool]:
        # Sentencepiece marks the first word of a text too, byte BPE only what follows a space.
        mark = self.table.mark or ""
        pieces = self.victim.tokenizer.convert_ids_to_tokens(words.first_ids)
        return [
            words.spans[index].spaced or piece.startswith(mark)
            for index, piece in zip(words.indices, pieces, strict=True)
        ]

    def _forbid(self, changes: Tensor, words: list[str]) -> None:
        """Never the word itself; with a cased vocabulary nothing that is written otherwise."""
        for row, word in enumerate(words):
            same = self._entry_of.get(word.casefold())
            if same:
                changes[row, same] = float("inf")
            pattern = capitalisation(word)
            if self.table.cased and pattern != MIXED:
                other = (self.table.patterns != pattern).to(changes.device)
                changes[row].masked_fill_(other, float("inf"))


class RandomSubstitution(WordSwap):
    """Draws texts in which random words stand for random others.

    Args:
        victim: whose vocabulary the words are from, as for SAME's token mutation.
        rate: share of the words that change, 3 at least.
        most: words that change at most, whatever the rate; None is no such bound.
    """

    def __init__(self, victim: Victim[Any], *, rate: float, most: int | None = None) -> None:
        super().__init__()
        self.rate = rate
        self.most = most
        self.victim = victim
        self.table = WordTable.of(victim.tokenizer, size=len(victim.embedding))

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
        return self.table.written(new, word)

    def _get_transformations(
        self, current_text: AttackedText, indices_to_modify: set[int]
    ) -> list[AttackedText]:
        raise NotImplementedError("RandomSearch draws whole texts")


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
                written_like(word, current_text.words[index]),
            )
            for index in sorted(indices_to_modify)
            for word in self.source.substitutes(current_text.words[index], self.count)
        ]


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
    """The words of a text, for a search on a decoder, as SAME changes a classifier's input.

    Words give way to whole words of the vocabulary; stop-words stay, no word changes twice, and at
    most max(3, ceil(rate * words)) words change.

    Args:
        victim: gives gradients and vocabulary.
        loss: to be lowered.
        rate: share of the words that may change, 3 at least.
        top_n: candidates per text.
    """

    unit = "words"

    def __init__(self, victim: Victim[Any], loss: Loss, *, rate: float, top_n: int) -> None:
        self.rate = rate
        self._mutation = TokenMutation(victim, loss, top_n=top_n)
        self._random = RandomSubstitution(victim, rate=rate)
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
