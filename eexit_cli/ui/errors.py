"""What a failure looks like: one line that says what is wrong, one that names the repair."""

from __future__ import annotations

import errno
import os
import shlex
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import typer

from eexit_cli.core.errors import INTERRUPTED, EexitError, UsageError
from eexit_cli.ui import streams

# The class of everything that typer itself says about a command line. Older versions take it from
# click, newer ones from a copy inside typer; either way it stands two above BadParameter.
CommandLineError: type[Exception] = typer.BadParameter.__mro__[2]

_DISK_FULL = (errno.ENOSPC, errno.EDQUOT)
_NO_PERMISSION = (errno.EACCES, errno.EPERM, errno.EROFS)


class Interrupted(EexitError):  # noqa: N818 - it is none: the user asked for it
    """Ctrl-C. The hint says how to go on, where there is something to go on with."""

    exit_code = INTERRUPTED


def debugging() -> bool:
    """Does the user want tracebacks?"""
    return os.environ.get("EEXIT_DEBUG", "") not in ("", "0")


def show(error: EexitError) -> None:
    """Print the one or two lines of an error to stderr."""
    _line("Error", "red", error.message)
    if error.hint:
        _line("Hint", "yellow", error.hint)


def show_interrupted(error: EexitError) -> None:
    """The one line after Ctrl-C."""
    streams.tell(error.message + (f". {error.hint}" if error.hint else ""))


def _line(word: str, color: str, text: str) -> None:
    label = f"{word}:" if "NO_COLOR" in os.environ else typer.style(f"{word}:", fg=color, bold=True)
    streams.tell(" ".join(text.split()), label=f"{label} ", before=len(word) + 2)


def from_command_line(error: Exception) -> EexitError:
    """typer's complaint about a command line, in this program's form."""
    message = error.format_message()  # type: ignore[attr-defined]
    context = getattr(error, "ctx", None)
    help_command = f"See: {context.command_path if context else 'eexit'} --help"
    hint = help_command
    possibilities = getattr(error, "possibilities", None)
    if possibilities:
        message = f"No such option: {error.option_name}"  # type: ignore[attr-defined]
        hint = f"Did you mean {' or '.join(sorted(possibilities))}? {help_command}"
    elif " Did you mean " in message:
        message, _, meant = message.partition(" Did you mean ")
        hint = f"Did you mean {meant} {help_command}"
    return UsageError(message.strip().rstrip("."), hint=hint)


def from_environment(error: BaseException) -> EexitError | None:
    """A full disk or a missing permission, wherever it hides in the chain of causes.

    None for everything else: that is a bug, and keeps its traceback.
    """
    seen: set[int] = set()
    link: BaseException | None = error
    while link is not None and id(link) not in seen:
        seen.add(id(link))
        found = _named(link)
        if found is not None:
            return found
        link = link.__cause__ or link.__context__
    return None


def _named(error: BaseException) -> EexitError | None:
    path = getattr(error, "filename", None)
    where = f": {path}" if path else ""
    code = getattr(error, "errno", None)
    # Libraries written in Rust and C++ (safetensors, torch) only hand the system's words on.
    if code in _DISK_FULL or os.strerror(errno.ENOSPC) in str(error):
        return EexitError(
            f"The disk is full{where}",
            hint="Free some space, or choose another place with --results-dir or --output",
        )
    if code in _NO_PERMISSION:
        what = "read-only place" if code == errno.EROFS else "no permission"
        return EexitError(
            f"Cannot write or read here ({what}){where}",
            hint="Change the permissions, or choose another place with --results-dir or --output",
        )
    return None


@contextmanager
def naming_the_resumption(command: str, config: Any) -> Iterator[None]:
    """Turn Ctrl-C inside a command into one line that says how to go on."""
    started = time.time()
    try:
        yield
    except KeyboardInterrupt as error:
        raise Interrupted("Interrupted", hint=_resumption(command, config, started)) from error


def _resumption(command: str, config: Any, started: float) -> str | None:
    if config is None or not hasattr(config, "resume"):
        return None
    if isinstance(config.resume, bool):
        output = Path(config.completed().output)
        begun = output.with_name(f"{output.name}.training").is_dir()
        return f"Go on with: eexit {command} --output {output} --resume" if begun else None
    if getattr(config, "transfer", ()):
        return None  # a replay takes seconds and starts again: it has nothing to go on with
    run = config.resume or _unfinished(Path(config.results_dir), started)
    if not run:
        return None
    elsewhere = config.results_dir != type(config)().results_dir
    where = f" --results-dir {shlex.quote(str(config.results_dir))}" if elsewhere else ""
    return f"Go on with: eexit {command} --resume {run}{where}"


def _unfinished(results_dir: Path, started: float) -> str | None:
    """The run that this process began: the newest folder since then that has no document."""
    if not results_dir.is_dir():
        return None
    begun = [
        path.parent
        for path in results_dir.glob("*/config.json")
        if path.stat().st_mtime >= started - 1 and not (path.parent / "all_results.json").exists()
    ]
    return max(begun, key=lambda path: path.name).name if begun else None


def bug(error: BaseException) -> None:
    """Print an unexpected exception with its traceback."""
    import traceback

    streams.tell("".join(traceback.format_exception(error)).rstrip("\n"))
