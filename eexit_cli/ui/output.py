"""Where words go: results to stdout, hints to stderr; for people, for programs, or hardly any."""

from __future__ import annotations

import os
import sys
import textwrap
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

from eexit_cli.core.text import json_text, readable
from eexit_cli.ui import streams

if TYPE_CHECKING:
    from rich.console import RenderableType

    from eexit_cli.core.protocols import Progress
    from eexit_cli.ui.console import Screen
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
    def console(self) -> Screen:
        """stdout, made on first use: rich is not needed to print JSON."""
        from eexit_cli.ui.console import Screen

        console = Screen()
        if not console.is_terminal and "COLUMNS" not in os.environ:
            console.width = PIPE_WIDTH
        return console

    @contextmanager
    def progress(self) -> Iterator[Progress]:
        """The display for a pipeline, on stderr: bars, plain lines, or nothing."""
        from eexit_cli.ui.progress import display

        with display(quiet=self.quiet) as progress, streams.aside(quiet=self.quiet):
            yield progress

    def document(self, document: dict[str, Any]) -> None:
        """Print a document as JSON, valid and exact in whatever encoding stdout has."""
        streams.write(json_text(document, streams.encoding_of(sys.stdout)))

    def lines(self, lines: Iterable[str]) -> None:
        """Print ids, paths or answers, one a line, as scripts read them.

        What is no text in them is written out here as everywhere; ``--json`` has the exact names.
        """
        for line in lines:
            streams.write(readable(line, streams.encoding_of(sys.stdout)))

    def sheet(self, sheet: Sheet) -> None:
        """Print a table in the format that the user chose."""
        from eexit_cli.ui.tables import render

        if self.format in (None, "table"):
            self.console.print(sheet.drawn(self.console.encoding))
        else:
            text = render(sheet, str(self.format), streams.encoding_of(sys.stdout))
            streams.write(text, newline=False)

    def sheets(self, *sheets: Sheet) -> None:
        """Several tables with a blank line between, as the screen, Markdown and LaTeX show them."""
        for number, sheet in enumerate(sheets):
            if number and not self.for_people:
                streams.write("")
            self.sheet(sheet)

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

    def paragraph(self, text: object, style: str = "") -> None:
        """Sentences in lines that are read with ease, however wide the terminal is."""
        from rich.markup import escape

        for line in textwrap.wrap(str(text), min(96, self.console.width)):
            self.say(f"[{style}]{escape(line)}[/]" if style else escape(line))

    def hint(self, text: str) -> None:
        """One line on stderr: what to do next, where a file went."""
        if not self.quiet:
            streams.tell(text)
