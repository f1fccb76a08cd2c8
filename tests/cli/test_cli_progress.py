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
from eexit_cli.ui.progress import Pace, PlainProgress, PlainTicker, display, duration, speed


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def plain(total: int | None, *, done: int = 0, brief: bool = False):
    clock, lines = Clock(), []
    pace = Pace(total, done, clock)
    return clock, lines, PlainTicker("Work", pace, lines.append, brief=brief, clock=clock)


def test_lines_come_every_ten_seconds() -> None:
    clock, lines, ticker = plain(100)
    for _ in range(100):
        clock.now += 0.5
        ticker.advance()
    ticker.finish()
    assert lines[:2] == ["Work: 0/100", "Work: 20/100, 2.0/s, 40s left"]
    assert lines[-1] == "Work: 100/100 in 50s, 2.0/s"
    assert len(lines) == 7


def test_slow_work_speaks_after_each_step() -> None:
    clock, lines, ticker = plain(1000)
    for _ in range(3):
        clock.now += 31
        ticker.advance(note="loss 0.5")
    assert lines[1] == "Work: 1/1000, 31 s each, 8:36:09 left, loss 0.5"
    assert len(lines) == 4


def test_unknown_total_and_rest() -> None:
    clock, lines, ticker = plain(None)
    clock.now += 1
    ticker.advance(3)
    assert lines == ["Work ..."]
    ticker.finish()
    assert lines == ["Work ...", "Work: 3 in 1s, 3.0/s"]


def test_total_can_come_later() -> None:
    clock, lines, ticker = plain(None)
    ticker.update(total=2)
    clock.now += 10
    ticker.advance()
    assert lines[1:] == ["Work: 1/2, 10 s each, 10s left"]


def test_a_part_of_a_larger_work_speaks_only_where_it_takes_long() -> None:
    clock, lines, ticker = plain(2, brief=True)
    clock.now += 9
    ticker.advance()
    ticker.finish()
    assert lines == []
    clock, lines, ticker = plain(2, brief=True)
    for _ in range(2):
        clock.now += 11
        ticker.advance()
    ticker.finish()
    assert lines[-1] == "Work: 2/2 in 22s, 11 s each"


def test_the_rate_is_of_what_was_done_here_while_it_was_done() -> None:
    clock = Clock()
    pace = Pace(100, 40, clock)
    assert pace.per_second is None
    clock.now += 10
    pace.advance(20)
    assert (pace.per_second, pace.left) == (2.0, 20.0)
    clock.now += 5  # something else is done
    assert (pace.per_second, pace.left) == (2.0, 15.0)
    pace.advance(40)
    clock.now += 1000
    assert (pace.per_second, pace.left) == (4.0, None)


def test_a_moment_gives_no_rate() -> None:
    clock = Clock()
    pace = Pace(2, 0, clock)
    clock.now += 1e-5
    pace.advance(1)
    assert pace.per_second is None
    assert pace.left is None


@pytest.mark.parametrize(
    ("seconds", "text"), [(0, "0s"), (59.9, "59s"), (60, "1:00"), (3725, "1:02:05")]
)
def test_duration(seconds, text) -> None:
    assert duration(seconds) == text


@pytest.mark.parametrize(
    ("per_second", "text"),
    [
        (None, ""),
        (0.25, "4.0 s each"),
        (1 / 31.4, "31 s each"),
        (1.0, "1.0/s"),
        (2.5, "2.5/s"),
        (73.4, "73/s"),
        (734.2, "730/s"),
        (76219.5, "76,000/s"),
    ],
)
def test_speed_has_two_digits(per_second, text) -> None:
    assert speed(per_second) == text


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
    assert stream.getvalue() == "hello\nOuter: 0/1\nOuter: 1/1 in 0s\n"
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
    with progress.task("Ends early", total=9) as early:
        early.advance(4)
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
    for words in ("Outer [x]", "  Inner", "2/2", "4/4", "a [bold] message"):
        assert words in said
    assert "\x1b[3" in said  # colours


def test_no_color_is_respected() -> None:
    said, _ = _on_a_terminal(NO_COLOR="1")
    assert "Outer [x]" in said
    assert not any(f"\x1b[{code}" in said for code in ("31", "32", "33", "36", "38"))
