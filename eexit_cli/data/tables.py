"""CSV, TSV, JSONL and Parquet files as columns, with the row numbers that a person sees.

A folder that ``eexit results export`` wrote will do too.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from eexit_cli.core.errors import UsageError
from eexit_cli.core.progress import SilentProgress
from eexit_cli.core.protocols import Progress
from eexit_cli.data.reading import Fault, Reading, decoding, found_delimiter, records, told
from eexit_cli.data.suggestions import suggest


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
        faults: rows that are not in the columns, as they could not be read.
        delimiter: that was found between the fields of a CSV file; None where none was looked for.
    """

    path: Path
    columns: dict[str, list[Any]]
    numbers: list[int]
    unit: str
    classes: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    faults: tuple[Fault, ...] = ()
    delimiter: str | None = None

    def take(self, rows: Sequence[int]) -> Table:
        """The rows at these positions, in this order."""
        columns = {name: [column[row] for row in rows] for name, column in self.columns.items()}
        return replace(self, columns=columns, numbers=[self.numbers[row] for row in rows])

    def without(self, faults: Sequence[Fault], reading: Reading, progress: Progress) -> Table:
        """The rows that are not at fault.

        Args:
            faults: of rows in the columns, beside those that could not be read.
            reading: whether they may be left out.
            progress: told which are.

        Raises:
            UsageError: rows are at fault and may not be left out, or none would stay.
        """
        found: dict[int, Fault] = {}
        for fault in (*self.faults, *faults):
            found.setdefault(fault.number, fault)
        if not found:
            return self
        ordered = sorted(found.values(), key=lambda fault: fault.number)
        rows = len(self.numbers) + len(self.faults)
        said = told(ordered, self.path.name, self.unit, rows)
        good = [row for row, number in enumerate(self.numbers) if number not in found]
        if not reading.skip_faulty:
            skip = "; or leave them out with --skip-faulty-rows" if good else ""
            raise UsageError(said, hint=f"{ordered[0].hint}{skip}")
        if not good:
            raise UsageError(f"{said}: none is left", hint=ordered[0].hint)
        progress.message(f"Left out, of {rows} rows: {said}")
        return replace(self.take(good), faults=())


def read_table(path: Path, reading: Reading | None = None) -> Table:
    """Read a whole file by its extension, or a folder.

    A folder is one that ``datasets`` saved, or holds one data file.

    Args:
        path: of the file or folder.
        reading: what the user says of it.

    Raises:
        UsageError: no such file, a folder of anything else, an unknown extension, no rows, or
            content that cannot be read.
    """
    reading = reading or Reading()
    if path.is_dir():
        if not (path / _SAVED).is_file():
            return read_table(_only_file(path), reading)
        reader: Callable[[Path, Reading], Table] | None = _saved
    else:
        reader = READERS.get(path.suffix.lower())
    if reader is None:
        raise UsageError(
            f"{path.name}: unknown kind of data file '{path.suffix}'",
            hint=suggest(path.suffix.lower(), READERS),
        )
    if not path.is_file() and reader is not _saved:
        raise UsageError(f"No data file at {path}", hint="Check --data-file")
    if reader is not _saved:
        reading.refuse(path.suffix.lower())
    try:
        table = reader(path, reading)
    except OSError as error:
        raise UsageError(
            f"Cannot read {path}: {error.strerror or _first_line(error)}",
            hint="Check --data-file",
        ) from error
    if not table.numbers and table.faults:
        table.without((), reading, SilentProgress())
    if not table.numbers:
        raise UsageError(f"{path.name} has no rows", hint="Add samples, or check --data-file")
    return table


def _delimited(path: Path, *, encoding: str, delimiter: str, quoted: bool, repair: str) -> Table:
    faults: list[Fault] = []
    rows = records(path, delimiter=delimiter, quoted=quoted, encoding=encoding, faults=faults)
    _, first = next(rows, (1, []))
    if faults:  # of the header, or before it
        raise UsageError(told(faults, path.name, "line", 1), hint=faults[0].hint)
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
            fields = "1 field" if len(row) == 1 else f"{len(row)} fields"
            what = f"{fields} where the header has {len(header)}"
            faults.append(Fault(number, what, repair))
            continue
        for name, value in zip(header, row, strict=True):
            columns[name].append(value)
        numbers.append(number)
    return Table(path, columns, numbers, "line", faults=tuple(faults))


def _csv(path: Path, reading: Reading) -> Table:
    encoding = reading.encoding_of(path)
    with decoding(path, encoding):
        delimiter = reading.delimiter or found_delimiter(path, encoding)
        table = _delimited(
            path,
            encoding=encoding,
            delimiter=delimiter,
            quoted=True,
            repair=f"Put quotes around texts that hold {_WORDS.get(delimiter, repr(delimiter))}",
        )
    return replace(table, delimiter=delimiter if reading.delimiter is None else None)


_WORDS = {",": "commas", ";": "semicolons", "\t": "tabs"}


def _tsv(path: Path, reading: Reading) -> Table:
    """TSV has no quoting (IANA text/tab-separated-values): a lone quote is part of the text."""
    encoding = reading.encoding_of(path)
    with decoding(path, encoding):
        return _delimited(
            path,
            encoding=encoding,
            delimiter="\t",
            quoted=False,
            repair="TSV is read without quoting: texts may hold no tabs or line breaks; use CSV",
        )


def _json_lines(path: Path, reading: Reading) -> Table:
    """One JSON object per line; columns are the keys of all of them."""
    rows: list[tuple[int, Mapping[str, Any]]] = []
    faults = []
    encoding = reading.encoding_of(path)
    with decoding(path, encoding), path.open(encoding=encoding) as stream:
        for number, line in enumerate(stream, start=1):
            if not line.strip():
                continue
            try:
                row = json.loads(line)
            except ValueError as error:
                what, hint = f"not JSON ({error})", "Every line must be one JSON object"
                faults.append(Fault(number, what, hint))
                continue
            if isinstance(row, dict):
                rows.append((number, row))
            else:
                hint = 'Every line must be one object such as {"text": "...", "label": 1}'
                faults.append(Fault(number, "not a JSON object", hint))
    names = list(dict.fromkeys(name for _, row in rows for name in row))
    columns = {name: [row.get(name) for _, row in rows] for name in names}
    return Table(path, columns, [number for number, _ in rows], "line", faults=tuple(faults))


def _parquet(path: Path, _reading: Reading) -> Table:
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


def _saved(path: Path, _reading: Reading) -> Table:
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


READERS: dict[str, Callable[[Path, Reading], Table]] = {
    ".csv": _csv,
    ".tsv": _tsv,
    ".jsonl": _json_lines,
    ".json": _json_lines,
    ".parquet": _parquet,
}
