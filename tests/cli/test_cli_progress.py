"""Bars on a terminal, lines elsewhere, nothing when quiet; never on stdout."""

from __future__ import annotations

import io
import os
import pty
import select
import subprocess
import sys

import pytest

from eexit_cli.core.progress import SilentProgress
from eexit_cli.ui.progress import PlainProgress, PlainTicker, display, duration, speed


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def test_plain_lines_come_at_every_tenth() -> None:
    clock, lines = Clock(), []
    ticker = PlainTicker("Work", 100, lines.append, clock)
    for _ in range(100):
        clock.now += 0.5
        ticker.advance()
    assert len(lines) == 10
    assert lines[0] == "Work: 10/100, 2.0/s, 45s left"
    assert lines[-1] == "Work: 100/100, 2.0/s"


def test_slow_work_speaks_every_half_minute() -> None:
    clock, lines = Clock(), []
    ticker = PlainTicker("Work", 1000, lines.append, clock)
    for _ in range(3):
        clock.now += 31
        ticker.advance(note="loss 0.5")
    assert lines[0] == "Work: 1/1000, 31.0 s each, 8:36:09 left, loss 0.5"
    assert len(lines) == 3


def test_unknown_total_and_rest() -> None:
    clock, lines = Clock(), []
    ticker = PlainTicker("Work", None, lines.append, clock)
    clock.now += 1
    ticker.advance(3)
    assert lines == []
    ticker.finish()
    assert lines == ["Work: 3, 3.0/s"]
    ticker.finish()
    assert len(lines) == 1


def test_total_can_come_later() -> None:
    clock, lines = Clock(), []
    ticker = PlainTicker("Work", None, lines.append, clock)
    ticker.update(total=2)
    clock.now += 1
    ticker.advance()
    assert lines == ["Work: 1/2, 1.0/s, 1s left"]


@pytest.mark.parametrize(
    ("seconds", "text"), [(0, "0s"), (59.9, "59s"), (60, "1:00"), (3725, "1:02:05")]
)
def test_duration(seconds, text) -> None:
    assert duration(seconds) == text


def test_speed() -> None:
    assert (speed(0, 3), speed(3, 0), speed(10, 4), speed(1, 4)) == ("", "", "2.5/s", "4.0 s each")


def test_quiet_is_silent_and_a_file_gets_lines() -> None:
    with display(quiet=True) as progress:
        assert isinstance(progress, SilentProgress)
    stream = io.StringIO()
    with display(quiet=False, stream=stream) as progress:
        assert isinstance(progress, PlainProgress)
        progress.message("hello")
        with progress.task("Outer", total=1) as outer:
            with progress.task("Inner", total=2) as inner:
                inner.advance(2)
            outer.advance()
    assert stream.getvalue().startswith("hello\nOuter: 1\nInner: 2\nInner: 2/2")
    assert "\x1b" not in stream.getvalue()


PROGRAM = """
import sys, time
from eexit_cli.ui.progress import display
with display(quiet=False) as progress:
    with progress.task("Outer [x]", total=2) as outer:
        for _ in range(2):
            with progress.task("Inner", total=2) as inner:
                inner.advance(2, note="n")
                time.sleep(0.2)
            outer.advance()
        progress.message("a [bold] message")
print("result")
"""


def _on_a_terminal(**environment: str) -> tuple[str, str]:
    """Run the program with stderr on a pseudo-terminal: what it says there, and on stdout."""
    main, terminal = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-c", PROGRAM],
        stdout=subprocess.PIPE,
        stderr=terminal,
        env={**os.environ, "TERM": "xterm-256color", "COLUMNS": "120", **environment},
    )
    os.close(terminal)
    said = b""
    while process.poll() is None or select.select([main], [], [], 0)[0]:
        if select.select([main], [], [], 0.1)[0]:
            try:
                chunk = os.read(main, 65536)
            except OSError:
                break
            if not chunk:
                break
            said += chunk
    assert process.stdout is not None
    out = process.stdout.read().decode()
    process.stdout.close()
    assert process.wait() == 0
    os.close(main)
    return said.decode(), out


def test_terminal_gets_nested_bars() -> None:
    said, out = _on_a_terminal()
    assert out == "result\n"
    for words in ("Outer [x]", "  Inner", "2/2", "a [bold] message"):
        assert words in said
    assert "\x1b[3" in said  # colours


def test_no_color_is_respected() -> None:
    said, _ = _on_a_terminal(NO_COLOR="1")
    assert "Outer [x]" in said
    assert not any(f"\x1b[{code}" in said for code in ("31", "32", "33", "36", "38"))
