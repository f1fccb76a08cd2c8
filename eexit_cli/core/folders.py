"""Folders that are there whole or not at all."""

from __future__ import annotations

import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def whole_folder(folder: Path) -> Iterator[Path]:
    """A folder beside ``folder`` that takes its place when the block ends without error.

    Args:
        folder: is not there yet, or empty.
    """
    temporary = folder.with_name(f".{folder.name}.{os.getpid()}-{secrets.token_hex(3)}.tmp")
    temporary.mkdir(parents=True)
    try:
        yield temporary
        if folder.exists():
            folder.rmdir()
        os.replace(temporary, folder)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
