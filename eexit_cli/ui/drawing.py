"""A sheet on the terminal: no word broken, no number wrapped, nothing left out.

A table that is too wide wraps its headings and its columns of text at spaces. Where that is not
enough it becomes several tables below each other, each of which begins with the columns that tell
the rows apart; and where not even these have room, one block of lines per row.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from rich import box
from rich.cells import cell_len
from rich.table import Table
from rich.text import Text

from eexit_cli.core.text import readable

if TYPE_CHECKING:
    from rich.console import Console, ConsoleOptions, RenderableType

    from eexit_cli.ui.tables import Column, Sheet

COMFORTABLE = 16
"""Text is not wrapped to fewer cells, while there is another way."""

GAP = 2
"""Cells between two columns, and left and right of the table together."""

ELLIPSIS = "…"
_TAIL = 5


@dataclass(frozen=True)
class Extent:
    """What a column needs, in cells of the terminal.

    Attributes:
        natural: nothing is wrapped.
        narrow: headings and text are wrapped, at spaces only, and ids shortened.
        shortened: gets more than ``narrow`` only when the other columns have all they want.
    """

    natural: int
    narrow: int
    shortened: bool = False


@dataclass(frozen=True)
class Part:
    """One of the tables.

    Attributes:
        columns: places in the sheet.
        widths: of each, in cells.
    """

    columns: tuple[int, ...]
    widths: tuple[int, ...]


def extent(
    heading: str, cells: Sequence[str], *, wraps: bool, shortest: int | None = None
) -> Extent:
    """What one column needs.

    Args:
        heading: above it; may be wrapped.
        cells: all of them.
        wraps: they may be wrapped.
        shortest: they may be shortened to so many cells.
    """
    body = max((_widest(cell.split("\n")) for cell in cells), default=0)
    narrow = body
    if shortest is not None:
        narrow = min(shortest, body)
    elif wraps:
        words = [word for cell in cells for word in cell.split()]
        narrow = max(_widest(words), min(COMFORTABLE, body))
    return Extent(
        natural=max(body, _widest(heading.split("\n")), 1),
        narrow=max(narrow, _widest(heading.split()), 1),
        shortened=shortest is not None,
    )


def _widest(texts: Sequence[str]) -> int:
    return max(map(cell_len, texts), default=0)


def telling_apart(rows: Sequence[Sequence[str]]) -> int:
    """How many columns, from the left, tell the rows apart; 1 where no few of them do."""
    most = len(rows[0]) // 2 if rows else 1
    for count in range(1, most + 1):
        if len({tuple(row[:count]) for row in rows}) == len(rows):
            return count
    return 1


def arrange(extents: Sequence[Extent], key: int, width: int, *, whole: bool) -> list[Part] | None:
    """The tables that show all columns within ``width``; None where there are none.

    Args:
        extents: of each column.
        key: columns from the left that every table repeats.
        width: cells.
        whole: all columns stay in one table, at the price of broken words.
    """
    places = range(len(extents))
    if _needed([extents[i].narrow for i in places]) <= width:
        return [_part(places, extents, width)]
    if whole:
        room = max(width - GAP * len(extents), len(extents))
        capped = [Extent(e.natural, min(e.narrow, room // len(extents))) for e in extents]
        return [_part(places, capped, width)]
    groups = _groups(extents, key, width)
    if groups is None:
        return None
    # As even as so few tables allow: filled up to the narrowest width that needs no further one.
    for narrower in range(width - 1, 0, -1):
        found = _groups(extents, key, narrower)
        if found is None or len(found) > len(groups):
            break
        groups = found
    return [_part(group, extents, width) for group in groups]


def _needed(widths: Sequence[int]) -> int:
    return sum(widths) + GAP * len(widths)


def _groups(extents: Sequence[Extent], key: int, width: int) -> list[list[int]] | None:
    """Columns by table, each as full as it gets."""
    groups: list[list[int]] = []
    for place in range(key, len(extents)):
        longer = [*(groups[-1] if groups else range(key)), place]
        if _needed([extents[i].narrow for i in longer]) <= width:
            groups[-1:] = [longer]
            continue
        groups.append([*range(key), place])
        if _needed([extents[i].narrow for i in groups[-1]]) > width:
            return None
    return groups


def _part(columns: Sequence[int], extents: Sequence[Extent], width: int) -> Part:
    """Narrow columns share the room that is left, the most cramped first."""
    chosen = [extents[i] for i in columns]
    widths = [one.narrow for one in chosen]
    for _ in range(width - _needed(widths)):
        cramped = [
            (not one.shortened, one.natural / given, place)
            for place, (one, given) in enumerate(zip(chosen, widths, strict=True))
            if given < one.natural
        ]
        if not cramped:
            break
        widths[max(cramped)[2]] += 1
    return Part(tuple(columns), tuple(widths))


def shortened_middle(text: str, width: int, mark: str = ELLIPSIS) -> str:
    """The beginning and the end of an id; ``ResultStore.open`` takes it in place of the whole."""
    if len(text) <= width:
        return text
    return text[: width - _TAIL - len(mark)] + mark + text[-_TAIL:]


class Drawn:
    """Draws a sheet as one table, as several below each other, or as a block per row."""

    def __init__(self, sheet: Sheet, encoding: str = "utf-8") -> None:
        self._sheet = sheet
        # As they are shown, so that their widths are known.
        self._titles = [readable(column.title, encoding) for column in sheet.columns]
        self._cells = [
            [readable(column.cell(row), encoding) for column in sheet.columns] for row in sheet.rows
        ]
        self._headed = any(self._titles)
        self._mark = readable(ELLIPSIS, encoding)

    def __rich_console__(
        self, console: Console, options: ConsoleOptions
    ) -> Iterator[RenderableType]:
        if self._sheet.title is not None:
            yield Text(self._sheet.title, style="bold")
        parts = self.parts(options.max_width)
        if parts is None:
            yield from self._blocks(options.max_width)
        else:
            for part in parts:
                yield self._table(part)

    def parts(self, width: int) -> list[Part] | None:
        """The tables; None for blocks."""
        extents = [self._extent(place) for place in range(len(self._sheet.columns))]
        # Names and values without headings are one list, whatever stands in it.
        return arrange(extents, telling_apart(self._cells), width, whole=not self._headed)

    def _extent(self, place: int) -> Extent:
        column = self._sheet.columns[place]
        return extent(
            self._titles[place],
            [row[place] for row in self._cells],
            wraps=not (column.whole or column.numeric),
            shortest=column.shortest,
        )

    def _table(self, part: Part) -> Table:
        table = Table(
            header_style="bold",
            show_header=self._headed,
            box=box.SIMPLE_HEAD,
            padding=(0, 1, 0, 0),
            pad_edge=False,
        )
        columns = [self._sheet.columns[place] for place in part.columns]
        for place, column, width in zip(part.columns, columns, part.widths, strict=True):
            table.add_column(
                Text(self._titles[place]),
                justify="right" if column.numeric else "left",
                style=column.style,
                width=width,
                overflow="fold",
            )
        for row in self._cells:
            cells = [row[place] for place in part.columns]
            table.add_row(*map(self._fitted, columns, cells, part.widths))
        return table

    def _blocks(self, width: int) -> Iterator[RenderableType]:
        """A line per value, its heading before it; an empty line between rows."""
        columns = self._sheet.columns
        headings = [" ".join(title.split()) for title in self._titles]
        left = min(max(map(len, headings)), width // 3)
        right = width - left - GAP
        for row in self._cells:
            yield Text()
            block = Table(box=None, show_header=False, padding=(0, GAP, 0, 0), pad_edge=False)
            block.add_column(width=left, style="dim", overflow="fold")
            block.add_column(width=right, overflow="fold")
            for column, heading, cell in zip(columns, headings, row, strict=True):
                style = column.style or ""
                block.add_row(Text(heading), self._fitted(column, cell, right, style))
            yield block
        yield Text()

    def _fitted(self, column: Column, cell: str, width: int, style: str = "") -> Text:
        if column.shortest is not None:
            cell = shortened_middle(cell, width, self._mark)
        return Text(cell, style=style)
