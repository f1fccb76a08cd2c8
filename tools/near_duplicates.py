"""Groups of texts that say the same thing, so that a split can keep each group on one side.

Two texts belong together when, after normalisation, they

- are equal,
- use nearly the same words (Jaccard index of their word sets at least ``jaccard``),
- or share a passage: one holds the other whole, or both hold the same ``run`` words in a row
  (two excerpts of one review overlap like that).

Grouping is transitive. Candidates come from inverted indexes, so ten thousand sentences take
seconds.
"""

from __future__ import annotations

import math
import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence

_WORD = re.compile(r"[^\W_]+")
_SHORTEST_PASSAGE = 4
"""A text of fewer words ("lacks depth") is found inside others by chance."""


def words(text: str) -> tuple[str, ...]:
    """The words of a text without case, accents, punctuation or spacing."""
    decomposed = unicodedata.normalize("NFKD", text)
    plain = "".join(mark for mark in decomposed if not unicodedata.combining(mark)).casefold()
    return tuple(_WORD.findall(plain.replace("'", "").replace("’", "")))


def normalise(text: str) -> str:
    """:func:`words`, joined by single spaces: what two spellings of one text have in common."""
    return " ".join(words(text))


def group(texts: Sequence[str], *, jaccard: float = 0.8, run: int = 8) -> list[int]:
    """Give every text the index of its group's first member.

    Args:
        texts: the texts.
        jaccard: word sets at least this similar make a pair, in (0, 1].
        run: this many equal words in a row make a pair.

    Returns:
        One representative index per text; equal numbers mean the same group.
    """
    tokens = [words(text) for text in texts]
    parents = list(range(len(texts)))

    def root(index: int) -> int:
        while parents[index] != index:
            parents[index] = parents[parents[index]]
            index = parents[index]
        return index

    for pairs in (_equal(tokens), _similar(tokens, jaccard), _contained(tokens), _run(tokens, run)):
        for left, right in pairs:
            first, second = sorted((root(left), root(right)))
            parents[second] = first
    return [root(index) for index in range(len(texts))]


def _equal(tokens: Sequence[tuple[str, ...]]) -> Iterator[tuple[int, int]]:
    seen: dict[tuple[str, ...], int] = {}
    for index, sequence in enumerate(tokens):
        yield seen.setdefault(sequence, index), index


def _similar(tokens: Sequence[tuple[str, ...]], jaccard: float) -> Iterator[tuple[int, int]]:
    """Pairs of word sets with a Jaccard index of at least ``jaccard``.

    Prefix filtering: two sets that similar must share one of their rarest
    ``size - ceil(jaccard * size) + 1`` words, so only those are indexed.
    """
    sets = [frozenset(sequence) for sequence in tokens]
    frequency = Counter(word for members in sets for word in members)
    index: dict[str, list[int]] = defaultdict(list)
    for number, members in enumerate(sets):
        rarest = sorted(members, key=lambda word: (frequency[word], word))
        prefix = rarest[: len(rarest) - math.ceil(jaccard * len(rarest) - 1e-9) + 1]
        for other in {other for word in prefix for other in index[word]}:
            shared = len(members & sets[other])
            if shared >= jaccard * (len(members) + len(sets[other]) - shared) - 1e-9:
                yield other, number
        for word in prefix:
            index[word].append(number)


def _contained(tokens: Sequence[tuple[str, ...]]) -> Iterator[tuple[int, int]]:
    """Pairs of which one is, word by word, a passage of the other."""
    size = _SHORTEST_PASSAGE
    places: dict[tuple[str, ...], list[tuple[int, int]]] = defaultdict(list)
    for number, sequence in enumerate(tokens):
        for start in range(len(sequence) - size + 1):
            places[sequence[start : start + size]].append((number, start))
    for number, sequence in enumerate(tokens):
        if len(sequence) < size:
            continue
        for other, start in places[sequence[:size]]:
            if other != number and tokens[other][start : start + len(sequence)] == sequence:
                yield number, other


def _run(tokens: Sequence[tuple[str, ...]], run: int) -> Iterator[tuple[int, int]]:
    """Pairs that share ``run`` words in a row."""
    seen: dict[tuple[str, ...], int] = {}
    for number, sequence in enumerate(tokens):
        for start in range(len(sequence) - run + 1):
            yield seen.setdefault(sequence[start : start + run], number), number
