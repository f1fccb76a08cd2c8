"""Text from elsewhere, made fit to be shown: nothing in it commands the reader's terminal.

Texts, labels, names and messages of libraries pass through here on their way to a screen, a table
or a figure. What is stored keeps its exact value.
"""

from __future__ import annotations

import json
import re
from typing import Any

_SURROGATES = "\ud800-\udfff"
_COMMANDS = re.compile(
    # Controls of ASCII and ISO 6429 but for tabs and ends of lines, separators of lines that only
    # some readers know, and the marks that reorder or hide what stands after them.
    r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]|\r(?!\n)"
    rf"|[{_SURROGATES}]"
)
_LONE = re.compile(rf"[{_SURROGATES}]")

REPLACEMENT = "\ufffd"
"""Stands where a character was that is none."""

_LOOKALIKES = {"→": "->", "…": "...", "✓": "*"}
"""Signs that our own screens draw with, for encodings that lack them."""


def escaped(text: str, encoding: str = "utf-8") -> str:
    r"""The text with everything that is not for reading written out, as in ``\x1b`` or ``\u4e2d``.

    Args:
        text: anything; lone surrogates too.
        encoding: characters that it lacks are written out as well.
    """
    shown = _COMMANDS.sub(_written_out, text)
    try:
        shown.encode(encoding)
    except UnicodeEncodeError:
        shown = shown.encode(encoding, "backslashreplace").decode(encoding)
    return shown


def readable(text: str, encoding: str = "utf-8") -> str:
    """As :func:`escaped`, for people: a few signs have an ASCII look-alike."""
    for sign, lookalike in _LOOKALIKES.items():
        if sign in text and not _holds(encoding, sign):
            text = text.replace(sign, lookalike)
    return escaped(text, encoding)


def json_text(value: Any, encoding: str = "utf-8", **options: Any) -> str:
    """Indented strict JSON that any reader of the encoding gets back exactly.

    Args:
        value: what JSON can hold.
        encoding: of the stream; where it lacks a character, JSON's own escapes stand for all.
        **options: of ``json.dumps``.
    """
    text = json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False, **options)
    # JSON itself escapes the controls of ASCII only; between strings there are none but newlines.
    text = _COMMANDS.sub(lambda match: f"\\u{ord(match[0]):04x}", text)
    if _holds(encoding, text):
        return text
    return json.dumps(value, indent=2, ensure_ascii=True, allow_nan=False, **options)


def is_whole(text: str) -> bool:
    """Is this valid Unicode? A half of a pair of surrogates is not, nor a byte that Python kept."""
    return _LONE.search(text) is None


def made_whole(text: str) -> str:
    """The text with U+FFFD for what is no character, as every decoder of UTF-8 has it."""
    return _LONE.sub(REPLACEMENT, text)


def not_utf8(name: object, content: bytes) -> str:
    """What to say of a file that is no UTF-8 text: the line where it stops being that."""
    for number, line in enumerate(content.split(b"\n"), start=1):
        try:
            line.decode("utf-8")
        except UnicodeDecodeError:
            return f"{name} is not UTF-8 text (line {number})"
    return f"{name} is not UTF-8 text"


def _holds(encoding: str, text: str) -> bool:
    try:
        text.encode(encoding)
    except UnicodeEncodeError:
        return False
    return True


def _written_out(match: re.Match[str]) -> str:
    code = ord(match[0])
    if 0xDC80 <= code <= 0xDCFF:
        code -= 0xDC00  # a byte of a name or an argument that is not UTF-8, kept by Python
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}"
