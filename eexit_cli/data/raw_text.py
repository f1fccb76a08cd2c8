"""Raw text (``.txt``) for models that go on from what they read: pieces of so many tokens.

The file is tokenised as a whole and cut, so that a piece begins wherever the last one ended. Pieces
are what a split parts and what a model remembers of its training.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

from eexit_cli.core.errors import UsageError
from eexit_cli.core.protocols import Progress
from eexit_cli.core.types import RAW_TEXT, TaskInfo
from eexit_cli.data.own import check_split, split_positions
from eexit_cli.data.reading import Reading, decoding
from eexit_cli.data.samples import Samples

SUFFIX = ".txt"


def is_raw(path: Path | str | None) -> bool:
    """Does this data file hold raw text?"""
    return path is not None and Path(path).suffix.lower() == SUFFIX


def refuse_raw(path: Path | str | None, why: str) -> None:
    """Raise a usage error for a file of raw text.

    Args:
        why: what cannot be done with it.
    """
    if path is not None and is_raw(path):
        raise UsageError(
            f"{Path(path).name} is raw text: {why}",
            hint="Leave that out, or name a table of sources and targets in its place",
        )


@dataclass(frozen=True)
class Cutter:
    """Cuts a text into pieces of equal length.

    Attributes:
        tokenizer: a fast tokenizer.
        length: tokens of a piece, with the start token where the tokenizer's texts have one.
    """

    tokenizer: Any
    length: int

    @property
    def start(self) -> list[int]:
        """What each piece starts with: a model that knows a start token expects it."""
        first = self.tokenizer("a", verbose=False)["input_ids"][:1]
        return list(first) if first == [self.tokenizer.bos_token_id] else []

    def __call__(self, text: str) -> tuple[list[str], list[list[int]], int]:
        """The pieces' texts and ids, and how many tokens the text has.

        What is left at the end is no piece.
        """
        encoded = self.tokenizer(
            text,
            add_special_tokens=False,
            return_offsets_mapping=True,
            return_attention_mask=False,
            verbose=False,
        )
        ids, offsets, start = encoded["input_ids"], encoded["offset_mapping"], self.start
        step = self.length - len(start)
        firsts = range(0, len(ids) - step + 1, step)
        places = [offsets[first][0] for first in firsts]
        end = len(firsts) * step
        places.append(offsets[end][0] if end < len(ids) else len(text))
        texts = [text[here:there] for here, there in pairwise(places)]
        return texts, [[*start, *ids[first : first + step]] for first in firsts], len(ids)


def read_raw(
    path: Path,
    *,
    split: str,
    seed: int,
    cutter: Cutter | None,
    reading: Reading,
    progress: Progress,
) -> tuple[TaskInfo, str, Samples]:
    """Read a file of raw text and take the pieces that the split means.

    Args:
        path: of the file.
        split: ``train`` (90 %), ``validation`` (10 %, equal pieces on one side) or ``test`` (all).
        seed: decides which tenth of the pieces is ``validation``.
        cutter: the model's; None where it reads no raw text.
        reading: what the user says of the file.
        progress: told how many pieces there are.

    Returns:
        The task, the name of the split ("train", "validation", or the file's name) and samples,
        whose targets are their texts.

    Raises:
        UsageError: no such file, no text of its encoding, too short for a piece, or a model that
            reads none.
    """
    check_split(split)
    if cutter is None:
        raise UsageError(
            f"{path.name} is raw text, which decoder-only models alone are trained and judged on",
            hint="Use one with --model (layerskip), or name a table: CSV, TSV, JSONL or Parquet",
        )
    reading.refuse(SUFFIX)
    text = _text(path, reading)
    texts, tokens, total = cutter(text)
    if not texts:
        raise UsageError(
            f"{path.name} has {total} tokens, too few for one piece of {cutter.length}",
            hint="Give a smaller --max-length, or a longer text",
        )
    left = total - len(texts) * (cutter.length - len(cutter.start))
    rest = f"; the last {left} are left out" if left else ""
    progress.message(
        f"{path.name}: {total:,} tokens, {len(texts):,} pieces of {cutter.length}{rest}"
    )
    samples = Samples(
        ids=[f"{path.stem}-{number}" for number in range(1, len(texts) + 1)],
        texts=texts,
        pairs=None,
        labels=None,
        targets=texts,
        tokens=tokens,
    )
    extra = {"source_prefix": "", RAW_TEXT: True}
    info = TaskInfo(path.stem, "generation", metrics=("perplexity",), extra=extra)
    if split == "test":
        return info, path.name, samples
    return info, split, samples.take(split_positions(samples, split, seed, path))


def _text(path: Path, reading: Reading) -> str:
    if not path.is_file():
        raise UsageError(f"No data file at {path}", hint="Check --data-file")
    encoding = reading.encoding_of(path)
    try:
        with decoding(path, encoding):
            return path.read_text(encoding=encoding)
    except OSError as error:
        raise UsageError(
            f"Cannot read {path}: {error.strerror or error}", hint="Check --data-file"
        ) from error
