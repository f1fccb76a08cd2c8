"""How a table fits a terminal: no word broken, no number wrapped, nothing left out.

A table that is too wide wraps its headings and its columns of text at spaces. Where that is not
enough it becomes several tables below each other, each of which begins with the columns that tell
the rows apart; and where not even these have room, one block of lines per row.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

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
    from rich.cells import cell_len

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
