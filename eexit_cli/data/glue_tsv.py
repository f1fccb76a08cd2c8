"""GLUE's original TSV files (``glue_data/SST-2/dev.tsv``), read without quoting."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from eexit_cli.core.errors import MissingArtifactError, UsageError
from eexit_cli.core.protocols import Progress
from eexit_cli.core.types import TaskInfo
from eexit_cli.data.label_values import Cell
from eexit_cli.data.labels import parse_classes, parse_values
from eexit_cli.data.reading import not_utf8_file, records
from eexit_cli.data.samples import Samples

_FILES = {"train": ("train.tsv",), "validation": ("dev.tsv",), "test": ("test.tsv",)}


@dataclass(frozen=True)
class TsvLayout:
    """How a task's TSV files look.

    Attributes:
        folder: the task's folder in the download script's ``glue_data``.
        texts: names of the text columns.
        label: name of the label column; test files lack it.
        files: split -> file names, the first that exists counts.
        headless: column names of files whose first line is a sample already.
        broken_rows: the published files hold rows that are cut short; they are left out.
        undecided: a label that means that the annotators did not agree; its rows are left out.
    """

    folder: str
    texts: tuple[str, ...]
    label: str
    files: Mapping[str, tuple[str, ...]] = field(default_factory=lambda: dict(_FILES))
    headless: tuple[str, ...] = ()
    broken_rows: bool = False
    undecided: str | None = None


def read_tsv(
    info: TaskInfo, layout: TsvLayout, split: str, data_dir: Path, progress: Progress
) -> Samples:
    """Read one split from a task's folder, or from the ``glue_data`` that holds that folder.

    Raises:
        MissingArtifactError: the folder or the split's file is not there.
        UsageError: the file lacks a column, a row is cut short, a text is empty, a label is
            outside the classes.
    """
    path = _path(info, layout, split, data_dir)
    try:
        rows = list(records(path, delimiter="\t", quoted=False))
    except UnicodeDecodeError as error:
        raise not_utf8_file(path, path) from error
    except OSError as error:
        raise UsageError(
            f"Cannot read {path}: {error.strerror or error}", hint="Check --data-dir"
        ) from error
    header = _header(layout, rows, path)
    places = [header.index(name) for name in layout.texts]
    label_place = header.index(layout.label) if layout.label in header else None
    if label_place is None and not split.startswith("test"):
        raise _no_column(path, layout.label, header)
    wanted = [*places, *([] if label_place is None else [label_place])]
    kept: list[tuple[int, list[str]]] = []
    for number, row in rows:
        if _is_whole(row, wanted, label_place, layout):
            kept.append((number, row))
        elif len(row) <= max(wanted) and not layout.broken_rows:
            raise UsageError(
                f"{path.name}, line {number}: {len(row)} fields where the header has {len(header)}",
                hint=f"The file must be in GLUE's layout for {layout.folder}",
            )
    if len(kept) < len(rows):
        progress.message(f"{path.name}: rows left out for want of a label: {len(rows) - len(kept)}")
    cells = [
        Cell(row[label_place], path.name, "line", number)
        for number, row in kept
        if label_place is not None
    ]
    labels: Sequence[int | float] | None = None
    if label_place is not None:
        regression = info.kind == "regression"
        labels = parse_values(cells) if regression else parse_classes(cells, info.label_names)
    columns = [_texts(kept, place, path, layout) for place in places]
    return Samples(
        ids=[f"{info.name}-{split}-{number}" for number, _ in kept],
        texts=columns[0],
        pairs=columns[1] if info.pair else None,
        labels=labels,
    )


def _path(info: TaskInfo, layout: TsvLayout, split: str, data_dir: Path) -> Path:
    if not data_dir.is_dir():
        raise MissingArtifactError(
            f"No data folder at {data_dir}",
            hint=f"--data-dir takes a folder such as glue_data/{layout.folder}",
        )
    names = layout.files[split]
    for folder in (data_dir, data_dir / layout.folder):
        for name in names:
            if (folder / name).is_file():
                return folder / name
    raise MissingArtifactError(
        f"No {' or '.join(names)} in {data_dir}",
        hint=f"The {split} split of '{info.name}' is read from it; choose another --split or "
        "--data-dir",
    )


def _header(layout: TsvLayout, rows: list[tuple[int, list[str]]], path: Path) -> list[str]:
    """Column names; takes the header off the rows when there is one."""
    if not rows:
        raise UsageError(f"{path} is empty", hint="Check --data-dir")
    first = [name.strip() for name in rows[0][1]]
    if layout.headless and not set(layout.texts) <= set(first):
        if len(first) != len(layout.headless):
            raise _no_column(path, layout.texts[0], first)
        return list(layout.headless)
    for name in layout.texts:
        if name not in first:
            raise _no_column(path, name, first)
    del rows[0]
    return first


def _no_column(path: Path, name: str, header: Sequence[str]) -> UsageError:
    return UsageError(
        f"{path} has no column '{name}'",
        hint=f"Columns: {', '.join(header)}. For a table of your own use --data-file",
    )


def _is_whole(
    row: list[str], wanted: Sequence[int], label_place: int | None, layout: TsvLayout
) -> bool:
    if len(row) <= max(wanted):
        return False
    return label_place is None or row[label_place] != layout.undecided


def _texts(
    rows: list[tuple[int, list[str]]], place: int, path: Path, layout: TsvLayout
) -> list[str]:
    for number, row in rows:
        if not row[place].strip() and not layout.broken_rows:
            raise UsageError(
                f"{path.name}, line {number}: the text is empty", hint="Fill it in or drop the row"
            )
    return [row[place] for _, row in rows]
