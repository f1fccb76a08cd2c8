"""A process that attacks samples for another one: ``python -m eexit_cli.pipelines.attack.worker``.

Its argument is its folder for temporary files, which it takes along however it ends; after a
SIGKILL the run that started it does.

It reads JSON lines from stdin, the first one the run's settings, then one sample each, and answers
each with a line. It ends when stdin does, so no worker outlives the run that started it.
"""

from __future__ import annotations

import atexit
import json
import os
import shutil
import signal
import sys
import traceback
from functools import partial
from types import FrameType
from typing import IO, Any

from eexit_cli.core.errors import EexitError


def main() -> None:
    """Answer lines until there are none."""
    # Ctrl-C reaches every process of the terminal; the run that started this one decides.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    scratch = sys.argv[1]
    signal.signal(signal.SIGTERM, partial(_end, scratch))
    atexit.register(shutil.rmtree, scratch, ignore_errors=True)
    # Libraries print to stdout; the answers keep a channel of their own.
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "w", encoding="utf-8")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    lines = sys.stdin
    try:
        _serve(lines, answers)
    except EexitError as error:
        _answer(answers, {"error": _told(error)})
    except Exception:
        _answer(answers, {"bug": traceback.format_exc()})


def _serve(lines: IO[str], answers: IO[str]) -> None:
    setup = json.loads(next(lines))
    import torch

    torch.set_num_threads(1)
    from eexit_cli.config.attack import AttackConfig
    from eexit_cli.config.resume import config_from
    from eexit_cli.families.opening import open_model
    from eexit_cli.pipelines.attack.attacker import Attacker

    config = config_from(AttackConfig, setup["config"])
    attacker = Attacker(config, open_model(config), learned=setup["learned"])
    _answer(answers, {"ready": True})
    for line in lines:
        job = json.loads(line)
        record = attacker.attack(job["recipe"], job["sample"])
        _answer(answers, {"record": record, "tokens": attacker.tokens})


def _end(scratch: str, number: int, frame: FrameType | None) -> None:
    """Die of the signal as any process does, with the folder gone: the run may die of it too."""
    shutil.rmtree(scratch, ignore_errors=True)
    signal.signal(number, signal.SIG_DFL)
    os.kill(os.getpid(), number)


def _answer(answers: IO[str], content: dict[str, Any]) -> None:
    from eexit_cli.store.records import plain

    answers.write(json.dumps(plain(content)) + "\n")
    answers.flush()


def _told(error: EexitError) -> dict[str, Any]:
    return {"kind": type(error).__name__, "message": error.message, "hint": error.hint}


if __name__ == "__main__":
    main()
