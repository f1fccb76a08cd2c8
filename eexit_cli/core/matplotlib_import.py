"""Importing matplotlib as it comes, whatever the user has set it to for other programs.

On import it reads the first ``matplotlibrc`` of several places, the working folder's among them,
and takes a backend from ``MPLBACKEND``; one that it does not know, or a file that is no text, ends
the import. Our figures need neither: they start from its own defaults and draw on no screen.
TextAttack imports it too.
"""

from __future__ import annotations

import contextlib
import importlib.util
import logging
import os
import sys
from collections.abc import Iterator
from pathlib import Path

_VARIABLES = ("MPLBACKEND", "MATPLOTLIBRC")


def import_matplotlib() -> None:
    """Import it with its own defaults; nothing where it was imported already, or is missing."""
    if "matplotlib" in sys.modules:
        return
    package = importlib.util.find_spec("matplotlib")
    if package is None or package.origin is None:
        return  # the import that follows says so in its own words
    # It warns of building its list of fonts, and of a home that it cannot write to.
    logging.getLogger("matplotlib").setLevel(logging.ERROR)
    with _without_settings(Path(package.origin).parent / "mpl-data"):
        import matplotlib  # noqa: F401


@contextlib.contextmanager
def _without_settings(defaults: Path) -> Iterator[None]:
    """Inside, the file of settings in the working folder, which comes first, is matplotlib's."""
    kept = {name: os.environ.pop(name, None) for name in _VARIABLES}
    try:
        before = os.getcwd()
    except OSError:
        before = None  # the folder was deleted; nothing can be read there either
    os.chdir(defaults)
    try:
        yield
    finally:
        if before is not None:
            os.chdir(before)
        os.environ.update({name: value for name, value in kept.items() if value is not None})
