"""A screen that is kept in place of being printed, so that a page shows what the terminal does."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from rich.text import Text

from eexit_cli.core.types import RunResult
from eexit_cli.ui.output import Output
from eexit_cli.ui.screens import show_result
from eexit_cli.ui.screens.words import Facts
from eexit_cli.ui.tables import Sheet

if TYPE_CHECKING:
    from rich.console import RenderableType

_OF_TERMINAL = re.compile(r"\w+:|\s")
"""How hints begin that say where files are and what to type next."""


@dataclass(frozen=True)
class Words:
    """A paragraph.

    Attributes:
        text: without markup.
        tone: note, good, warning, or empty.
    """

    text: str
    tone: str = ""


@dataclass(frozen=True)
class Table:
    """A sheet, written out.

    Attributes:
        title: its caption.
        headings: text and whether the column is right-aligned.
        rows: a text per cell, and the number behind it that sorts, where there is one.
        sortable: its rows have no order of their own to keep.
    """

    title: str
    headings: list[tuple[str, bool]]
    rows: list[list[tuple[str, float | None]]]
    sortable: bool

    @classmethod
    def of(cls, sheet: Sheet) -> Table:
        headings = [(" ".join(column.title.split()), column.numeric) for column in sheet.columns]
        return cls(
            title=sheet.title or "",
            headings=headings,
            rows=[
                [(column.cell(row), _number(row.get(column.key))) for column in sheet.columns]
                for row in sheet.rows
            ],
            sortable=bool(headings and headings[0][0]) and len(sheet.rows) > 2,
        )


def _number(value: Any) -> float | None:
    return value if isinstance(value, (int, float)) and not isinstance(value, bool) else None


@dataclass(frozen=True)
class Recorder(Output):
    """Takes what a screen says to people.

    Attributes:
        facts: of the line above everything.
        blocks: tables and paragraphs, in their order.
    """

    facts: dict[str, str] = field(default_factory=dict)
    blocks: list[Table | Words] = field(default_factory=list)

    def sheet(self, sheet: Sheet) -> None:
        if sheet.rows:
            self.blocks.append(Table.of(sheet))

    def say(self, line: RenderableType = "") -> None:
        if isinstance(line, Facts):
            self.facts.update(line.pairs)
        elif isinstance(line, str) and line:
            text = Text.from_markup(line)
            style = str(text.spans[0].style) if text.spans else ""
            self.blocks.append(Words(text.plain, _tone(style)))

    def paragraph(self, text: object, style: str = "") -> None:
        if text:
            self.blocks.append(Words(str(text), _tone(style)))

    def hint(self, text: str) -> None:
        if not _OF_TERMINAL.match(text):
            self.blocks.append(Words(text, "note"))


def _tone(style: str) -> str:
    tones = {"dim": "note", "bold green": "good", "bold yellow": "warning", "yellow": "warning"}
    return tones.get(style, "")


def recorded(result: RunResult) -> Recorder:
    """What the run's command showed, without the samples that it picked as examples."""
    recorder = Recorder()
    show_result(recorder, _WithoutRecords(result.document, result.path))
    return recorder


class _WithoutRecords(RunResult):
    def records(self) -> Iterator[dict[str, Any]]:
        return iter(())


def properties(pairs: Mapping[str, Any]) -> dict[str, str]:
    """Settings and versions as texts, nested names joined by dots; empty ones are left out."""
    found: dict[str, str] = {}
    for name, value in pairs.items():
        if isinstance(value, Mapping):
            found |= {f"{name}.{inner}": text for inner, text in properties(value).items()}
        elif isinstance(value, (list, tuple)):
            found[str(name)] = ", ".join(map(str, value))
        elif value is not None:
            found[str(name)] = str(value)
    return {name: text for name, text in found.items() if text}
