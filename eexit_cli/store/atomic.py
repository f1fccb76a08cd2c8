"""Files that are there whole or not at all."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """A temporary path beside ``path`` that takes its place when the block ends without error.

    The block writes and closes the temporary file. A reader sees the old file or the new one,
    never a part; whatever goes wrong (full disk, no permission, Ctrl-C), the temporary file is
    removed and the old one is as it was.

    Raises:
        OSError: the file cannot be written; its ``filename`` is ``path``, not the temporary one.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}-{secrets.token_hex(3)}.tmp")
    try:
        with named_errors(path):
            yield temporary
            with temporary.open("rb+") as stream:
                os.fsync(stream.fileno())
            os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def write_atomically(path: Path, content: bytes) -> None:
    """Write a whole file: temporary file in the same folder, fsync, replace."""
    with atomic_path(path) as temporary:
        temporary.write_bytes(content)


@contextmanager
def named_errors(path: Path) -> Iterator[None]:
    """Give an OSError the file that the user knows.

    A full disk is reported by ``write``, whose error has no file name at all, and ``replace``
    names the temporary file beside the real one.
    """
    try:
        yield
    except OSError as error:
        if error.errno is None:
            raise
        raise OSError(error.errno, error.strerror, str(path)) from error
