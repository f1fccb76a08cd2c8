"""A user's own table as samples."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from eexit_cli.core.errors import UsageError
from eexit_cli.core.progress import SilentProgress
from eexit_cli.core.protocols import Progress
from eexit_cli.core.seed import stream
from eexit_cli.core.types import TaskInfo
from eexit_cli.data.own_labels import NO_LABEL, FileLabels, label_faults, labels_of_file
from eexit_cli.data.reading import DELIMITERS, Fault, Reading
from eexit_cli.data.samples import Samples
from eexit_cli.data.suggestions import suggest
from eexit_cli.data.tables import READERS, Table, read_table

VALIDATION_SHARE = 0.1

SPLITS = ("train", "validation", "test")
"""``test`` is the whole file; ``train`` and ``validation`` part it between them."""


def read_own(
    path: Path,
    *,
    split: str,
    seed: int,
    text_column: str,
    pair_column: str | None,
    label_column: str,
    task: TaskInfo | None,
    label_names: Sequence[str] | None,
    reading: Reading,
    progress: Progress,
    label_kind: str | None = None,
) -> tuple[TaskInfo, str, Samples]:
    """Read a file and take the part that the split means.

    Args:
        path: CSV, TSV, JSONL or Parquet, or a folder that ``eexit results export`` wrote.
        split: one of :data:`SPLITS`.
        seed: decides which tenth of the texts is ``validation``.
        text_column, pair_column, label_column: names of columns; no pair column, no pairs.
        task: what the file holds, when the user said so.
        label_names: the model's classes, as for :func:`eexit_cli.data.load_examples`.
        reading: what the user says of the file.
        progress: told what was left out, and how labels that are numbers were taken.
        label_kind: class or number, where the user says so.

    Returns:
        The task, the name of the split ("train", "validation", or the file's name) and samples.

    Raises:
        UsageError: anything about the file that does not fit; names the row or the column.
    """
    check_split(split)
    if task is not None and task.pair and pair_column is None:
        raise UsageError(
            f"Task '{task.name}' has two texts per sample",
            hint="Name the second one's column with --text-pair-column",
        )
    table = read_told(path, reading, progress)
    table, labelled = _with_labels(table, label_column, progress)
    faults = text_faults(table, text_column, "--text-column")
    if pair_column is not None:
        faults += text_faults(table, pair_column, "--text-pair-column")
    if labelled:
        known = label_names or (task.label_names if task else table.classes.get(label_column, ()))
        faults += label_faults(table, label_column, known)
    table = table.without(faults, reading, progress)
    texts = table.columns[text_column]
    pairs = None if pair_column is None else table.columns[pair_column]
    ids = [f"{path.stem}-{number}" for number in table.numbers]
    samples = Samples(ids=ids, texts=texts, pairs=pairs, labels=None)
    column = FileLabels.of(table, label_column, path, given=labelled)
    info, samples = labels_of_file(column, samples, task, label_names, progress, label_kind)
    info = replace(info, pair=pairs is not None)
    if split == "test":
        return info, path.name, samples
    positions = split_positions(samples, split, seed, path, origins=_origins(table, samples))
    return info, split, samples.take(positions)


def read_told(path: Path, reading: Reading, progress: Progress) -> Table:
    """A file's table; a delimiter that was found out, and that few would expect, is said."""
    table = read_table(path, reading)
    if table.delimiter not in (None, ","):
        sign = next(
            (f"{word}s" for word, each in DELIMITERS.items() if each == table.delimiter), ""
        )
        progress.message(f"{table.path.name}: its fields are parted by {sign}")
    return table


def check_split(split: str) -> None:
    """Raise a usage error for a split that files do not have."""
    if split not in SPLITS:
        raise UsageError(
            f"A data file has no split '{split}'",
            hint=f"{suggest(split, SPLITS)} (train 90 %, validation 10 %, test the whole file)",
        )


def _with_labels(table: Table, name: str, progress: Progress) -> tuple[Table, bool]:
    """The table without the rows that ``datasets`` marks as having no label.

    Returns:
        The rows that have one, and True; all rows, and False, where none has.
    """
    values = _column(table, name, "--label-column")
    if name not in table.classes:
        return table, True
    rows = [row for row, value in enumerate(values) if value != NO_LABEL]
    if not rows:
        return table, False
    if len(rows) < len(values):
        progress.message(
            f"{table.path.name}: {len(values) - len(rows)} of {len(values)} rows have no label "
            f"({NO_LABEL}) and are left out"
        )
    return table.take(rows), True


def _column(table: Table, name: str, option: str) -> list[Any]:
    if name not in table.columns:
        # It may stand in the rows that cannot be read.
        table.without((), Reading(), SilentProgress())
        raise UsageError(
            f"{table.path.name} has no column '{name}' ({option})",
            hint=suggest(name, table.columns, title="Columns"),
        )
    return table.columns[name]


def text_faults(table: Table, name: str, option: str) -> list[Fault]:
    """Rows whose cell of a column is empty, or no text.

    Raises:
        UsageError: no such column.
    """
    faults = []
    for value, number in zip(_column(table, name, option), table.numbers, strict=True):
        if value is None or (isinstance(value, str) and not value.strip()):
            what = f"the text in column '{name}' is empty"
            faults.append(Fault(number, what, "Fill it in or drop the row"))
        elif not isinstance(value, str):
            what = f"column '{name}' holds {value!r}, not text"
            faults.append(Fault(number, what, f"Name the column of the texts with {option}"))
    return faults


Key = tuple[str, str]
"""The texts of a sample; the second is empty where it has none."""

_ORIGINALS = ("original_text", "original_text_pair")
"""Columns of ``eexit results export`` that say what an attacked input was made from."""


def _keys(samples: Samples) -> list[Key]:
    return list(zip(samples.texts, samples.pairs or [""] * len(samples), strict=True))


def _origins(table: Table, samples: Samples) -> list[Key] | None:
    """What each sample was made from: itself where the file says nothing of it."""
    texts, seconds = (table.columns.get(name) or [None] * len(samples) for name in _ORIGINALS)
    if not any(texts):
        return None
    return [
        (
            text if isinstance(text, str) and text else key[0],
            second if isinstance(second, str) and samples.pairs is not None else key[1],
        )
        for text, second, key in zip(texts, seconds, _keys(samples), strict=True)
    ]


def originals_of(
    path: Path, ids: Sequence[str], reading: Reading, *, pairs: bool
) -> tuple[list[str], list[str] | None]:
    """What rows of an attack's export were made from; nothing for a row that is its own.

    Args:
        path: of the file.
        ids: of the rows, as :func:`read_own` gives them.
        reading: as the rows were read.
        pairs: the rows have a second text.

    Returns:
        Texts, and their second ones.
    """
    if path.suffix.lower() not in READERS and not path.is_dir():
        return [], [] if pairs else None  # raw text is no attack's export
    table = read_table(path, reading)
    wanted = set(ids)
    names = [f"{path.stem}-{number}" for number in table.numbers]
    columns = [table.columns.get(name) or [None] * len(names) for name in _ORIGINALS]
    found = [
        (text, second)
        for name, text, second in zip(names, *columns, strict=True)
        if name in wanted and text and isinstance(text, str) and (second or not pairs)
    ]
    return [text for text, _ in found], [str(second) for _, second in found] if pairs else None


def split_positions(
    samples: Samples,
    split: str,
    seed: int,
    path: Path,
    *,
    origins: Sequence[Key] | None = None,
) -> list[int]:
    """Positions of the split's samples.

    Equal texts always fall on the same side, and so do texts made from the same original: a model
    trained on an attacked input has as good as seen the input.

    Args:
        samples: of the whole file.
        split: train or validation.
        seed: of the draw.
        path: the file, for the error.
        origins: what each sample was made from.

    Raises:
        UsageError: too few texts to part.
    """
    keys = _families(_keys(samples), origins)
    order = sorted(set(keys))
    if len(order) < 2:
        raise UsageError(
            f"{path.name} has too few different texts to set a validation part aside",
            hint="Training needs at least two; many more are better",
        )
    stream(seed, "data.own-split").shuffle(order)
    held_out = set(order[: max(1, round(VALIDATION_SHARE * len(order)))])
    return [index for index, key in enumerate(keys) if (key in held_out) == (split == "validation")]


def _families(keys: Sequence[Key], origins: Sequence[Key] | None) -> list[Key]:
    """One key per sample, the same for all that equal texts or equal origins connect."""
    if origins is None:
        return list(keys)
    leaders: dict[Key, Key] = {}

    def leader(key: Key) -> Key:
        while leaders.setdefault(key, key) != key:
            leaders[key] = leaders[leaders[key]]  # keeps the way short for the next one
            key = leaders[key]
        return key

    for key, origin in zip(keys, origins, strict=True):
        first, second = sorted((leader(key), leader(origin)))
        leaders[second] = first
    return [leader(key) for key in keys]
