"""One label as it stands in a file: which spellings are the same label, and which are none."""

from __future__ import annotations

import math
import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from eexit_cli.core.text import is_whole as is_valid

_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d{1,3})?", re.ASCII | re.IGNORECASE)
_NOT_FINITE = re.compile(r"[+-]?(nan|inf|infinity)", re.IGNORECASE)
_BETWEEN_WORDS = re.compile(r"(?<=[^\W_])[\s_-]+(?=[^\W_])")

MISSING = frozenset(
    {"", "NA", "N/A", "n/a", "<NA>", "#NA", "#N/A", "#N/A N/A", "NaT", "None", "null", "NULL"}
)
"""What pandas, spreadsheets and databases write where there is no value. A class may be called so
all the same: then its name must be known, from the model or from ``--label-names``."""

_NAMED_ROWS = 5


@dataclass(frozen=True)
class Cell:
    """One label as it stands in a file.

    Attributes:
        value: text, number or truth value; anything else is an error to report.
        file: the file's name.
        unit: ``line`` or ``row``.
        number: of the row, as :class:`eexit_cli.data.tables.Table` counts.
    """

    value: Any
    file: str
    unit: str
    number: int

    @property
    def where(self) -> str:
        return f"{self.file}, {self.unit} {self.number}"


def rows_of(cells: Sequence[Cell]) -> str:
    """Where cells stand, in the words of an error message: the row, or how many and the first."""
    first = cells[0]
    if len(cells) == 1:
        return first.where
    listed = ", ".join(str(cell.number) for cell in cells[:_NAMED_ROWS])
    more = ", ..." if len(cells) > _NAMED_ROWS else ""
    return f"{first.file}, {len(cells)} {first.unit}s ({listed}{more})"


def number_of(value: Any) -> Decimal | None:
    """The finite number that a value is or spells, exactly; None for anything else.

    A truth value is none: it is a label of its own.
    """
    if isinstance(value, str):
        text = value.strip()
        return Decimal(text) if _NUMBER.fullmatch(text) else None
    if isinstance(value, bool) or not isinstance(value, (int, float, Decimal)):
        return None
    number = Decimal(repr(value)) if isinstance(value, float) else Decimal(value)
    return number if number.is_finite() else None


def is_whole(number: Decimal) -> bool:
    return number == number.to_integral_value()


def canonical(value: Any) -> str:
    """The one spelling of a label: 1, 1.0, "01" and " +1 " are "1"; text keeps its letters."""
    number = number_of(value)
    if number is None:
        return str(value).strip()
    if number == 0:
        return "0"  # not -0
    text = f"{number:f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


def fold(text: str) -> str:
    """Text without case, and with one space where words are parted by spaces, ``_`` or ``-``.

    Signs that part no words stay: "A-" is not "A".
    """
    normal = unicodedata.normalize("NFC", text.strip())
    return _BETWEEN_WORDS.sub(" ", normal).casefold()


def key(value: Any) -> str:
    """Equal for two spellings of the same label. Numbers are not folded: -1 is not 1."""
    return canonical(value) if number_of(value) is not None else fold(str(value))


def shown(value: Any) -> str:
    """A label in an error message."""
    text = "" if value is None else str(value).strip()
    return f"'{text}'" if text else "(empty)"


def fault_of(value: Any) -> tuple[str, str] | None:
    """What keeps a value from being a label, and the repair; None where nothing does.

    What stands for no value ("NA") is a label where a class is called so, which the caller knows.
    """
    if not may_be_label(value) and value is not None:
        kind = _KINDS.get(type(value), f"a {type(value).__name__}")
        return (
            f"the label is {kind}, not text or a number",
            "Write one label per row, or name another column with --label-column",
        )
    if isinstance(value, str) and not is_valid(value):
        # A class cannot be told by half of a character: another class may have the same one.
        return f"the label '{value}' holds half of a character", "Write the label as valid Unicode"
    if not _is_missing(value):
        return None
    said = shown(value)
    return (
        f"the label is {'empty' if said == '(empty)' else f'missing: {said}'}",
        "Fill it in or drop the row; a class that is called so is named with --label-names A,B,...",
    )


_KINDS: dict[type, str] = {
    list: "a list",
    tuple: "a list",
    dict: "an object",
    bytes: "a sequence of bytes",
}


def may_be_label(value: Any) -> bool:
    """False for what has parts, and for None."""
    return isinstance(value, (str, bool, int, float, Decimal))


def _is_missing(value: Any) -> bool:
    if value is None:
        return True
    if isinstance(value, str):
        text = value.strip()
        return text in MISSING or _NOT_FINITE.fullmatch(text) is not None
    if isinstance(value, Decimal):
        return not value.is_finite()
    return isinstance(value, float) and not math.isfinite(value)
