"""The whole words of a tokenizer's vocabulary, in text form, with the ids that spell them."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

CONTINUES = "##"
STARTS = ("Ġ", "▁")
"""Marks of word pieces: WordPiece marks what continues a word, byte BPE and sentencepiece what
starts one after a space."""

# One run of letters, digits and inner apostrophes or hyphens, with a Latin letter somewhere: the
# published filter. Special, unused and unknown tokens carry brackets, so they are no words.
_WORD = re.compile(r"(?=.*[A-Za-z])\w(?:[\w'*@-]*\w)?", re.ASCII)

LOWER, TITLE, UPPER, MIXED = range(4)


def capitalisation(word: str) -> int:
    """LOWER, TITLE, UPPER or MIXED. One capital letter alone counts as TITLE."""
    letters = [letter for letter in word if letter.isalpha()]
    if not any(letter.isupper() for letter in letters):
        return LOWER
    if letters[0].isupper() and not any(letter.isupper() for letter in letters[1:]):
        return TITLE
    return UPPER if all(letter.isupper() for letter in letters) else MIXED


def written_like(word: str, other: str) -> str:
    """A word with the capitals of another one; where those are MIXED, as it is."""
    pattern = capitalisation(other)
    if pattern == LOWER:
        return word.lower()
    if pattern == TITLE:
        return word[:1].upper() + word[1:].lower()
    return word.upper() if pattern == UPPER else word


@dataclass(frozen=True)
class WordTable:
    """Whole-word vocabulary entries.

    Attributes:
        words: as they stand in a text.
        folded: the same, case-folded.
        spaced_ids: id of each word after a space. Shape: [words], int64.
        bare_ids: id of each word with no space before it, -1 where the vocabulary has none.
            Shape: [words], int64. Equal to ``spaced_ids`` where pieces carry no start mark.
        patterns: capitalisation of each word. Shape: [words], int64.
        cased: the tokenizer tells capital letters apart.
        mark: what pieces that start a word after a space begin with; None where the vocabulary
            marks the pieces that continue one instead.
    """

    words: list[str]
    folded: list[str]
    spaced_ids: Tensor
    bare_ids: Tensor
    patterns: Tensor
    cased: bool
    mark: str | None

    @classmethod
    def of(cls, tokenizer: Any, *, size: int | None = None) -> WordTable:
        """Read a fast tokenizer's vocabulary.

        Args:
            tokenizer: WordPiece, byte-level BPE or sentencepiece.
            size: rows of the model's embedding; ids beyond it are left out.
        """
        vocabulary: dict[str, int] = tokenizer.get_vocab()
        limit = len(vocabulary) if size is None else size
        special = set(tokenizer.all_special_ids) | set(tokenizer.added_tokens_decoder)
        pieces = {
            piece: index
            for piece, index in vocabulary.items()
            if index not in special and index < limit
        }
        cased = tells_case(tokenizer)
        mark = start_mark(pieces)
        entries: dict[str, tuple[int, int]] = {}
        for piece, index in sorted(pieces.items(), key=lambda item: item[1]):
            word = _word_of(tokenizer, piece, mark)
            if word is None or not _WORD.fullmatch(word) or (not cased and word != word.lower()):
                continue
            bare = index if mark is None else pieces.get(piece.removeprefix(mark), -1)
            entries.setdefault(word, (index, bare))
        words = list(entries)
        ids = torch.tensor(list(entries.values()), dtype=torch.int64).reshape(-1, 2)
        return cls(
            words=words,
            folded=[word.casefold() for word in words],
            spaced_ids=ids[:, 0].clone(),
            bare_ids=ids[:, 1].clone(),
            patterns=torch.tensor([capitalisation(word) for word in words], dtype=torch.int64),
            cased=cased,
            mark=mark,
        )

    def __len__(self) -> int:
        return len(self.words)

    def written(self, word: str, other: str) -> str:
        """An entry as it stands in place of another word."""
        return word if self.cased else written_like(word, other)


def tells_case(tokenizer: Any) -> bool:
    """Does the tokenizer see a difference between "Film" and "film"?"""
    return tokenizer.tokenize("Film FILM") != tokenizer.tokenize("film film")


def start_mark(pieces: dict[str, int]) -> str | None:
    """The mark of pieces that start a word; None where pieces that continue one are marked."""
    counts = {mark: sum(piece.startswith(mark) for piece in pieces) for mark in STARTS}
    mark = max(STARTS, key=lambda candidate: counts[candidate])
    continuing = sum(piece.startswith(CONTINUES) for piece in pieces)
    return mark if counts[mark] > continuing else None


def _word_of(tokenizer: Any, piece: str, mark: str | None) -> str | None:
    if mark is None:
        return None if piece.startswith(CONTINUES) else piece
    if not piece.startswith(mark) or len(piece) == len(mark):
        return None
    # Byte-level pieces spell non-ASCII letters in bytes; the tokenizer knows how to read them.
    return tokenizer.convert_tokens_to_string([piece]).strip()
