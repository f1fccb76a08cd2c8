"""Which letters a figure can print: fonts of this machine beside matplotlib's own."""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache
from typing import Any

from matplotlib import font_manager
from pandas import DataFrame, Series

from eexit_cli.core.text import escaped

OWN = "DejaVu Sans"
"""Comes with matplotlib, so that figures look alike everywhere."""

_FALLBACKS = (
    *(f"Noto Sans CJK {region}" for region in ("SC", "JP", "KR", "TC")),
    *("Source Han Sans SC", "Source Han Sans", "WenQuanYi Zen Hei", "WenQuanYi Micro Hei"),
    *("Droid Sans Fallback", "Microsoft YaHei", "Yu Gothic", "MS Gothic", "Malgun Gothic"),
    *("PingFang SC", "Hiragino Sans", "Apple SD Gothic Neo", "Arial Unicode MS", "Noto Sans"),
    *("Noto Sans Devanagari", "Noto Sans Thai", "Noto Emoji", "Segoe UI Symbol", "Nirmala UI"),
)
"""For letters that ours lacks. No fonts of coloured bitmaps: matplotlib cannot draw them."""


def families() -> list[str]:
    """Ours, then the fallbacks that are installed here."""
    installed = set(font_manager.fontManager.get_font_names())
    return [OWN, *(name for name in _FALLBACKS if name in installed)]


def printable(text: str) -> str:
    r"""The text as a figure can print it: letters without a glyph are written out, ``\u4e2d``."""
    shown = "".join(
        letter if _has_glyph(letter) else letter.encode("ascii", "backslashreplace").decode()
        for letter in escaped(text).replace("\t", " ").replace("\r", "")
    )
    # matplotlib leaves names out of legends that begin so.
    return f" {shown}" if shown.startswith("_") else shown


def printable_frame(frame: DataFrame) -> DataFrame:
    """A figure's table with all its texts printable."""
    return frame.assign(
        **{
            name: Series(
                [printable(value) if isinstance(value, str) else value for value in frame[name]],
                index=frame.index,
                dtype=frame[name].dtype,
            )
            for name in _texts(frame)
        }
    )


def lacking(frame: DataFrame, title: str | None) -> list[str]:
    """Letters of a figure that no font here has."""
    values: Iterable[Any] = (value for name in _texts(frame) for value in frame[name])
    texts = [title or "", *(value for value in values if isinstance(value, str))]
    letters = {letter for text in texts for letter in escaped(text) if not letter.isspace()}
    return sorted(letter for letter in letters if not _has_glyph(letter))


def _texts(frame: DataFrame) -> list[str]:
    return [str(name) for name in frame if frame[name].dtype.kind == "O"]


@lru_cache(maxsize=4096)
def _has_glyph(letter: str) -> bool:
    return letter == "\n" or any(font.get_char_index(ord(letter)) for font in _fonts())


@lru_cache(maxsize=1)
def _fonts() -> list[Any]:
    return [font_manager.get_font(font_manager.findfont(name)) for name in families()]
