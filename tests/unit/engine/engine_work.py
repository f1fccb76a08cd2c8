"""What the workers of these tests do."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from eexit_cli.core.errors import UsageError


def multiplying(factor: int, places: dict[str, str] | None = None) -> Callable[[Any], Any]:
    """Multiplies numbers; words do other things."""

    def do(payload: Any) -> Any:
        if isinstance(payload, int):
            return factor * payload
        return WORDS[payload]()

    return do


def _die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def _leave() -> None:
    sys.stderr.write("first\nthe last thing it said\n")
    sys.stderr.flush()
    os._exit(7)


def _sleep() -> None:
    time.sleep(600)


def _nap() -> int:
    time.sleep(0.3)
    return os.getpid()


def _refuse() -> None:
    raise UsageError("This cannot be", hint="Do otherwise")


def _fail() -> None:
    raise ZeroDivisionError("a bug")


def _print() -> str:
    print("printed by a worker")
    return "printed"


WORDS = {
    "die": _die,
    "leave": _leave,
    "sleep": _sleep,
    "nap": _nap,
    "refuse": _refuse,
    "fail": _fail,
    "print": _print,
    "threads": lambda: (os.environ["OMP_NUM_THREADS"], os.getpid()),
}


def dying() -> Callable[[Any], Any]:
    """No worker is ever set up."""
    os.kill(os.getpid(), signal.SIGKILL)
    raise AssertionError


def refusing() -> Callable[[Any], Any]:
    raise UsageError("No such model", hint="Name another")


def reading(folder: str, places: dict[str, str] | None = None) -> Callable[[Any], Any]:
    """Reads files of a folder, wherever it is."""
    place = Path((places or {}).get(folder, folder))
    return lambda name: ((place / name).read_text(), str(place))
