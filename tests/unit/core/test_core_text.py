"""Text is shown as text: controls and what an encoding lacks are written out, JSON stays exact."""

from __future__ import annotations

import json
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from eexit_cli.core.text import escaped, is_whole, json_text, made_whole, readable

ANY_TEXT = st.text(st.characters(exclude_categories=()))
"""Every code point, controls and halves of pairs of surrogates included."""

BIDI_COMMANDS = {"LRE", "RLE", "PDF", "LRO", "RLO", "LRI", "RLI", "FSI", "PDI"}


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("\x1b[31mred", r"\x1b[31mred"),
        ("\x1b]0;title\x07", r"\x1b]0;title\x07"),
        ("a\x9b31m\x85\x7f\x00", r"a\x9b31m\x85\x7f\x00"),
        ("back\x08\x08\rover", r"back\x08\x08\x0dover"),
        ("\u202egnp.exe\u2066", r"\u202egnp.exe\u2066"),
        ("half \ud83d of it", r"half \ud83d of it"),
        ("caf\udce9", r"caf\xe9"),
        ("two\u2028lines", r"two\u2028lines"),
        ("tab\tline\nline\r\nline", "tab\tline\nline\r\nline"),
        (r"C:\new [red] :smile: $x$", r"C:\new [red] :smile: $x$"),
        ("zażółć 中文 🙂 שלום", "zażółć 中文 🙂 שלום"),
    ],
)
def test_commands_are_written_out_and_text_is_left(text: str, shown: str) -> None:
    assert escaped(text) == shown
    assert escaped(shown) == shown


@given(ANY_TEXT)
def test_nothing_that_commands_a_terminal_is_left(text: str) -> None:
    left = escaped(text).replace("\r\n", "\n")
    for character in left:
        assert character in "\t\n" or unicodedata.category(character) not in (
            "Cc",
            "Cs",
            "Zl",
            "Zp",
        )
        assert unicodedata.bidirectional(character) not in BIDI_COMMANDS


@pytest.mark.parametrize("encoding", ["ascii", "cp1252", "gbk", "latin-1", "utf-8", "cp437"])
@given(text=ANY_TEXT)
def test_every_encoding_takes_what_is_shown(encoding: str, text: str) -> None:
    for shown in (escaped(text, encoding), readable(text, encoding)):
        assert shown.encode(encoding).decode(encoding) == shown


def test_what_an_encoding_lacks() -> None:
    assert escaped("żółw 中 🙂 → …", "cp1252") == r"\u017có\u0142w \u4e2d \U0001f642 \u2192 …"
    assert readable("1 → 2 …", "ascii") == "1 -> 2 ..."
    assert readable("1 → 2 …", "cp1252") == "1 -> 2 …"


@pytest.mark.parametrize("encoding", ["ascii", "cp1252", "gbk", "utf-8"])
@given(value=st.dictionaries(ANY_TEXT, ANY_TEXT | st.integers() | st.none()))
def test_json_is_exact_in_every_encoding(encoding: str, value: dict[str, object]) -> None:
    sent = json_text(value, encoding).encode(encoding).decode(encoding)
    # JSON joins the halves of a pair that Python keeps apart.
    assert json.loads(sent) == json.loads(json.dumps(value))
    assert escaped(sent) == sent


@given(ANY_TEXT)
def test_what_is_made_whole_is_unicode(text: str) -> None:
    whole = made_whole(text)
    assert is_whole(whole)
    assert len(whole) == len(text)
    whole.encode()
    try:
        text.encode()
    except UnicodeEncodeError:
        assert not is_whole(text)
    else:
        assert whole == text
