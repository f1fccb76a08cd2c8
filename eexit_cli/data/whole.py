"""Texts that are no valid Unicode: an emoji cut in two, bytes that Python kept of a file's name."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from eexit_cli.core.protocols import Progress
from eexit_cli.core.text import REPLACEMENT, escaped, is_whole, made_whole
from eexit_cli.data.samples import Samples


def made_valid(samples: Samples, name: str, progress: Progress) -> Samples:
    """The samples with U+FFFD in the place of halves of characters, and ids that are Unicode.

    JSON may carry one half of a pair of surrogates (``"\\ud83d"``), which no tokenizer and no
    table takes. The user is told of the first line.

    Args:
        samples: as read; the end of an id is the number of its line.
        name: of the file or task.
        progress: told how many texts were changed.
    """
    columns = (samples.texts, samples.pairs, samples.targets)
    broken = [
        identifier
        for index, identifier in enumerate(samples.ids)
        if not all(is_whole(column[index]) for column in columns if column is not None)
    ]
    if broken:
        line = broken[0].rpartition("-")[2]
        more = f" and {len(broken) - 1:,} more" if len(broken) > 1 else ""
        progress.message(
            f"{name}, line {line}{more}: half of a character (a cut emoji), read as {REPLACEMENT}"
        )
    elif all(map(is_whole, samples.ids)):
        return samples
    return replace(
        samples,
        ids=[_named(identifier) for identifier in samples.ids],
        texts=[made_whole(text) for text in samples.texts],
        pairs=_column(samples.pairs),
        targets=_column(samples.targets),
    )


def _column(texts: Sequence[str] | None) -> list[str] | None:
    return None if texts is None else [made_whole(text) for text in texts]


def _named(identifier: str) -> str:
    """An id may hold a file's name, whose bytes stay told apart."""
    return identifier if is_whole(identifier) else escaped(identifier)
