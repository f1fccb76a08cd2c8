from __future__ import annotations

from itertools import combinations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from near_duplicates import group, normalise, words


def in_one_group(first: str, second: str, **options: float) -> bool:
    roots = group([first, "something else entirely different here", second], **options)
    return roots[0] == roots[2]


@pytest.mark.parametrize(
    ("first", "second", "together"),
    [
        ("A Pretentious mess!", "a pretentious mess.", True),
        ("Touché!", "touche", True),
        ("don't look", "don’t look", True),
        ("don't look", "dont look", True),
        ("a b c d e f g h i j", "j i h g f e d c b a", True),
        ("a b c d e f g h i j", "a b c d e f g h i k", True),
        ("a b c d e f", "a b c d x y", False),
        ("one of the worst movies", "This is one of the worst movies ever made, friends.", True),
        ("lacks depth", "It lacks depth and charm.", False),
        ("x1 x2 x3 a b c d e f g h x4", "y1 a b c d e f g h y2 y3 y4 y5 y6", True),
        ("x1 x2 x3 a b c d e f g x4 x5", "y1 a b c d e f g y2 y3 y4 y5 y6", False),
        ("good film", "bad film", False),
    ],
)
def test_pairs(first, second, together):
    assert in_one_group(first, second) is together


def test_grouping_is_transitive():
    chain = ["a b c d e f g h i j", "a b c d e f g h i k", "a b c d e f g h l k"]
    assert len(set(group(chain, run=99))) == 1


def brute_force(texts: list[str], jaccard: float, run: int) -> list[int]:
    """Every pair, compared as the docstring defines it, then closed by relabelling."""
    tokens = [words(text) for text in texts]

    def shares_run(one: tuple[str, ...], other: tuple[str, ...], size: int) -> bool:
        runs = {one[start : start + size] for start in range(len(one) - size + 1)}
        return any(other[start : start + size] in runs for start in range(len(other) - size + 1))

    def alike(one: tuple[str, ...], other: tuple[str, ...]) -> bool:
        if one == other:
            return True
        union = set(one) | set(other)
        if set(one) and set(other) and len(set(one) & set(other)) >= jaccard * len(union) - 1e-9:
            return True
        short = min(one, other, key=len)
        if len(short) >= 4 and shares_run(one, other, len(short)):
            return True
        return shares_run(one, other, run)

    roots = list(range(len(texts)))
    for left, right in combinations(range(len(texts)), 2):
        if alike(tokens[left], tokens[right]):
            low, high = sorted((roots[left], roots[right]))
            roots = [low if root == high else root for root in roots]
    return roots


texts = st.lists(
    st.lists(st.sampled_from("abcdefg"), min_size=0, max_size=9).map(" ".join), max_size=12
)


@given(texts, st.sampled_from([0.5, 0.6, 0.8, 1.0]), st.integers(2, 8))
def test_indexes_find_exactly_what_comparing_all_pairs_finds(found, jaccard, run):
    assert group(found, jaccard=jaccard, run=run) == brute_force(found, jaccard, run)


@given(st.text())
def test_normalising_twice_changes_nothing(text):
    assert normalise(normalise(text)) == normalise(text)
