"""Letter edits: what a word may become, however it is edited."""

from __future__ import annotations

import itertools
import random
import re
import string

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from eexit_cli.attacks.letter_mutation import (
    LetterEditor,
    Spelling,
    changed_letters,
    estimated_changes,
    most_letters,
    single_edits,
)
from eexit_cli.attacks.victim import TextGradient
from eexit_cli.core.edits import edit_distance
from eexit_cli.ui.screens.attack import highlighted_letters

PLAIN = st.from_regex(r"[a-z]{1,6}('[a-z]{1,3})?", fullmatch=True)
ANY_WORD = st.text(string.ascii_letters + "'-é3", min_size=1, max_size=9)


def editor(rate: float) -> LetterEditor:
    return LetterEditor(None, None, rate=rate)  # type: ignore[arg-type]


def others(word: str) -> str:
    return re.sub(r"[A-Za-z]", "", word)


@given(word=PLAIN, rate=st.floats(0.01, 1), seed=st.integers(0, 10**6))
def test_any_draw_stays_a_plain_word_within_the_budget(word: str, rate: float, seed: int) -> None:
    draft = editor(rate).draw(word, random.Random(seed))
    assert re.fullmatch(r"[a-z]+('[a-z]+)?", draft.text)
    assert ("'" in draft.text) == ("'" in word)
    letters = len(word.replace("'", ""))
    assert edit_distance(word, draft.text) <= max(1, int(rate * letters + 1e-9))
    assert draft.changes <= max(1, int(rate * letters + 1e-9))


@given(word=ANY_WORD, steps=st.lists(st.integers(0, 10**6), max_size=4))
def test_edits_keep_what_is_no_letter_and_never_touch_a_place_twice(
    word: str, steps: list[int]
) -> None:
    draft = Spelling(word, (False,) * len(word))
    for step in steps:
        edits = list(single_edits(draft))
        if not edits:
            break
        new = edits[step % len(edits)]
        assert edit_distance(draft.text, new.text) == 1
        assert len(new.fresh) == len(new.text)
        assert others(new.text) == others(word)
        # What was written before is still there, in its order.
        written = [c for c, fresh in zip(draft.text, draft.fresh, strict=True) if fresh]
        kept = [c for c, fresh in zip(new.text, new.fresh, strict=True) if fresh]
        assert len(kept) - len(written) in (0, 1)
        draft = new
    assert edit_distance(word, draft.text) <= draft.changes


def test_every_single_edit_is_there_once_and_no_other() -> None:
    found = {draft.text for draft in single_edits(Spelling("it's", (False,) * 4))}
    expected = set()
    for place, new in itertools.product((0, 1, 3), string.ascii_lowercase):
        expected.add("it's"[:place] + new + "it's"[place + 1 :])
    for gap, new in itertools.product(range(5), string.ascii_lowercase):
        expected.add("it's"[:gap] + new + "it's"[gap:])
    expected |= {"t's", "i's"}  # "it'" would leave a part without letters
    assert found == expected - {"it's"}


@pytest.mark.parametrize(
    ("word", "rate", "most"),
    [("a", 0.3, 1), ("queue", 0.3, 1), ("rhythms", 0.3, 2), ("ten letters", 0.3, 3),
     ("thoroughly", 0.3, 3), ("don't", 0.5, 2), ("abcdefghijklmnopqrst", 0.05, 1)],
)  # fmt: skip
def test_how_many_letters_may_change(word: str, rate: float, most: int) -> None:
    assert most_letters(word, rate) == most


def test_capitals_stay_where_they_were() -> None:
    texts = [draft.text for draft in single_edits(Spelling("Abc", (False,) * 3))]
    substituted = [text for text in texts if len(text) == 3 and text[1:] == "bc"]
    assert substituted
    assert all(text[0].isupper() for text in substituted)
    upper = [draft.text for draft in single_edits(Spelling("NASA", (False,) * 4))]
    assert all(text.isupper() for text in upper)


@given(one=ANY_WORD, other=ANY_WORD)
@settings(max_examples=60)
def test_changes_are_as_few_as_can_be_and_lead_to_the_word(one: str, other: str) -> None:
    changes = changed_letters(one, other)
    assert len(changes) == edit_distance(one, other)
    # Carried out from the right, each at its own place, they give the other word back.
    built, source = "", 0
    for change in changes:
        if change["from"]:
            built += one[source : change["position"]] + change["to"]
            source = change["position"] + 1
        else:
            short = change["position"] - len(built)
            built += one[source : source + short] + change["to"]
            source += short
    assert built + one[source:] == other


@given(one=PLAIN, other=PLAIN)
@settings(max_examples=60)
def test_the_screen_marks_exactly_what_changed(one: str, other: str) -> None:
    changes = changed_letters(one, other)
    for text, key in ((one, "from"), (other, "to")):
        drawn = highlighted_letters(text, changes, key, "red", brackets=True).plain
        assert drawn.replace("[", "").replace("]", "") == text
        assert re.findall(r"\[(.)\]", drawn) == [change[key] for change in changes if change[key]]


def test_estimates_are_first_order_changes_of_the_tokens_that_differ() -> None:
    generator = torch.Generator().manual_seed(1)
    table = torch.randn(10, 4, generator=generator)
    gradient = torch.randn(4, 4, generator=generator)
    old = [3, 4, 5, 1]
    found = TextGradient(torch.tensor(old), gradient, [], [], 0.0)

    def dot(place: int, index: int) -> float:
        return float(gradient[place] @ table[index])

    substituted, swapped, deleted, inserted, appended, same = estimated_changes(
        found,
        table,
        [[3, 7, 5, 1], [4, 3, 5, 1], [3, 5, 1], [3, 8, 4, 5, 1], [3, 4, 5, 9, 1], old],
    )
    assert substituted == pytest.approx(dot(1, 7) - dot(1, 4), abs=1e-5)
    swap = dot(0, 4) - dot(0, 3) + dot(1, 3) - dot(1, 4)
    assert swapped == pytest.approx(swap, abs=1e-5)
    assert deleted == pytest.approx(-dot(1, 4), abs=1e-5)
    assert inserted == pytest.approx((dot(0, 8) + dot(1, 8)) / 2, abs=1e-5)
    assert appended == pytest.approx((dot(2, 9) + dot(3, 9)) / 2, abs=1e-5)
    assert same == 0
