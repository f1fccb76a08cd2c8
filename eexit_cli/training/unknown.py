"""Can a tokenizer write the texts that a model is to be trained on?

What it cannot write becomes the unknown token: a model that reads it learns less, one that should
write it can never be right. So the share of unknown tokens is told before a training, and a decoder
gets the missing characters as tokens of its own where its tokenizer can then give the texts back.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from eexit_cli.core.errors import UsageError

WARN, REFUSE = 0.01, 0.20
"""Shares of unknown tokens."""

_LOOKED_AT = 20_000
"""Texts; more would take longer and say the same."""
_SHOWN = 12


@dataclass(frozen=True)
class Spelling:
    """How a tokenizer writes texts.

    Attributes:
        unknown: share of unknown tokens among all but those that every text gets.
        missing: characters that it has no token for, sorted.
    """

    unknown: float
    missing: tuple[str, ...]


def spelling(tokenizer: Any, texts: Sequence[str]) -> Spelling:
    """How a tokenizer writes these texts.

    Args:
        tokenizer: a transformers tokenizer. One that falls back to bytes knows every text.
        texts: not empty.
    """
    unknown = _unknown_id(tokenizer)
    if unknown is None:
        return Spelling(0.0, ())
    rows = _ids(tokenizer, _some(texts))
    tokens = sum(map(len, rows))
    found = sum(row.count(unknown) for row in rows)
    if not found:
        return Spelling(0.0, ())
    characters = sorted(set().union(*texts))
    alone = _ids(tokenizer, characters)
    missing = [
        character
        for character, row in zip(characters, alone, strict=True)
        if unknown in row and not character.isspace()
    ]
    return Spelling(found / tokens, tuple(missing))


def report(what: str, found: Spelling, repair: str) -> str | None:
    """A line about unknown tokens, where there are too many to be silent.

    Args:
        what: the texts: "texts", "sources", "targets".
        repair: for the error's hint.

    Raises:
        UsageError: so many that a training makes no sense.
    """
    if found.unknown < WARN:
        return None
    said = f"{100 * found.unknown:.3g} % of the tokens of the training {what} are unknown to the "
    said += "vocabulary"
    if found.missing:
        said += f", which lacks {listed(found.missing)}"
    if found.unknown >= REFUSE:
        raise UsageError(said, hint=repair)
    return said


def listed(characters: Sequence[str]) -> str:
    """The first of them; by their numbers where a screen should not get them."""
    named = [one if one.isprintable() else f"U+{ord(one):04X}" for one in characters[:_SHOWN]]
    return " ".join([*named, *(["..."] if len(characters) > _SHOWN else [])])


def changed(tokenizer: Any, texts: Sequence[str]) -> str | None:
    """A line about texts that a tokenizer writes and reads back otherwise; None below 1 %.

    Spaces count as one. Texts with unknown tokens are :func:`report`'s.
    """
    unknown = _unknown_id(tokenizer)
    some = _some(texts, 2_000)
    rows = _ids(tokenizer, some)
    known = [(text, row) for text, row in zip(some, rows, strict=True) if unknown not in row]
    different = [
        (text, again) for text, row in known if not _same(again := _read(tokenizer, row), text)
    ]
    if not known or len(different) < WARN * len(known):
        return None
    text, again = (" ".join(one.split())[:40] for one in different[0])
    return (
        f"{100 * len(different) / len(known):.3g} % of the targets cannot be written as they are "
        f"with this vocabulary: '{text}' becomes '{again}'"
    )


def grown(tokenizer: Any, sources: Sequence[str], targets: Sequence[str]) -> Any | None:
    """A tokenizer with tokens for the characters that it lacks, where that helps.

    Characters that only sources have need be read alone; those of targets are added only where the
    targets then come back as they were.

    Returns:
        The larger tokenizer; None where nothing can be added.
    """
    if _unknown_id(tokenizer) is None:
        return None
    of_targets = spelling(tokenizer, targets).missing
    of_sources = [one for one in spelling(tokenizer, sources).missing if one not in of_targets]
    for characters in ([*of_sources, *of_targets], of_sources):
        if not characters:
            continue
        larger = copy.deepcopy(tokenizer)
        larger.add_tokens(characters)
        if characters is of_sources or _gives_back(larger, targets, of_targets):
            return larger
    return None


def grow_embeddings(model: Any, size: int, generator: torch.Generator) -> None:
    """Rows for new tokens in a T5's word embeddings and, where it is apart, its head.

    New rows are drawn around the mean of the others with their spread, so that a new token is
    neither likelier nor less likely than others before it is trained.

    Args:
        model: a ``MultiExitT5``.
        size: of the vocabulary; spare rows are used first.
        generator: of the draw.
    """
    if size <= model.config.vocab_size:
        return
    model.shared.weight = _more_rows(model.shared.weight, size, generator)
    model.shared.num_embeddings = size
    if not model.config.tied_head:
        model.lm_head.weight = _more_rows(model.lm_head.weight, size, generator)
    model.lm_head.out_features = size
    model.config.vocab_size = size
    model.tie_weights()


def _more_rows(weight: nn.Parameter, size: int, generator: torch.Generator) -> nn.Parameter:
    old = weight.detach()
    noise = torch.randn((size - len(old), old.shape[1]), generator=generator, dtype=old.dtype)
    # Shape: [vocabulary, width]
    return nn.Parameter(torch.cat([old, old.mean(dim=0) + noise * old.std(dim=0)]))


def _gives_back(tokenizer: Any, texts: Iterable[str], characters: Iterable[str]) -> bool:
    """Do the texts that hold these characters come back as they were?"""
    wanted = set(characters)
    concerned = _some([text for text in texts if wanted.intersection(text)], 2_000)
    rows = _ids(tokenizer, concerned)
    return all(
        _same(_read(tokenizer, row), text) for text, row in zip(concerned, rows, strict=True)
    )


def _unknown_id(tokenizer: Any) -> int | None:
    """None where there is no token for the unknown alone."""
    unknown: int | None = tokenizer.unk_token_id
    others = (tokenizer.eos_token_id, tokenizer.bos_token_id, tokenizer.pad_token_id)
    return None if unknown in others else unknown


def _ids(tokenizer: Any, texts: Sequence[str]) -> list[list[int]]:
    if not texts:
        return []
    rows: list[list[int]] = tokenizer(
        list(texts), add_special_tokens=False, return_attention_mask=False, verbose=False
    )["input_ids"]
    return rows


def _some(texts: Sequence[str], most: int = _LOOKED_AT) -> list[str]:
    """At most so many of them, from everywhere."""
    return list(texts[:: -(-len(texts) // most) or 1])


def _read(tokenizer: Any, row: Sequence[int]) -> str:
    return str(tokenizer.decode(row, skip_special_tokens=True))


def _same(one: str, other: str) -> bool:
    return one.split() == other.split()
