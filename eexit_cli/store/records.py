"""One JSON line per sample, appended as it is made; and what JSON can hold.

A line goes to the file in one write and ends in a newline, so a kill can damage the last line
only. Reading drops such a torn line, resuming cuts it off, and its sample is done again.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from eexit_cli.core.errors import EexitError
from eexit_cli.store.atomic import named_errors


def plain(value: Any) -> Any:
    """The value as strict JSON has it.

    NaN and the infinities become None: JSON has no word for them, and a reader that is not Python
    would refuse the file. NumPy's and torch's scalars and arrays become numbers and lists, paths
    become text, keys become text, sets are refused because they have no order.

    Raises:
        TypeError: the value is nothing that JSON can hold.
    """
    if value is None or isinstance(value, (str, bool)):
        return value
    if isinstance(value, int):
        return int(value)
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    if isinstance(value, os.PathLike):
        return str(value)
    if hasattr(value, "tolist"):  # NumPy and torch, without importing either
        return plain(value.tolist())
    raise TypeError(f"{type(value).__name__} has no place in JSON: {value!r}")


def encode(value: Any, *, indent: int | None = None) -> bytes:
    """Strict JSON in UTF-8, readable as it stands unless the text has lone surrogates."""
    content = plain(value)
    try:
        return json.dumps(content, ensure_ascii=False, allow_nan=False, indent=indent).encode()
    except UnicodeEncodeError:
        return json.dumps(content, allow_nan=False, indent=indent).encode()


class RecordFile:
    """``records.jsonl`` of a run.

    Args:
        path: the file; it need not exist.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._descriptor: int | None = None

    def append(self, record: Mapping[str, Any]) -> None:
        """Add one line and hand it to the operating system, so that a kill does not lose it.

        Raises:
            OSError: the disk is full or the file cannot be written; what was written of the line
                is taken back.
            TypeError: the record holds what JSON cannot.
        """
        line = memoryview(encode(record) + b"\n")
        with named_errors(self.path):
            descriptor = self._open()
            start = os.lseek(descriptor, 0, os.SEEK_END)
            try:
                while line:
                    line = line[os.write(descriptor, line) :]
            except BaseException:
                os.ftruncate(descriptor, start)
                raise

    def read(self) -> list[dict[str, Any]]:
        """All whole records; a torn last line is left out.

        Raises:
            EexitError: a line before the last is no JSON object.
        """
        return [record for record, _ in self._scan()]

    def repair(self) -> None:
        """Cut a torn last line off, so that the next record starts on a line of its own."""
        if not self.path.exists():
            return
        end = 0
        for _, line_end in self._scan():
            end = line_end
        if end < self.path.stat().st_size:
            with named_errors(self.path):
                os.truncate(self.path, end)

    def sync(self) -> None:
        """Wait until the records are on the disk itself."""
        if self._descriptor is not None:
            with named_errors(self.path):
                os.fsync(self._descriptor)

    def close(self) -> None:
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

    def _open(self) -> int:
        if self._descriptor is None:
            flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | getattr(os, "O_BINARY", 0)
            self._descriptor = os.open(self.path, flags, 0o666)
        return self._descriptor

    def _scan(self) -> Iterator[tuple[dict[str, Any], int]]:
        """Each whole record with the offset at which its line ends."""
        if not self.path.exists():
            return
        offset = 0
        # Bytes, because text mode would also split at the other line separators of Unicode.
        with self.path.open("rb") as stream:
            for number, line in enumerate(stream, start=1):
                record = _parse(line)
                if record is None:
                    # After a power cut the tail may be anything, newline included.
                    if stream.read(1):
                        raise EexitError(
                            f"{self.path} is damaged at line {number}",
                            hint="Delete that line to go on without its sample",
                        )
                    return
                offset += len(line)
                yield record, offset


def _parse(line: bytes) -> dict[str, Any] | None:
    if not line.endswith(b"\n"):
        return None
    try:
        record = json.loads(line)
    except ValueError:
        return None
    return record if isinstance(record, dict) else None
