"""Where words go: results to stdout, hints to stderr; for people, for programs, or hardly any."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import typer

if TYPE_CHECKING:
    from rich.console import Console, RenderableType

    from eexit_cli.core.protocols import Progress
    from eexit_cli.ui.tables import Sheet

PIPE_WIDTH = 160
"""Columns of a table that goes to a file or a pipe, which has no width of its own."""


@dataclass(frozen=True)
class Output:
    """How a command speaks.

    Attributes:
        as_json: one JSON document on stdout, and nothing else there.
        quiet: no progress, no hints; ids and paths only.
        format: how tables are printed: table, json, csv, markdown or latex; None is table.
    """

    as_json: bool = False
    quiet: bool = False
    format: str | None = None

    @property
    def for_people(self) -> bool:
        """Are headings, examples and colours wanted beside the table?"""
        return not self.as_json and not self.quiet and self.format in (None, "table")

    @property
    def rounds(self) -> bool:
        """Do tables carry labels and rounded numbers, in place of raw values?"""
        return self.format in (None, "table", "markdown", "latex")

    @cached_property
    def console(self) -> Console:
        """stdout, made on first use: rich is not needed to print JSON."""
        from rich.console import Console

        console = Console(highlight=False)
        if not console.is_terminal and "COLUMNS" not in os.environ:
            console.width = PIPE_WIDTH
        return console

    @contextmanager
    def progress(self) -> Iterator[Progress]:
        """The display for a pipeline, on stderr: bars, plain lines, or nothing."""
        from eexit_cli.ui.progress import display

        with display(quiet=self.quiet) as progress:
            yield progress

    def document(self, document: dict[str, Any]) -> None:
        """Print a document as JSON."""
        typer.echo(json.dumps(document, indent=2, ensure_ascii=False, allow_nan=False))

    def lines(self, lines: Iterable[str]) -> None:
        """Print ids or paths, one a line, as scripts read them."""
        for line in lines:
            typer.echo(line)

    def sheet(self, sheet: Sheet) -> None:
        """Print a table in the format that the user chose."""
        from eexit_cli.ui.tables import render

        if self.format in (None, "table"):
            self.console.print(sheet.drawn())
        else:
            typer.echo(render(sheet, str(self.format)), nl=False)

    def result(self, document: dict[str, Any], sheet: Sheet, *quiet_lines: str) -> bool:
        """Print a result in the user's form: a document, a table, or a few bare lines.

        Returns:
            True when a person reads along, so that examples and hints may follow.
        """
        if self.as_json:
            self.document(document)
        elif self.quiet and self.format is None:
            self.lines(quiet_lines)
        else:
            self.sheet(sheet)
        return self.for_people

    def say(self, line: RenderableType = "") -> None:
        """One line of a screen for people: markup, in which text from elsewhere must be escaped."""
        if self.for_people:
            self.console.print(line)

    def hint(self, text: str) -> None:
        """One line on stderr: what to do next, where a file went."""
        if not self.quiet:
            typer.echo(text, err=True)
