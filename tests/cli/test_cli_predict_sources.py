"""Where the texts of ``eexit predict`` come from: arguments, a file, standard input."""

from __future__ import annotations

import io
import json
from types import SimpleNamespace

import pytest


def _texts(done) -> list[str]:
    assert done.code == 0, done.err
    return [result["text"] for result in json.loads(done.out)["results"]]


@pytest.fixture
def piped(monkeypatch: pytest.MonkeyPatch):
    def pipe(content: bytes, *, terminal: bool = False) -> None:
        stdin = SimpleNamespace(buffer=io.BytesIO(content), isatty=lambda: terminal)
        monkeypatch.setattr("sys.stdin", stdin)

    return pipe


LINES = b"\xef\xbb\xbfa fine film\r\n\n   \ndull and long"
TEXTS = ["a fine film", "dull and long"]


def test_lines_of_a_file_and_of_standard_input(eexit, tiny_model, tmp_path, piped) -> None:
    def asked(*arguments: str) -> list[str]:
        return _texts(eexit("predict", "--model", tiny_model, *arguments, "--json"))

    file = tmp_path / "texts.txt"
    file.write_bytes(LINES)
    piped(b"never read")
    assert asked("--file", "texts.txt") == TEXTS
    assert asked("first", "--file", "texts.txt") == ["first", *TEXTS]
    piped(LINES)
    assert asked() == TEXTS
    piped(LINES)
    assert asked("first", "-", "last") == ["first", *TEXTS, "last"]
    piped(b"caf\xe9 noir\n")
    assert asked() == ["caf\ufffd noir"]


def test_nothing_to_read(eexit, tiny_model, tmp_path, piped) -> None:
    for terminal in (True, False):
        piped(b"", terminal=terminal)
        done = eexit("predict", "--model", tiny_model)
        assert done.code == 2
        assert "No text given" in done.err
    done = eexit("predict", "--model", tiny_model, "--file", "none.txt")
    assert done.code == 3
    assert "No file none.txt" in done.err
