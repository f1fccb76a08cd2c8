"""A screen in any encoding, with texts of any kind: nothing fails, and no text is a command."""

from __future__ import annotations

import csv
import io
import json
import logging
import os
import re
import subprocess
import sys
import warnings
from collections.abc import Callable
from pathlib import Path

import pytest

from eexit_cli.main import main
from eexit_cli.ui.console import Screen
from eexit_cli.ui.output import Output
from eexit_cli.ui.progress import PlainProgress, display
from eexit_cli.ui.streams import prepare
from eexit_cli.ui.tables import Column, Sheet

ENCODINGS = ["ascii", "cp1252", "latin-1", "gbk", "utf-8"]
HOSTILE = "\x1b]0;owned\x07 \x9b31m \x1b[1A [red]good[/] :smile: $x$ 中文 zażółć 🙂 \u202e →"

Speak = Callable[..., "tuple[int, bytes, bytes]"]


@pytest.fixture
def speak(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Speak:
    """Run the command with both streams in an encoding; the exit code and their bytes."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")

    def run(encoding: str, *arguments: object, handler: str = "strict") -> tuple[int, bytes, bytes]:
        sinks = io.BytesIO(), io.BytesIO()
        streams = [io.TextIOWrapper(sink, encoding=encoding, errors=handler) for sink in sinks]
        with monkeypatch.context() as patch:
            patch.setattr(sys, "stdout", streams[0])
            patch.setattr(sys, "stderr", streams[1])
            code = main([str(argument) for argument in arguments])
            for stream in streams:
                stream.flush()
        return code, sinks[0].getvalue(), sinks[1].getvalue()

    return run


def commands_nothing(shown: str) -> bool:
    return re.search("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]", shown) is None


@pytest.mark.parametrize("encoding", ENCODINGS)
@pytest.mark.parametrize("form", ["table", "csv", "markdown", "latex", "json", "--json", "--quiet"])
def test_prediction(speak: Speak, tiny_model: Path, encoding: str, form: str) -> None:
    options = [form] if form.startswith("--") else ["--format", form]
    code, out, err = speak(encoding, "predict", "--model", tiny_model, *options, HOSTILE)
    assert code == 0
    shown = out.decode(encoding)
    assert commands_nothing(shown)
    assert commands_nothing(err.decode(encoding))
    if form == "--json":
        assert json.loads(shown)["results"][0]["text"] == HOSTILE
    elif form == "json":
        assert json.loads(shown)[0]["text"] == HOSTILE
    elif form == "csv":
        (row, *_) = csv.DictReader(io.StringIO(shown))
        assert row["text"].startswith(r"\x1b]0;owned\x07 \x9b31m \x1b[1A [red]good[/] :smile: $x$ ")
        assert row["text"].endswith("→" if encoding in ("utf-8", "gbk") else r"\u2192")
    elif form == "table":
        assert r'"\x1b]0;owned\x07 \x9b31m \x1b[1A [red]good[/] :smile: $x$ ' in shown
        assert ("中文" if encoding in ("utf-8", "gbk") else r"\u4e2d\u6587") in shown
        assert ("🙂" if encoding == "utf-8" else r"\U0001f642") in shown
        assert ("░" if encoding == "utf-8" else "#") in shown
    elif form == "latex":
        assert r"\textbackslash{}x1b]0;owned\textbackslash{}x07" in shown
        assert r"\$x\$" in shown
    elif form == "markdown":
        assert r"\\x1b]0;owned\\x07" in shown


@pytest.mark.parametrize("handler", ["strict", "surrogateescape", "replace", "namereplace"])
def test_handlers_of_the_user(speak: Speak, tiny_model: Path, handler: str) -> None:
    text = "fine ż"
    code, out, _ = speak("ascii", "predict", "--model", tiny_model, text, handler=handler)
    assert code == 0
    assert rb"fine \u017c" in out
    assert out.isascii()


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_errors(speak: Speak, encoding: str) -> None:
    code, out, err = speak(encoding, "predict", "--model", f"no/such {HOSTILE}", "x")
    assert code == 3
    assert out == b""
    assert err.decode(encoding).startswith("Error: No model folder no/such ")
    assert commands_nothing(err.decode(encoding))
    code, _, err = speak(encoding, "predict", "--device", HOSTILE, "x")
    assert code == 2
    assert commands_nothing(err.decode(encoding))


def _console(width: int = 60, encoding: str = "utf-8") -> tuple[Screen, io.BytesIO]:
    sink = io.BytesIO()
    stream = io.TextIOWrapper(sink, encoding=encoding, write_through=True)
    return Screen(file=stream, width=width), sink


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_tables_stay_in_their_width(encoding: str) -> None:
    console, sink = _console(60, encoding)
    rows = [{"a": "\x1b[31mred\x1b[0m", "b": "中文 zażółć", "c": "\u202e" * 3}] * 2
    sheet = Sheet([Column("a", "A\x07"), Column("b", "żółw"), Column("c", "C →")], rows)
    console.print(sheet.drawn(console.encoding))
    shown = sink.getvalue().decode(encoding)
    assert commands_nothing(shown)
    assert r"\x1b[31mred\x1b[0m" in shown
    assert "A\\x07" in shown
    from rich.cells import cell_len

    assert max(map(cell_len, shown.splitlines())) <= 60


def test_ids_are_shortened_with_dots_where_there_is_no_ellipsis() -> None:
    console, sink = _console(40, "ascii")
    rows = [
        {"run": f"20261121-033015-attack-{name}-{'x' * 30}-ab1{name}", "n": "y" * 12}
        for name in "12"
    ]
    sheet = Sheet([Column("run", "Run", shortest=21), Column("n", whole=True)], rows)
    console.print(sheet.drawn(console.encoding))
    shown = sink.getvalue().decode()
    assert re.search(r"20261121-\S+\.\.\.-ab11[ |]+y{12}", shown)


def test_screens_read_markup_of_ours_alone() -> None:
    output = Output()
    console, sink = _console(200)
    output.__dict__["console"] = console
    output.say("[bold]:warning: \x1b[31m[/]")
    output.sheet(Sheet([Column("a", ":smile: [red]")], [{"a": "[link=x]:x:[/]"}]))
    shown = sink.getvalue().decode()
    assert ":warning: \\x1b[31m" in shown
    assert ":smile: [red]" in shown
    assert "[link=x]:x:[/]" in shown


def test_progress_on_a_terminal_and_in_a_pipe(monkeypatch: pytest.MonkeyPatch) -> None:
    for encoding in ENCODINGS:
        sink = io.BytesIO()
        stream = io.TextIOWrapper(sink, encoding=encoding, write_through=True)
        PlainProgress(stream).message(f"Reading {HOSTILE}")
        assert commands_nothing(sink.getvalue().decode(encoding))
        monkeypatch.setattr(stream, "isatty", lambda: True, raising=False)
        monkeypatch.setenv("COLUMNS", "200")
        with (
            display(quiet=False, stream=stream) as progress,
            progress.task(f"Task {HOSTILE}", 2) as ticker,
        ):
            ticker.advance(note=HOSTILE)
            progress.message(HOSTILE)
        shown = sink.getvalue().decode(encoding)
        assert r"Task \x1b]0;owned\x07 \x9b31m \x1b[1A [red]good[/] :smile: $x$" in shown
        assert "\x1b]0" not in shown
        assert "\x07" not in shown
        assert "\x9b" not in shown


@pytest.mark.parametrize(
    ("handler", "then"),
    [
        ("strict", "backslashreplace"),
        ("surrogateescape", "backslashreplace"),
        ("surrogatepass", "backslashreplace"),
        ("replace", "replace"),
        ("namereplace", "namereplace"),
    ],
)
def test_no_stream_raises(monkeypatch: pytest.MonkeyPatch, handler: str, then: str) -> None:
    stream = io.TextIOWrapper(io.BytesIO(), encoding="ascii", errors=handler)
    monkeypatch.setattr(sys, "stdout", stream)
    monkeypatch.setattr(sys, "stderr", None)  # closed before the start
    prepare()
    assert stream.errors == then


LOUD = r"""
import logging, os, subprocess, sys, warnings
from eexit_cli.ui.output import Output
output = Output(as_json=True, quiet=sys.argv[1] == "quiet")
with output.progress():
    print("a library prints", flush=True)
    os.write(1, b"C prints\n")
    os.write(2, b"C complains\n")
    subprocess.run([sys.executable, "-c", "print('a child prints')"], check=True)
    warnings.warn("a warning \x1b[31m")
    logging.getLogger("lib").warning("a log %s", "\x1b]0;owned\x07")
    print("to stderr", file=sys.stderr)
output.document({"a": 1})
print("after", file=sys.stderr)
"""


@pytest.mark.parametrize("how", ["quiet", "loud"])
def test_libraries_never_reach_stdout(how: str) -> None:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    environment.pop("PYTHONWARNINGS", None)
    done = subprocess.run(
        [sys.executable, "-c", LOUD, how], capture_output=True, env=environment, check=True
    )
    assert json.loads(done.stdout) == {"a": 1}
    said = done.stderr.decode()
    if how == "quiet":
        assert said == "after\n"
        return
    assert commands_nothing(said)
    assert r"UserWarning: a warning \x1b[31m" in said
    assert r"a log \x1b]0;owned\x07" in said
    for line in ("a library prints", "C prints", "C complains", "a child prints", "to stderr"):
        assert line in said.splitlines()


def test_what_surrounded_the_command_is_as_it_was() -> None:
    streams, factory = (sys.stdout, sys.stderr), logging.getLogRecordFactory()
    filters, show = list(warnings.filters), warnings.showwarning
    with Output(quiet=True).progress():
        assert not logging.getLogger("lib").isEnabledFor(logging.ERROR)
    assert (sys.stdout, sys.stderr) == streams
    assert logging.getLogRecordFactory() is factory
    assert logging.getLogger("lib").isEnabledFor(logging.ERROR)
    assert (list(warnings.filters), warnings.showwarning) == (filters, show)
