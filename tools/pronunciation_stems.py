"""Groups of words that are inflections of one another, by spelling alone.

Two words belong together when one is the other with an ending of :data:`ENDINGS`, spelled by one
of English's rules (walk-ed, bak-ed, stopp-ed, cri-ed, gent-ly), or when both are so made from a
stem that is no word of its own (*kowalski's*, *kowalskis*). Grouping is transitive and looks at
no pronunciation, so it joins too much (*but*, *butter*) rather
than too little.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

ENDINGS = (
    *("s", "es", "'", "'s", "s'", "es'", "'d", "'ll", "'ve", "'re", "n't"),
    *("d", "ed", "eds", "ing", "ings", "in'"),
    *("r", "er", "ers", "er's", "ers'", "st", "est", "or", "ors"),
    *("y", "ly", "ness", "nesses", "ful", "less", "able", "ment", "ments"),
)
"""Inflections, and the derivations that keep a word's sound."""

SHORTEST_STEM = 4
"""Letters of a stem that is no word; shorter ones (*br* in *bred*, *bring*) are chance."""

_VOWELS = frozenset("aeiou")


def groups(words: Sequence[str]) -> list[int]:
    """Give every word the index of its group's first member.

    Args:
        words: distinct, in lower case.

    Returns:
        One representative index per word; equal numbers mean the same group.
    """
    places = {word: index for index, word in enumerate(words)}
    parents = list(range(len(words)))

    def root(index: int) -> int:
        while parents[index] != index:
            parents[index] = parents[parents[index]]
            index = parents[index]
        return index

    # A stem that is no word stands for the first word that was made from it.
    made_from: dict[str, int] = {}
    for index, word in enumerate(words):
        for stem in stems(word):
            other = places.get(stem)
            if other is None and len(stem) >= SHORTEST_STEM:
                other = made_from.setdefault(stem, index)
            if other is not None:
                one, two = sorted((root(index), root(other)))
                parents[two] = one
    return [root(index) for index in range(len(words))]


def stems(word: str) -> Iterator[str]:
    """What the word may be an inflection of, whether or not such a word exists.

    ``stopped`` gives ``stopp`` and ``stop``; ``baked`` ``bak`` and ``bake``; ``cried`` ``cri``,
    ``crie`` and ``cry``; and the word itself without its apostrophes where it has any.
    """
    plain = word.replace("'", "")
    if plain != word and plain:
        yield plain
    for ending in ENDINGS:
        stem = word.removesuffix(ending)
        if stem == word or not stem.strip("'"):
            continue
        yield stem
        if stem.endswith("i"):
            yield stem[:-1] + "y"
        # A final e is dropped before a vowel, and the l of -le merges with -ly.
        if ending[0] in _VOWELS | {"y"}:
            yield stem + "e"
        if ending == "ly":
            yield stem + "le"
        if len(stem) > 2 and stem[-1] == stem[-2] and ending[0] in _VOWELS | {"y"}:
            yield stem[:-1]
        if stem.endswith("k") and stem[-2:-1] == "c":
            yield stem[:-1]  # panicked
