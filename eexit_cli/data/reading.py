"""How a data file is read: what parts its fields, its encoding, and rows that are at fault."""

from __future__ import annotations

import codecs
import csv
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from eexit_cli.core.errors import UsageError
from eexit_cli.core.text import not_utf8

DELIMITERS = {"comma": ",", "semicolon": ";", "tab": "\t", "pipe": "|", "space": " "}
"""Names of characters that are hard to type or to see."""

_TRIED = (",", ";", "\t", "|")
"""What is looked for where nobody says; the first is meant where a file shows nothing."""

_LOOKED_AT = 100
"""Rows that tell one delimiter from another."""

_MARKS = (
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
"""First bytes that say the encoding; UTF-32's begin with UTF-16's."""

_DEFAULT = "utf-8-sig"  # UTF-8 with or without its mark

_LONGEST_FIELD = 10_000_000
"""Characters in one CSV field; csv's own limit of 131,072 cuts long documents."""

_NAMED_FAULTS = 5


@dataclass(frozen=True)
class Reading:
    """How a file is read, where the user says.

    Attributes:
        delimiter: one character; None finds it out.
        encoding: of Python's names; None is UTF-8, or what the file's first bytes say.
        skip_faulty: rows at fault are left out with a count; otherwise they are an error.
    """

    delimiter: str | None = None
    encoding: str | None = None
    skip_faulty: bool = False

    @classmethod
    def of(cls, config: Any) -> Reading:
        """What a configuration says.

        Args:
            config: with the attributes of ``config.common.DataConfig``.

        Raises:
            UsageError: no such encoding, or a delimiter that is none.
        """
        return cls(
            None if config.delimiter is None else _delimiter(config.delimiter),
            None if config.encoding is None else _encoding(config.encoding),
            config.skip_faulty_rows,
        )

    def refuse(self, kind: str) -> None:
        """Raise a usage error for a choice that a kind of file does not leave."""
        for option, value in (("--delimiter", self.delimiter), ("--encoding", self.encoding)):
            fixed = kind == ".parquet" or (option == "--delimiter" and kind != ".csv")
            if value is not None and fixed:
                raise UsageError(
                    f"{option} does not go with a {kind} file",
                    hint=f"Leave {option} out, or save the file as CSV",
                )

    def encoding_of(self, path: Path) -> str:
        if self.encoding is not None:
            return self.encoding
        with path.open("rb") as stream:
            start = stream.read(4)
        return next((name for mark, name in _MARKS if start.startswith(mark)), _DEFAULT)


def _delimiter(given: str) -> str:
    found = DELIMITERS.get(given.lower(), "\t" if given == "\\t" else given)
    if len(found) != 1 or found in '"\r\n' or found.isalnum():
        raise UsageError(
            f"'{given}' parts no fields",
            hint=f"Give one sign to --delimiter, or one of {', '.join(DELIMITERS)}",
        )
    return found


def _encoding(given: str) -> str:
    try:
        codec = codecs.lookup(given)
        "".encode(given)  # refuses codecs that make no text, such as base64
    except (LookupError, ValueError):
        raise UsageError(
            f"There is no encoding '{given}'", hint="Such as utf-8, cp1252, latin-1 or utf-16"
        ) from None
    return _DEFAULT if codec.name == "utf-8" else codec.name


@contextmanager
def decoding(path: Path, encoding: str) -> Iterator[None]:
    """Inside, bytes that are no text of this encoding are a usage error that shows where."""
    try:
        yield
    except UnicodeError as error:
        if encoding != _DEFAULT:
            raise UsageError(
                f"{path.name} is no {encoding} text",
                hint="Name its encoding with --encoding, or save the file as UTF-8",
            ) from error
        raise not_utf8_file(path, path.name) from error


def not_utf8_file(path: Path, name: object) -> UsageError:
    """The error about a file that is no UTF-8, with what another encoding would make of it."""
    content = path.read_bytes()
    said = not_utf8(name, content)
    shown = _as_western(content)
    return UsageError(
        said,
        hint="Save the file as UTF-8"
        + (f", or add --encoding cp1252 if '{shown}' is what stands there" if shown else ""),
    )


def _as_western(content: bytes) -> str | None:
    """The first word that is no UTF-8 in the encoding that such files mostly are in."""
    for word in content.split():
        try:
            word.decode("utf-8")
        except UnicodeDecodeError as error:
            try:
                text = word[max(0, error.start - 20) : error.start + 20].decode("cp1252")
            except UnicodeDecodeError:
                return None
            return text if text.isprintable() else None
    return None


@dataclass(frozen=True)
class Fault:
    """What is wrong with one row.

    Attributes:
        number: of the row, as ``data.tables.Table`` counts.
        what: is wrong, for a message.
        hint: how to repair it.
    """

    number: int
    what: str
    hint: str


def told(faults: Sequence[Fault], file: str, unit: str, rows: int) -> str:
    """Rows at fault in one line: which, how many, and what is wrong with the first five.

    Args:
        faults: one per row, in their order.
        file: its name.
        unit: ``line`` or ``row``.
        rows: of the file, those at fault included.
    """
    kinds = {fault.what for fault in faults}
    first = faults[:_NAMED_FAULTS]
    more = ", ..." if len(faults) > len(first) else ""
    if len(faults) == 1:
        return f"{file}, {unit} {faults[0].number}: {faults[0].what}"
    if len(kinds) == 1:
        listed = ", ".join(str(fault.number) for fault in first)
        return f"{file}, {len(faults)} {unit}s ({listed}{more}): {faults[0].what}"
    listed = ", ".join(f"{unit} {fault.number} ({fault.what})" for fault in first)
    return f"{file}, {len(faults)} of {rows} rows are at fault: {listed}{more}"


def found_delimiter(path: Path, encoding: str) -> str:
    """What parts the fields of a CSV file: what all its first rows agree about.

    Raises:
        UsageError: two signs part them equally well.
    """
    agreeing: dict[str, float] = {}
    for delimiter in _TRIED:
        try:
            rows = [
                row
                for _, row in islice(
                    records(path, delimiter=delimiter, quoted=True, encoding=encoding),
                    _LOOKED_AT,
                )
            ]
        except UsageError:
            continue  # its quotes make no sense so
        if rows and len(rows[0]) > 1:
            agreeing[delimiter] = sum(len(row) == len(rows[0]) for row in rows) / len(rows)
    if not agreeing:
        return _TRIED[0]
    best = [sign for sign, share in agreeing.items() if share == max(agreeing.values())]
    if len(best) > 1 and agreeing[best[0]] == 1:
        signs = " and ".join(map(repr, best))
        raise UsageError(
            f"{path.name}: {signs} part its rows equally well",
            hint="Say which one does with --delimiter",
        )
    return best[0]


def records(
    path: Path,
    *,
    delimiter: str,
    quoted: bool,
    encoding: str = _DEFAULT,
    faults: list[Fault] | None = None,
) -> Iterator[tuple[int, list[str]]]:
    """The rows of a delimited text file with the number of the line where each begins.

    Blank lines are left out.

    Args:
        path: of the file.
        delimiter: between fields.
        quoted: texts may stand in double quotes (RFC 4180).
        encoding: of the file.
        faults: takes rows of one line that break the rules of quoting; None makes them errors.

    Raises:
        UsageError: the file breaks the rules of quoting over several lines, or a field is without
            end: nobody can say how many rows that swallows.
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
            while True:
                try:
                    row = next(reader)
                except StopIteration:
                    return
                except csv.Error as error:
                    fault = Fault(
                        start,
                        f"not a readable row ({error})",
                        "Check the quotes around that line's texts",
                    )
                    if faults is None or reader.line_num > start or "end of data" in str(error):
                        raise UsageError(
                            told([fault], path.name, "line", 1), hint=fault.hint
                        ) from error
                    faults.append(fault)
                else:
                    if row:
                        yield start, row
                start = reader.line_num + 1
    finally:
        csv.field_size_limit(limit)
