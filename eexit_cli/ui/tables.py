"""A table, and the five ways to print it.

CSV and JSON carry the raw values under the flat names of ``all_results.json``; the table,
Markdown and LaTeX carry labels and rounded numbers.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from eexit_cli.core.text import escaped, json_text, readable
from eexit_cli.ui.measures import label, written

if TYPE_CHECKING:
    from eexit_cli.ui.drawing import Drawn

Row = Mapping[str, Any]


@dataclass(frozen=True)
class Column:
    """One column.

    Attributes:
        key: the name in the rows, in CSV and in JSON.
        heading: what people read; by default the figure's label.
        text: how a row's value is written; by default as its name says.
        numeric: right-aligned.
        style: rich style on the terminal.
        whole: never wrapped; numbers never are.
        shortest: an id that may be shortened in its middle, to no fewer characters than this.
    """

    key: str
    heading: str | None = None
    text: Callable[[Row], str] | None = None
    numeric: bool = False
    style: str | None = None
    whole: bool = False
    shortest: int | None = None

    @property
    def title(self) -> str:
        return label(self.key) if self.heading is None else self.heading

    def cell(self, row: Row) -> str:
        return self.text(row) if self.text is not None else written(self.key, row.get(self.key))


@dataclass(frozen=True)
class Sheet:
    """Rows with their columns.

    Attributes:
        columns: left to right.
        rows: raw values by column key.
        title: above the table on the terminal, and the caption in LaTeX.
    """

    columns: Sequence[Column]
    rows: Sequence[Row]
    title: str | None = None

    def drawn(self, encoding: str = "utf-8") -> Drawn:
        """For a terminal of some encoding, in whatever layout its width allows."""
        from eexit_cli.ui.drawing import Drawn

        return Drawn(self, encoding)


def sheet_of(rows: Sequence[Row], *, align: bool = True) -> Sheet:
    """A table of dictionaries as they are: one column per name, in order of first appearance.

    Args:
        rows: raw values by name.
        align: numbers to the right.
    """

    def numeric(key: str) -> bool:
        return all(isinstance(row.get(key), (int, float, type(None))) for row in rows)

    keys = dict.fromkeys(key for row in rows for key in row)
    return Sheet([Column(key, numeric=align and numeric(key)) for key in keys], rows)


def render(sheet: Sheet, form: str, encoding: str = "utf-8") -> str:
    r"""The table as text that ends in a newline.

    Args:
        sheet: the table.
        form: json, csv, markdown or latex.
        encoding: where it goes; characters that it lacks are written out (``\u4e2d``), as is
            everything in a text that would command a terminal.
    """
    return _RENDERERS[form](sheet, encoding)


def _json(sheet: Sheet, encoding: str) -> str:
    rows = [{column.key: row.get(column.key) for column in sheet.columns} for row in sheet.rows]
    return json_text(rows, encoding, default=str) + "\n"


def _csv(sheet: Sheet, encoding: str) -> str:
    """Raw values. A text that begins as a formula does ("=1+1") stays what it is: data."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow([escaped(column.key, encoding) for column in sheet.columns])
    for row in sheet.rows:
        values = (row.get(column.key) for column in sheet.columns)
        writer.writerow(
            [value if value is None else escaped(str(value), encoding) for value in values]
        )
    return text.getvalue()


def _markdown(sheet: Sheet, encoding: str) -> str:
    def line(cells: Sequence[str]) -> str:
        return f"| {' | '.join(cells)} |\n"

    rule = line(["---:" if column.numeric else "---" for column in sheet.columns])
    titles, rows = _cells(sheet, encoding)
    body = [line([_in_markdown(cell) for cell in row]) for row in rows]
    return line([_in_markdown(title) for title in titles]) + rule + "".join(body)


def _cells(sheet: Sheet, encoding: str) -> tuple[list[str], list[list[str]]]:
    """Headings and rows as people read them."""
    titles = [readable(column.title, encoding) for column in sheet.columns]
    rows = [[readable(c.cell(row), encoding) for c in sheet.columns] for row in sheet.rows]
    return titles, rows


def _in_markdown(text: str) -> str:
    marked = text.replace("\\", "\\\\").replace("|", "\\|")
    for character in "*_`<[":
        marked = marked.replace(character, f"\\{character}")
    return " ".join(marked.split())


def _latex(sheet: Sheet, encoding: str) -> str:
    def line(cells: Sequence[str]) -> str:
        return f"{' & '.join(map(_in_latex, cells))} \\\\\n"

    places = "".join("r" if column.numeric else "l" for column in sheet.columns)
    titles, rows = _cells(sheet, encoding)
    return (
        f"\\begin{{tabular}}{{{places}}}\n\\hline\n{line(titles)}\\hline\n"
        f"{''.join(map(line, rows))}\\hline\n"
        "\\end{tabular}\n"
    )


_LATEX_WORDS = {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    **{character: f"\\{character}" for character in "&%$#_{}"},
}


def _in_latex(text: str) -> str:
    return " ".join("".join(_LATEX_WORDS.get(character, character) for character in text).split())


_RENDERERS: dict[str, Callable[[Sheet, str], str]] = {
    "json": _json,
    "csv": _csv,
    "markdown": _markdown,
    "latex": _latex,
}
