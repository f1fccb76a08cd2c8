"""Names of folders that libraries in Rust cannot read: bytes that are no UTF-8."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from eexit_cli.core.text import is_whole


@contextmanager
def utf8_path(folder: Path) -> Iterator[Path]:
    """The folder; inside, where its name is no UTF-8, a link to it whose name is.

    Raises:
        OSError: no link can be made.
    """
    if is_whole(str(folder)):
        yield folder
        return
    with tempfile.TemporaryDirectory(prefix="eexit-") as place:
        link = Path(place) / "folder"
        link.symlink_to(folder.absolute(), target_is_directory=True)
        yield link
