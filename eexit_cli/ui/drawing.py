"""A sheet on the terminal, in the layout that fits its width."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from rich import box
from rich.table import Table
from rich.text import Text

from eexit_cli.core.text import readable
from eexit_cli.ui.layout import (
    ELLIPSIS,
    GAP,
    Extent,
    Part,
    arrange,
    extent,
    shortened_middle,
    telling_apart,
)

if TYPE_CHECKING:
    from rich.console import Console, ConsoleOptions, RenderableType

    from eexit_cli.ui.tables import Column, Sheet


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
