"""Changing letters: SAME's misspellings of the words that matter, and a decoder's single words."""

from __future__ import annotations

import math
import random
import string
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from textattack.shared import AttackedText
from textattack.transformations import WordSwap
from torch import Tensor

from eexit_cli.attacks.saliency import WordGradients, word_gradients
from eexit_cli.attacks.victim import Loss, TextGradient, Victim
from eexit_cli.attacks.word_mutation import ESTIMATE
from eexit_cli.attacks.words import is_one_word, swap_word
from eexit_cli.core.edits import edit_distance
from eexit_cli.core.seed import stream

ALPHABET = string.ascii_lowercase
CRITICAL_WORDS = 10
"""Words that are mutated: those with the largest gradient."""

# Letters of other scripts that most fonts draw like Latin ones (Unicode's confusables). TextAttack
# has such a table too, but its published package lacks the file that it reads.
LOOK_ALIKES = dict(
    zip(
        "abcdefghijklmnopqrstuvwxyzABCEHIJKMNOPSTXYZ",
        "аЬсԁеƒɡհіјκӏмոорԛгѕтυνԝхуᴢАВСЕНІЈКМΝОРЅТХΥΖ",
        strict=True,
    )
)


class CharacterMutation(WordSwap):
    """Misspell a critical word: swap neighbours, insert, delete, or use a look-alike letter.

    The ten replaceable words with the largest gradient norm are mutated in every such way and
    ``top_n`` mutants are drawn. Their order is the first-order estimate of the change in the loss,
    so that the promising ones are scored first. The draw depends on the sample's seed and the
    text alone.

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

    def _get_transformations(
        self, current_text: AttackedText, indices_to_modify: set[int]
    ) -> list[AttackedText]:
        words = word_gradients(self.victim, self.loss, current_text, indices_to_modify)
        if words is None:
            return []
        words = words.select(critical_rows(words))
        draw = stream(self.victim.seed, "character mutation", current_text.text)
        mutants = [
            (row, mutant)
            for row, index in enumerate(words.indices)
            for mutant in self.mutants(current_text.words[index], draw)
        ]
        chosen = draw.sample(mutants, min(self.top_n, len(mutants)))
        changes = self._estimated_changes(words, chosen)
        return [
            swap_word(
                current_text,
                words.spans[words.indices[row]],
                words.indices[row],
                mutant,
                **{ESTIMATE: change},
            )
            for change, (row, mutant) in sorted(zip(changes, chosen, strict=True))
        ]

    def mutants(self, word: str, draw: random.Random) -> list[str]:
        """Every misspelling of a word, each one edit away; none for one letter."""
        if len(word) < 2:
            return []
        return [
            mutant
            for mutant in dict.fromkeys(misspellings(word, draw))
            if mutant.casefold() != word.casefold() and is_one_word(mutant)
        ]

    def _estimated_changes(
        self, words: WordGradients, mutants: list[tuple[int, str]]
    ) -> list[float]:
        if not mutants:
            return []
        table = self.victim.embedding
        spellings = self.victim.tokenizer(
            [" " + mutant for _, mutant in mutants], add_special_tokens=False
        )["input_ids"]
        changes = []
        for (row, _), pieces in zip(mutants, spellings, strict=True):
            if not pieces:
                changes.append(0.0)
                continue
            moved = table[pieces].mean(dim=0) - words.embeddings[row]
            changes.append(float(moved @ words.gradients[row]))
        return changes


def misspellings(word: str, draw: random.Random) -> list[str]:
    """All words one edit away, as they come: some twice, some no word, some the word itself."""
    places = range(len(word))
    found = [word[:i] + word[i + 1] + word[i] + word[i + 2 :] for i in places if i + 1 < len(word)]
    found += [word[:i] + draw.choice(string.ascii_letters) + word[i:] for i in places]
    found += [word[:i] + word[i + 1 :] for i in places]
    found += [
        word[:i] + LOOK_ALIKES[word[i]] + word[i + 1 :] for i in places if word[i] in LOOK_ALIKES
    ]
    return found


def critical_rows(words: WordGradients, count: int = CRITICAL_WORDS) -> list[int]:
    """Rows of the words with the largest gradient norm, in the order of the text."""
    norms = words.gradients.norm(dim=1)
    best = norms.topk(min(count, len(norms))).indices.tolist()
    return sorted(best)


@dataclass(frozen=True)
class Spelling:
    """A word on its way.

    Attributes:
        text: the word.
        fresh: True for each character that this attack wrote. Shape: [characters].
        changes: so far.
    """

    text: str
    fresh: tuple[bool, ...]
    changes: int = 0


def letters_of(text: str) -> int:
    """Characters that are letters, of whatever alphabet."""
    return sum(character.isalpha() for character in text)


def most_letters(text: str, rate: float) -> int:
    """max(1, floor(rate * letters)): how many letters of a word may change."""
    # 0.3 * 10 is 3.0000000000000004 or 2.9999999999999996 for some rates: neither may matter.
    return max(1, math.floor(rate * letters_of(text) + 1e-9))


class LetterEditor:
    """The letters of one word, for a search on a decoder: one edit at a time.

    For a task such as ``pronunciation`` the input is one word, so its letters are what can change.
    The result stays a plain word: letters in the case of those around them, apostrophes and
    whatever else is no letter where they were, and no part of the word without a letter. No letter
    changes twice, so the edit distance to the original is never more than the number of changes.

    Args:
        victim: whose tokenizer and embeddings the estimates are made with.
        loss: to be lowered.
        rate: share of the letters that may change.
    """

    unit = "letters"

    def __init__(self, victim: Victim[Any], loss: Loss, *, rate: float) -> None:
        self.victim = victim
        self.loss = loss
        self.rate = rate

    def begin(self, text: str) -> Spelling:
        return Spelling(text, (False,) * len(text))

    def count(self, text: str) -> int:
        """Units of an input."""
        return letters_of(text)

    def most_changes(self, text: str) -> int:
        return most_letters(text, self.rate)

    def can_change(self, draft: Spelling, original: str) -> bool:
        if draft.changes >= self.most_changes(original):
            return False
        return next(single_edits(draft), None) is not None

    def candidates(self, draft: Spelling, original: str, top_n: int) -> list[Spelling]:
        """The ``top_n`` edits that promise most, the most promising first.

        Substitutions, insertions and deletions are each ranked by the first-order estimate of the
        loss, and taken in turn: what an estimate is worth differs between them. The draft's
        gradient must be known, or affordable.
        """
        found = self.victim.gradients([draft.text], self.loss)
        if not found:
            return []
        edits = {edit.text: edit for edit in single_edits(draft)}
        edits.pop(original, None)
        changes = self._estimated_changes(found[0], list(edits))
        kinds: dict[int, list[tuple[float, Spelling]]] = {}
        for change, edit in zip(changes, edits.values(), strict=True):
            kinds.setdefault(len(edit.text) - len(draft.text), []).append((change, edit))
        turns = [
            (place / len(found_of_kind), change, edit)
            for found_of_kind in kinds.values()
            for place, (change, edit) in enumerate(sorted(found_of_kind, key=lambda pair: pair[0]))
        ]
        return [edit for _, _, edit in sorted(turns, key=lambda turn: turn[:2])[:top_n]]

    def draw(self, original: str, chance: random.Random) -> Spelling:
        """As many random edits as may be, in random places."""
        draft = self.begin(original)
        for _ in range(self.most_changes(original)):
            edits = list(single_edits(draft))
            if not edits:
                break
            draft = chance.choice(edits)
        return draft

    def changes(self, original: str, perturbed: str) -> list[dict[str, Any]]:
        """What was done, letter by letter, as few as explain it."""
        return changed_letters(original, perturbed)

    def _estimated_changes(self, gradient: TextGradient, texts: Sequence[str]) -> list[float]:
        prefix = self.victim.prefix
        encoded = self.victim.batcher.encoded([prefix + text for text in texts])
        spelled = [each.ids for each in encoded]
        return estimated_changes(gradient, self.victim.embedding, spelled)


def estimated_changes(
    gradient: TextGradient, table: Tensor, spelled: Sequence[Sequence[int]]
) -> list[float]:
    """First-order change of the loss when an input is respelled.

    Tokens that stand for others count (E_new - E_old) . gradient at their place. Where tokens are
    added or taken away, those that differ count with their own place's gradient if they leave, and
    with the mean one of the places around if they come.

    Args:
        gradient: of the input as it is.
        table: word embeddings. Shape: [vocabulary, d].
        spelled: ids of each new spelling, special tokens included.
    """
    old = gradient.input_ids.tolist()
    used = sorted({*old, *(index for ids in spelled for index in ids)})
    column = {index: place for place, index in enumerate(used)}
    chosen = table[torch.tensor(used, device=table.device)].to(gradient.gradient.dtype)
    # What each token of the spellings would add at each place. Shape: [tokens, used]
    product = (gradient.gradient @ chosen.T).tolist()
    changes = []
    for new in spelled:
        same = min(len(old), len(new))
        start = next((i for i in range(same) if old[i] != new[i]), same)
        end = next((i for i in range(same - start) if old[-1 - i] != new[-1 - i]), same - start)
        gone = range(start, len(old) - end)
        come = new[start : len(new) - end]
        change = -sum(product[place][column[old[place]]] for place in gone)
        if len(come) == len(gone):
            change += sum(
                product[place][column[index]] for place, index in zip(gone, come, strict=True)
            )
        else:
            around = gone or range(max(0, start - 1), min(len(old), start + 1))
            for index in come:
                change += sum(product[place][column[index]] for place in around) / len(around)
        changes.append(change)
    return changes


def single_edits(draft: Spelling) -> Iterator[Spelling]:
    """Every word that is one change away: substitutions, insertions, deletions, in that order."""
    text, fresh = draft.text, draft.fresh
    changes = draft.changes + 1
    alphabet = ALPHABET
    everything_upper = letters_of(text) > 1 and text.isupper()
    for place, letter in enumerate(text):
        if not _may_change(letter) or fresh[place]:
            continue
        for other in alphabet:
            new = other.upper() if letter.isupper() else other
            if new != letter:
                yield Spelling(
                    text[:place] + new + text[place + 1 :],
                    (*fresh[:place], True, *fresh[place + 1 :]),
                    changes,
                )
    for gap in range(len(text) + 1):
        # Beside a letter, so that nothing grows out of white space or an apostrophe.
        if not any(_may_change(neighbour) for neighbour in text[max(0, gap - 1) : gap + 1]):
            continue
        for other in alphabet:
            new = other.upper() if everything_upper else other
            yield Spelling(
                text[:gap] + new + text[gap:], (*fresh[:gap], True, *fresh[gap:]), changes
            )
    for place, letter in enumerate(text):
        if not _may_change(letter) or fresh[place]:
            continue
        # The last letter of its part stays.
        if any(
            character.isalpha() for character in (text[place - 1 : place] + text[place + 1 :][:1])
        ):
            yield Spelling(
                text[:place] + text[place + 1 :], (*fresh[:place], *fresh[place + 1 :]), changes
            )


def _may_change(character: str) -> bool:
    return character.isascii() and character.isalpha()


def changed_letters(original: str, perturbed: str) -> list[dict[str, Any]]:
    """A shortest way from one word to the other.

    Returns:
        ``{"position", "from", "to"}`` per change, in their order. An inserted letter has an empty
        ``from`` and its place in the perturbed word, a deleted one an empty ``to`` and its place
        in the original; a substituted one its place in the original.
    """
    found: list[dict[str, Any]] = []
    i = j = 0
    while i < len(original) or j < len(perturbed):
        here, there = original[i:], perturbed[j:]
        if here[:1] == there[:1]:
            i, j = i + 1, j + 1
            continue
        left = edit_distance(here, there) - 1
        if here and there and edit_distance(here[1:], there[1:]) == left:
            found.append({"position": i, "from": here[0], "to": there[0]})
            i, j = i + 1, j + 1
        elif here and edit_distance(here[1:], there) == left:
            found.append({"position": i, "from": here[0], "to": ""})
            i += 1
        else:
            found.append({"position": j, "from": "", "to": there[0]})
            j += 1
    return found
