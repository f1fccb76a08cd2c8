"""What runs in a worker, whoever started it."""

from __future__ import annotations

import os
import shutil
import signal
import sys
import tempfile
import threading
import traceback
from collections.abc import Callable, Mapping
from functools import partial
from types import FrameType
from typing import Any

from eexit_cli.core.errors import EexitError
from eexit_cli.engine import Raised, Ready, Result, Work

ONE_THREAD = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}

_do: Callable[[Any], Any] | None = None


class BugError(RuntimeError):
    """An error of a worker that is nobody's message; it holds the traceback."""


def set_up(work: Work, places: Mapping[str, str] | None = None) -> Ready | Raised:
    """Make what does the jobs, with one thread."""
    global _do
    os.environ.update(ONE_THREAD)
    import torch

    torch.set_num_threads(1)
    try:
        more = {"places": dict(places)} if places else {}
        _do = work.make(*work.arguments, **more)
    except Exception as error:
        return _raised(error)
    return Ready()


def do(payload: Any) -> Result | Raised:
    """Do a job."""
    assert _do is not None
    try:
        return Result(_do(payload))
    except Exception as error:
        return _raised(error)


def _raised(error: Exception) -> Raised:
    """What can be told in a line travels as it is, the rest as its traceback."""
    if isinstance(error, EexitError):
        return Raised(error)
    return Raised(BugError(f"a worker failed:\n{traceback.format_exc()}"))


def set_up_process(work: Work, log: str) -> Ready | Raised:
    """As :func:`set_up`, in a process of its own, which dies with the one that started it.

    Args:
        log: gets what libraries print.
    """
    import multiprocessing
    from multiprocessing.util import Finalize

    scratch = tempfile.gettempdir()
    output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    for stream in (1, 2):
        os.dup2(output, stream)
    os.close(output)
    # Ctrl-C reaches every process of the terminal; the run that started this one decides.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, partial(_end, scratch))
    # Of multiprocessing's own exit, which is all that pebble runs where a pipe has broken.
    Finalize(None, shutil.rmtree, (scratch,), {"ignore_errors": True}, exitpriority=0)
    parent = multiprocessing.parent_process()
    assert parent is not None

    def follow() -> None:
        parent.join()
        shutil.rmtree(scratch, ignore_errors=True)
        os._exit(1)

    threading.Thread(target=follow, daemon=True).start()
    return set_up(work)


def _end(scratch: str, number: int, frame: FrameType | None) -> None:
    """Die of the signal as any process does, with the folder gone: the run may die of it too."""
    shutil.rmtree(scratch, ignore_errors=True)
    signal.signal(number, signal.SIG_DFL)
    os.kill(os.getpid(), number)


def environment() -> dict[str, str]:
    """One thread for each numeric library, and the modules and NLTK data of here."""
    found = {**ONE_THREAD, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    nltk = sys.modules.get("nltk")
    if nltk is not None:
        found["NLTK_DATA"] = os.pathsep.join(nltk.data.path)
    return found
