"""stdout and stderr, whatever their encoding, and what libraries may say there.

Results are words of ours on stdout; everything else goes to stderr, and hardly anything when the
user wants quiet.
"""

from __future__ import annotations

import contextlib
import io
import logging
import os
import re
import shutil
import sys
import textwrap
import warnings
from collections.abc import Iterator
from typing import Any, TextIO

import typer

from eexit_cli.core.text import escaped, readable

_RAISE = ("strict", "surrogateescape", "surrogatepass")
"""Handlers of encoding errors that end in a traceback, or send bytes that nobody checked."""


def prepare() -> None:
    """Have stdout and stderr write out what their encoding lacks, unless they do it their way."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper) and stream.errors in _RAISE:
            stream.reconfigure(errors="backslashreplace")


def encoding_of(stream: TextIO | None) -> str:
    """Of a stream; UTF-8 where it names none."""
    return getattr(stream, "encoding", None) or "utf-8"


def write(text: str, *, newline: bool = True) -> None:
    """Text to stdout as it stands: escaped by whoever made it."""
    # A stream that is named is left alone; of ASCII ones typer would make UTF-8 on its own.
    typer.echo(text, file=sys.stdout, nl=newline)


def tell(text: str, *, label: str = "", before: int = 0) -> None:
    """A line for a person to stderr; on a terminal in lines that end between words.

    Args:
        text: of the line.
        label: before it, perhaps coloured.
        before: columns that the label takes.
    """
    shown = readable(text, encoding_of(sys.stderr))
    if sys.stderr is not None and sys.stderr.isatty():
        shown = in_lines(shown, shutil.get_terminal_size().columns, before)
    typer.echo(label + shown, file=sys.stderr)


_COMMAND = re.compile(r"(?:^|.*: |\s+)eexit \S")


def in_lines(text: str, width: int, before: int = 0) -> str:
    r"""The text broken between words; lines of a command end in ``\``, so that it can be copied.

    Args:
        text: one line, or several.
        width: columns of the terminal.
        before: columns that are taken at the start.
    """
    return "\n".join(
        _in_lines(line, width, before if number == 0 else 0)
        for number, line in enumerate(text.split("\n"))
    )


def _in_lines(line: str, width: int, before: int) -> str:
    if before + len(line) <= width:
        return line
    command = _COMMAND.match(line) is not None
    end = " \\" if command else ""
    indent = " " * (len(line) - len(line.lstrip()) + (6 if command else 0))
    parts = textwrap.wrap(
        line,
        max(20, width - len(end)),
        initial_indent=" " * before,
        subsequent_indent=indent,
        break_long_words=False,
        break_on_hyphens=False,
        drop_whitespace=True,
    )
    return f"{end}\n".join(parts)[before:]


@contextlib.contextmanager
def aside(*, quiet: bool) -> Iterator[None]:
    """Inside, libraries say nothing on stdout; on stderr what is text, or when quiet nothing.

    Holds for Python's own streams, logging and warnings, and for what C and child processes write
    to the descriptors behind them.
    """
    errors = _Nothing() if quiet else sys.stderr
    with contextlib.ExitStack() as stack:
        stack.enter_context(_shown_logs(quiet))
        stack.enter_context(warnings.catch_warnings())
        if quiet:
            if not sys.warnoptions:
                warnings.simplefilter("ignore")
            nowhere = stack.enter_context(open(os.devnull, "wb"))
            stack.enter_context(_descriptor(2, nowhere.fileno()))
            stack.enter_context(contextlib.redirect_stderr(errors))
        stack.enter_context(_descriptor(1, 2))
        stack.enter_context(contextlib.redirect_stdout(errors))
        warnings.showwarning = _show_warning  # type: ignore[assignment]
        yield


class _Nothing(io.TextIOBase):
    """Takes everything and keeps nothing; never closed, as handlers of logs hold on to it."""

    encoding = "utf-8"

    def write(self, text: str) -> int:
        return len(text)

    def close(self) -> None:
        return None


class _ShownRecord(logging.LogRecord):
    def getMessage(self) -> str:  # noqa: N802 - logging's own name
        return escaped(super().getMessage())


@contextlib.contextmanager
def _shown_logs(quiet: bool) -> Iterator[None]:
    before, level = logging.getLogRecordFactory(), logging.root.manager.disable
    logging.setLogRecordFactory(_ShownRecord)
    if quiet:
        logging.disable(logging.CRITICAL)
    try:
        yield
    finally:
        logging.setLogRecordFactory(before)
        logging.disable(level)


def _show_warning(message: Warning | str, category: type[Warning], *where: Any) -> None:
    typer.echo(escaped(f"{category.__name__}: {message}"), file=sys.stderr)


@contextlib.contextmanager
def _descriptor(number: int, target: int) -> Iterator[None]:
    """Send what is written to a descriptor elsewhere; nothing where it is closed."""
    try:
        kept = os.dup(number)
    except OSError:
        yield
        return
    try:
        os.dup2(target, number)
        yield
    finally:
        os.dup2(kept, number)
        os.close(kept)
