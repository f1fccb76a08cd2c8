"""CSV, TSV, JSONL and Parquet files as columns, with the row numbers that a person sees.

A folder that ``eexit results export`` wrote will do too.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from eexit_cli.core.errors import UsageError
from eexit_cli.core.text import not_utf8
from eexit_cli.data.suggestions import suggest

_LONGEST_FIELD = 10_000_000
"""Characters in one CSV field; csv's own limit of 131,072 cuts long documents."""


@dataclass(frozen=True)
class Table:
    """A file's content.

    Attributes:
        path: the file.
        columns: values by column name; all of the same length.
        numbers: one per row, as the file's own viewer counts: lines of a text file (a header is
            line 1), rows from 1 of a Parquet file.
        unit: ``line`` or ``row``.
        classes: names of the classes whose ids a column holds (``datasets.ClassLabel``), by
            column; the id -1 means that a row has no label.
    """

    path: Path
    columns: dict[str, list[Any]]
    numbers: list[int]
    unit: str
    classes: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    def take(self, rows: Sequence[int]) -> Table:
        """The rows at these positions, in this order."""
        columns = {name: [column[row] for row in rows] for name, column in self.columns.items()}
        return replace(self, columns=columns, numbers=[self.numbers[row] for row in rows])


def read_table(path: Path) -> Table:
    """Read a whole file by its extension, or a folder.

    A folder is one that ``datasets`` saved, or holds one data file.

    Raises:
        UsageError: no such file, a folder of anything else, an unknown extension, no rows, or
            content that cannot be read.
    """
    if path.is_dir():
        if not (path / _SAVED).is_file():
            return read_table(_only_file(path))
        reader: Callable[[Path], Table] | None = _saved
    else:
        reader = READERS.get(path.suffix.lower())
    if reader is None:
        raise UsageError(
            f"{path.name}: unknown kind of data file '{path.suffix}'",
            hint=suggest(path.suffix.lower(), READERS),
        )
    if not path.is_file() and reader is not _saved:
        raise UsageError(f"No data file at {path}", hint="Check --data-file")
    try:
        table = reader(path)
    except UnicodeDecodeError as error:
        said = not_utf8(path.name, path.read_bytes() if path.is_file() else b"")
        raise UsageError(said, hint="Save the file as UTF-8") from error
    except OSError as error:
        raise UsageError(
            f"Cannot read {path}: {error.strerror or _first_line(error)}",
            hint="Check --data-file",
        ) from error
    if not table.numbers:
        raise UsageError(f"{path.name} has no rows", hint="Add samples, or check --data-file")
    return table


def records(
    path: Path, *, delimiter: str, quoted: bool, encoding: str = "utf-8-sig"
) -> Iterator[tuple[int, list[str]]]:
    """The rows of a delimited text file with the number of the line where each begins.

    Blank lines are left out.

    Raises:
        UsageError: the file breaks the rules of quoting, or a field is without end.
    """
    limit = csv.field_size_limit(_LONGEST_FIELD)
    try:
        with path.open(encoding=encoding, newline="") as stream:
            reader = (
                csv.reader(stream, delimiter=delimiter, strict=True)
                if quoted
                else csv.reader(stream, delimiter=delimiter, quoting=csv.QUOTE_NONE)
            )
            start = 1
            try:
                for row in reader:
                    if row:
                        yield start, row
                    start = reader.line_num + 1
            except csv.Error as error:
                raise UsageError(
                    f"{path.name}, line {start}: not a readable row ({error})",
                    hint="Check the quotes around that line's texts",
                ) from error
    finally:
        csv.field_size_limit(limit)


def _delimited(path: Path, *, delimiter: str, quoted: bool) -> Table:
    rows = records(path, delimiter=delimiter, quoted=quoted)
    _, first = next(rows, (1, []))
    header = [name.strip() for name in first]
    columns: dict[str, list[Any]] = {}
    for name in header:
        if name in columns:
            raise UsageError(
                f"{path.name} has two columns '{name}'", hint="Rename one of them in the header"
            )
        columns[name] = []
    numbers = []
    for number, row in rows:
        if len(row) != len(header):
            raise UsageError(
                f"{path.name}, line {number}: {len(row)} fields where the header has {len(header)}",
                hint="Put quotes around texts that hold commas"
                if quoted
                else "TSV is read without quoting: texts may hold no tabs or line breaks; use CSV",
            )
        for name, value in zip(header, row, strict=True):
            columns[name].append(value)
        numbers.append(number)
    return Table(path, columns, numbers, "line")


def _csv(path: Path) -> Table:
    return _delimited(path, delimiter=",", quoted=True)


def _tsv(path: Path) -> Table:
    """TSV has no quoting (IANA text/tab-separated-values): a lone quote is part of the text."""
    return _delimited(path, delimiter="\t", quoted=False)


def _json_lines(path: Path) -> Table:
    """One JSON object per line; columns are the keys of all of them."""
    rows: list[tuple[int, Mapping[str, Any]]] = []
    with path.open(encoding="utf-8-sig") as stream:
        for number, line in enumerate(stream, start=1):
            if not line.strip():
                continue
            try:
                row = json.loads(line)
            except ValueError as error:
                raise UsageError(
                    f"{path.name}, line {number}: not JSON ({error})",
                    hint="Every line must be one JSON object",
                ) from error
            if not isinstance(row, dict):
                raise UsageError(
                    f"{path.name}, line {number}: not a JSON object",
                    hint='Every line must be one object such as {"text": "...", "label": 1}',
                )
            rows.append((number, row))
    names = list(dict.fromkeys(name for _, row in rows for name in row))
    columns = {name: [row.get(name) for _, row in rows] for name in names}
    return Table(path, columns, [number for number, _ in rows], "line")


def _parquet(path: Path) -> Table:
    import pyarrow
    import pyarrow.parquet

    try:
        table = pyarrow.parquet.read_table(path)
    except pyarrow.ArrowException as error:
        raise UsageError(
            f"{path.name} is not a readable Parquet file ({_first_line(error)})",
            hint="Write the file again, or check --data-file",
        ) from error
    return _of_arrow(path, table)


def _of_arrow(path: Path, table: Any) -> Table:
    columns = {name: table.column(name).to_pylist() for name in table.column_names}
    numbers = list(range(1, table.num_rows + 1))
    return Table(path, columns, numbers, "row", _class_labels(table.schema.metadata or {}))


def _class_labels(metadata: Mapping[bytes, bytes]) -> dict[str, tuple[str, ...]]:
    """The class names that ``datasets`` writes into an Arrow schema, by column."""
    try:
        features = json.loads(metadata.get(b"huggingface", b"{}"))["info"]["features"]
        found = {
            name: feature["names"]
            for name, feature in features.items()
            if isinstance(feature, dict) and feature.get("_type") == "ClassLabel"
        }
    except (ValueError, KeyError, TypeError, AttributeError):
        return {}  # of another program, or of a version that writes it otherwise
    return {name: tuple(map(str, names)) for name, names in found.items()}


_SAVED = "state.json"
"""In every folder that ``Dataset.save_to_disk`` writes, beside its Arrow files."""


def _saved(path: Path) -> Table:
    """Rows of a folder of the ``datasets`` library, which reads Arrow files and runs nothing."""
    import datasets
    import pyarrow

    try:
        table = datasets.load_from_disk(str(path)).with_format("arrow")[:]
    except (pyarrow.ArrowException, OSError, ValueError, KeyError, TypeError) as error:
        raise UsageError(
            f"{path} is not a readable folder of the datasets library ({_first_line(error)})",
            hint="Write it again, or name the Parquet file in it",
        ) from error
    return _of_arrow(path, table)


def _only_file(folder: Path) -> Path:
    """The data file in a folder.

    Raises:
        UsageError: there is none, or several.
    """
    if (folder / "dataset_dict.json").is_file():
        raise UsageError(
            f"{folder} is a folder of several splits", hint="Name the folder of one of them"
        )
    files = sorted(path for path in folder.iterdir() if path.suffix.lower() in READERS)
    if len(files) == 1 and files[0].is_file():
        return files[0]
    held = f"{len(files)} data files" if files else "no data file"
    raise UsageError(
        f"{folder} is a folder with {held}",
        hint="Name a file, or use --data-dir for a folder in GLUE's layout",
    )


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]


READERS: dict[str, Callable[[Path], Table]] = {
    ".csv": _csv,
    ".tsv": _tsv,
    ".jsonl": _json_lines,
    ".json": _json_lines,
    ".parquet": _parquet,
}
