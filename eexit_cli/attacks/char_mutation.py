"""SAME's character mutation: small misspellings of the words that matter most."""

from __future__ import annotations

import random
import string

from textattack.shared import AttackedText
from textattack.transformations import WordSwap

from eexit_cli.attacks.encoder_victim import EncoderVictim
from eexit_cli.attacks.saliency import WordGradients, word_gradients
from eexit_cli.attacks.token_mutation import ESTIMATE
from eexit_cli.attacks.victim import Loss
from eexit_cli.attacks.words import is_one_word, swap_word
from eexit_cli.core.seed import stream

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

    def __init__(self, victim: EncoderVictim, loss: Loss, *, top_n: int) -> None:
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

    def extra_repr_keys(self) -> list[str]:
        return ["top_n"]


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
