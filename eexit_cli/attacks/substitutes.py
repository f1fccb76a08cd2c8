"""Words that may stand for a word: from the victim's own vocabulary, or from WordNet.

The originals take neighbours in counter-fitted word vectors, which come by download only. What is
here works with no network. Add a source: a class with ``substitutes(word, count)`` and a line in
``attacks.SUBSTITUTES``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

import torch

from eexit_cli.attacks.vocabulary import WordTable
from eexit_cli.core.errors import MissingArtifactError

if TYPE_CHECKING:
    from eexit_cli.attacks.encoder_victim import EncoderVictim

LEAST_COSINE = 0.35
"""Neighbours below it are other things altogether, in the embeddings of the encoders looked at."""


class SubstituteSource(Protocol):
    """Where candidates come from."""

    def substitutes(self, word: str, count: int) -> list[str]:
        """Up to ``count`` words that may stand for ``word``, the nearest first, never itself."""
        ...


class EmbeddingNeighbours:
    """Nearest whole words by cosine in the victim's input embeddings; needs nothing else.

    They hold inflections and synonyms, and now and then an antonym ("great" has "terrible" in
    twelfth place), since what stands in the same contexts lies near. Words of several pieces have
    none: the mean of their pieces means nothing.
    """

    def __init__(self, victim: EncoderVictim) -> None:
        table = victim.embedding
        self._words = WordTable.of(victim.tokenizer, size=len(table))
        # Shape: [words, embedding]
        entries = table[self._words.spaced_ids.to(table.device)].float()
        self._directions = torch.nn.functional.normalize(entries, dim=1)
        self._entry_of: dict[str, int] = {}
        for entry, word in enumerate(self._words.folded):
            self._entry_of.setdefault(word, entry)
        self._found: dict[tuple[str, int], list[str]] = {}

    def substitutes(self, word: str, count: int) -> list[str]:
        folded = word.casefold()
        entry = self._entry_of.get(folded)
        if entry is None:
            return []
        if (folded, count) not in self._found:
            self._found[folded, count] = self._nearest(entry, count)
        return self._found[folded, count]

    def _nearest(self, entry: int, count: int) -> list[str]:
        cosines = self._directions @ self._directions[entry]
        # A cased vocabulary may hold each neighbour, and the word itself, in three spellings.
        values, places = cosines.topk(min(3 * (count + 1), len(cosines)))
        found: dict[str, None] = {}
        for cosine, place in zip(values.tolist(), places.tolist(), strict=True):
            if cosine < LEAST_COSINE:
                break
            if self._words.folded[place] != self._words.folded[entry]:
                found[self._words.folded[place]] = None
        return list(found)[:count]


class WordNetSynonyms:
    """Lemmas of the word's synsets, the most frequent sense first.

    Raises:
        MissingArtifactError: WordNet is not on this machine.
    """

    def __init__(self, victim: EncoderVictim) -> None:
        from eexit_cli.attacks.wordnet_env import HOW_TO_GET, offer_wordnet, wordnet_is_there

        if not wordnet_is_there():
            raise MissingArtifactError(
                "Substitutes from WordNet need its database, which is not here",
                hint=f"Get {HOW_TO_GET}, or leave out --substitutes wordnet",
            )
        offer_wordnet()
        from nltk.corpus import wordnet

        self._wordnet = wordnet

    def substitutes(self, word: str, count: int) -> list[str]:
        # TextAttack loads with it, which the catalog's entry alone must not.
        from eexit_cli.attacks.words import is_one_word

        folded = word.casefold()
        found: dict[str, None] = {}
        for synset in self._wordnet.synsets(folded):
            for lemma in synset.lemma_names():
                if lemma.casefold() != folded and is_one_word(lemma) and "_" not in lemma:
                    found[lemma.casefold()] = None
        return list(found)[:count]
