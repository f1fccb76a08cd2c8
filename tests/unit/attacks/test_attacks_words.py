"""Words, their tokens, and the table of whole words of a vocabulary."""

from __future__ import annotations

from collections import OrderedDict

import pytest
from attacks_tiny import SPECIAL, TEXTS, TOKENIZERS, WORDS, byte_bpe, sentencepiece, wordpiece
from hypothesis import given, settings
from hypothesis import strategies as st
from textattack.shared import AttackedText

from eexit_cli.attacks.vocabulary import (
    LOWER,
    MIXED,
    TITLE,
    UPPER,
    WordTable,
    capitalisation,
    written_like,
)
from eexit_cli.attacks.words import columns_of, swap_word, tokens_of_words, word_spans

TEXT = st.text(alphabet="ab cD'-.,é*&\n", max_size=40)


@given(TEXT, TEXT)
@settings(max_examples=150, deadline=None)
def test_spans_hold_their_words_in_order(first: str, second: str) -> None:
    text = AttackedText(OrderedDict(premise=first, hypothesis=second))
    spans = word_spans(text)
    columns = columns_of(text)
    found = [columns[span.column][span.start : span.end] for span in spans]
    assert found == text.words
    places = [(span.column, span.start) for span in spans]
    assert places == sorted(places)


@pytest.mark.parametrize("text", TEXTS)
def test_swap_is_textattacks_own_replacement(text: str) -> None:
    original = AttackedText(text)
    for index, span in enumerate(word_spans(original)):
        ours = swap_word(original, span, index, "zebra")
        theirs = original.replace_word_at_index(index, "zebra")
        assert ours.text == theirs.text
        assert ours.words == theirs.words
        for key in ("modified_indices", "newly_modified_indices"):
            assert ours.attack_attrs[key] == theirs.attack_attrs[key]
        again = swap_word(ours, word_spans(ours)[0], 0, "otter")
        assert again.attack_attrs["modified_indices"] == {0, index}
        assert list(again.attack_attrs["original_index_map"]) == list(range(len(original.words)))


def test_swap_in_a_pair_changes_one_column() -> None:
    text = AttackedText(OrderedDict(premise="the film", hypothesis="the film"))
    swapped = swap_word(text, word_spans(text)[3], 3, "plot")
    assert swapped.tokenizer_input == ("the film", "the plot")


@pytest.mark.parametrize("make", TOKENIZERS.values(), ids=TOKENIZERS)
@pytest.mark.parametrize("text", TEXTS)
def test_tokens_of_a_word_spell_it(make, text: str) -> None:  # type: ignore[no-untyped-def]
    tokenizer = make()
    attacked = AttackedText(text)
    encoding = tokenizer(text).encodings[0]
    owners = tokens_of_words(word_spans(attacked), encoding.offsets, encoding.sequence_ids)
    assert len(owners) == len(attacked.words)
    for word, tokens in zip(attacked.words, owners, strict=True):
        pieces = tokenizer.convert_ids_to_tokens([encoding.ids[token] for token in tokens])
        spelled = "".join(piece.strip("Ġ▁").removeprefix("##") for piece in pieces)
        assert spelled.lower() == word.lower()


def test_words_cut_off_have_no_tokens() -> None:
    tokenizer = wordpiece()
    text = "film plot actor scene story"
    encoding = tokenizer(text, truncation=True, max_length=4).encodings[0]
    owners = tokens_of_words(
        word_spans(AttackedText(text)), encoding.offsets, encoding.sequence_ids
    )
    assert owners == [[1], [2], [], [], []]


def test_second_text_of_a_pair_has_its_own_tokens() -> None:
    tokenizer = wordpiece()
    encoding = tokenizer("the film", "the plot").encodings[0]
    text = AttackedText(OrderedDict(premise="the film", hypothesis="the plot"))
    owners = tokens_of_words(word_spans(text), encoding.offsets, encoding.sequence_ids)
    assert owners == [[1], [2], [4], [5]]


@pytest.mark.parametrize("make", [wordpiece, sentencepiece])
def test_table_holds_whole_words_only(make) -> None:  # type: ignore[no-untyped-def]
    tokenizer = make()
    table = WordTable.of(tokenizer)
    letters = set("abcdefghijklmnopqrstuvwxyz")
    assert set(WORDS) <= set(table.words)
    # Single letters are words of BERT's vocabulary; sentencepiece has them inside words only.
    extra = letters | {"believ"} if make is wordpiece else set()
    assert set(table.words) <= set(WORDS) | extra
    assert not table.cased
    for word, entry in zip(table.words, table.spaced_ids.tolist(), strict=True):
        assert tokenizer(f"the {word}", add_special_tokens=False)["input_ids"][-1] == entry


def test_special_and_unused_tokens_are_no_words() -> None:
    table = WordTable.of(wordpiece())
    assert not any(word.startswith("[") for word in table.words)
    assert not set(SPECIAL) & set(table.words)


def test_byte_bpe_knows_both_spellings_of_a_word() -> None:
    tokenizer = byte_bpe()
    table = WordTable.of(tokenizer)
    assert table.mark == "Ġ"
    row = table.words.index("film")
    assert tokenizer.convert_ids_to_tokens(int(table.spaced_ids[row])) == "Ġfilm"
    assert tokenizer.convert_ids_to_tokens(int(table.bare_ids[row])) == "film"
    assert tokenizer("film film", add_special_tokens=False)["input_ids"] == [
        int(table.bare_ids[row]),
        int(table.spaced_ids[row]),
    ]


def test_cased_vocabulary_keeps_both_cases() -> None:
    table = WordTable.of(wordpiece(lower_case=False, capitals=True))
    assert table.cased
    assert {"film", "Film"} <= set(table.words)
    # A cased vocabulary behind a tokenizer that lowers: capitals can never be reached.
    lowered = WordTable.of(wordpiece(lower_case=True, capitals=True))
    assert "Film" not in lowered.words


def test_rows_beyond_the_embedding_are_left_out() -> None:
    tokenizer = wordpiece()
    table = WordTable.of(tokenizer, size=20)
    assert int(table.spaced_ids.max()) < 20


@pytest.mark.parametrize(
    ("word", "pattern", "written"),
    [
        ("film", LOWER, "plot"),
        ("Film", TITLE, "Plot"),
        ("FILM", UPPER, "PLOT"),
        ("A", TITLE, "Plot"),
        ("McFilm", MIXED, "plot"),
    ],
)
def test_capitals_are_kept(word: str, pattern: int, written: str) -> None:
    assert capitalisation(word) == pattern
    assert written_like("plot", word) == written
