"""A table, and the five ways to print it.

CSV and JSON carry the raw values under the flat names of ``all_results.json``; the table,
Markdown and LaTeX carry labels and rounded numbers.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

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

    def drawn(self) -> Drawn:
        """For the terminal, in whatever layout its width allows."""
        from eexit_cli.ui.drawing import Drawn

        return Drawn(self)


def sheet_of(rows: Sequence[Row], *, title: str | None = None) -> Sheet:
    """A table of dictionaries as they are: one column per name, in order of first appearance."""
    keys = list(dict.fromkeys(key for row in rows for key in row))
    columns = [
        Column(key, numeric=all(isinstance(row.get(key), (int, float, type(None))) for row in rows))
        for key in keys
    ]
    return Sheet(columns, rows, title)


def render(sheet: Sheet, form: str) -> str:
    """The table as text that ends in a newline.

    Args:
        sheet: the table.
        form: json, csv, markdown or latex.
    """
    return _RENDERERS[form](sheet)


def _json(sheet: Sheet) -> str:
    rows = [{column.key: row.get(column.key) for column in sheet.columns} for row in sheet.rows]
    return json.dumps(rows, indent=2, ensure_ascii=False, allow_nan=False, default=str) + "\n"


def _csv(sheet: Sheet) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow([column.key for column in sheet.columns])
    for row in sheet.rows:
        writer.writerow([row.get(column.key) for column in sheet.columns])
    return text.getvalue()


def _markdown(sheet: Sheet) -> str:
    def line(cells: Sequence[str]) -> str:
        return f"| {' | '.join(cells)} |\n"

    rule = line(["---:" if column.numeric else "---" for column in sheet.columns])
    head = line([_in_markdown(column.title) for column in sheet.columns])
    body = [line([_in_markdown(c.cell(row)) for c in sheet.columns]) for row in sheet.rows]
    return head + rule + "".join(body)


def _in_markdown(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace("|", "\\|")
    for character in "*_`<[":
        escaped = escaped.replace(character, f"\\{character}")
    return " ".join(escaped.split())


def _latex(sheet: Sheet) -> str:
    def line(cells: Sequence[str]) -> str:
        return f"{' & '.join(cells)} \\\\\n"

    places = "".join("r" if column.numeric else "l" for column in sheet.columns)
    head = line([_in_latex(column.title) for column in sheet.columns])
    body = [line([_in_latex(c.cell(row)) for c in sheet.columns]) for row in sheet.rows]
    return (
        f"\\begin{{tabular}}{{{places}}}\n\\hline\n{head}\\hline\n{''.join(body)}\\hline\n"
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


_RENDERERS: dict[str, Callable[[Sheet], str]] = {
    "json": _json,
    "csv": _csv,
    "markdown": _markdown,
    "latex": _latex,
}
