"""Words of an attacked text: where they are, which tokens are theirs, and swapping one."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from difflib import SequenceMatcher
from typing import Any

from textattack.shared import AttackedText
from textattack.shared.utils import words_from_text

TextInput = str | tuple[str, ...]
"""``AttackedText.tokenizer_input``: one text, or the columns of a pair."""


@dataclass(frozen=True)
class WordSpan:
    """Where a word stands.

    Attributes:
        column: 0, or 1 for the second text of a pair.
        start, end: characters in that column.
        spaced: white space stands before it; tokenizers that mark word starts write it then with
            their mark.
    """

    column: int
    start: int
    end: int
    spaced: bool


def word_spans(text: AttackedText) -> list[WordSpan]:
    """The span of each of ``text.words``, in their order.

    TextAttack lists the words of all columns in one sequence; each is a literal part of its
    column, so searching on from the last one finds them.
    """
    columns = columns_of(text)
    spans: list[WordSpan] = []
    column = cursor = 0
    for word in text.words:
        start = columns[column].find(word, cursor)
        while start < 0 and column + 1 < len(columns):
            column, cursor = column + 1, 0
            start = columns[column].find(word)
        if start < 0:
            raise ValueError(f"word {word!r} is not in its text {text.text!r}")
        cursor = start + len(word)
        spaced = start > 0 and columns[column][start - 1].isspace()
        spans.append(WordSpan(column, start, cursor, spaced))
    return spans


def columns_of(text: AttackedText) -> tuple[str, ...]:
    """The text's columns, one or two."""
    given = text.tokenizer_input
    return (given,) if isinstance(given, str) else tuple(given)


def tokens_of_words(
    spans: list[WordSpan], offsets: list[tuple[int, int]], sequence_ids: list[int | None]
) -> list[list[int]]:
    """Token positions of each word; empty where the input was cut before it.

    Args:
        spans: from :func:`word_spans`.
        offsets: characters of each token in its column, as fast tokenizers give them.
        sequence_ids: column of each token; None for special tokens.
    """
    owners: list[list[int]] = [[] for _ in spans]
    first = 0
    for position, ((start, end), column) in enumerate(zip(offsets, sequence_ids, strict=True)):
        if column is None or end <= start:
            continue
        while first < len(spans) and (
            spans[first].column < column
            or (spans[first].column == column and spans[first].end <= start)
        ):
            first += 1
        for index in range(first, len(spans)):
            span = spans[index]
            if span.column != column or span.start >= end:
                break
            owners[index].append(position)
    return owners


def swap_word(
    text: AttackedText, span: WordSpan, index: int, word: str, **attributes: Any
) -> AttackedText:
    """The text with word ``index`` replaced; what ``replace_word_at_index`` gives, much faster.

    The general method rebuilds every word of the text to follow insertions and deletions. Here one
    word stands for one word, so the indices stay as they are.

    Args:
        span: of word ``index`` in ``text``.
        word: its replacement, itself exactly one word (:func:`is_one_word`).
        attributes: further entries of ``attack_attrs``.
    """
    columns = list(columns_of(text))
    column = columns[span.column]
    columns[span.column] = column[: span.start] + word + column[span.end :]
    attrs = {
        "previous_attacked_text": text,
        "newly_modified_indices": {index},
        "modified_indices": text.attack_attrs["modified_indices"] | {index},
        "original_index_map": text.attack_attrs["original_index_map"].copy(),
        **attributes,
    }
    if "label_names" in text.attack_attrs:
        attrs["label_names"] = text.attack_attrs["label_names"]
    return AttackedText(OrderedDict(zip(text.column_labels, columns, strict=True)), attrs)


def is_one_word(word: str) -> bool:
    """TextAttack's splitter sees exactly this word."""
    return words_from_text(word) == [word]


def changed_words(original: AttackedText, perturbed: AttackedText) -> list[dict[str, Any]]:
    """What was done to a text, word by word.

    Returns:
        ``{"position", "from", "to"}`` per changed word. An inserted word has an empty ``from`` and
        its place in the perturbed text, a deleted one an empty ``to`` and its place in the
        original; a swapped one has the place in the original, which is also that in the perturbed
        text where nothing was inserted or deleted.
    """
    before, after = original.words, perturbed.words
    if len(before) == len(after):
        return [
            {"position": place, "from": old, "to": new}
            for place, (old, new) in enumerate(zip(before, after, strict=True))
            if old != new
        ]
    found = []
    matcher = SequenceMatcher(a=before, b=after, autojunk=False)
    for kind, start, end, new_start, new_end in matcher.get_opcodes():
        if kind == "equal":
            continue
        swapped = min(end - start, new_end - new_start)
        found += [
            {"position": start + step, "from": before[start + step], "to": after[new_start + step]}
            for step in range(swapped)
        ]
        found += [
            {"position": place, "from": before[place], "to": ""}
            for place in range(start + swapped, end)
        ]
        found += [
            {"position": place, "from": "", "to": after[place]}
            for place in range(new_start + swapped, new_end)
        ]
    return found
