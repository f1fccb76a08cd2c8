"""What a person sees while a pipeline works: bars, plain lines, or nothing. Always on stderr."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import TYPE_CHECKING, Any, TextIO

from eexit_cli.core.progress import SilentProgress
from eexit_cli.core.text import readable
from eexit_cli.ui.streams import encoding_of

if TYPE_CHECKING:
    from rich.progress import TaskID

    from eexit_cli.core.protocols import Progress, Ticker

PLAIN_SECONDS = 10.0
"""Between two lines about one piece of work."""

TELLING_SECONDS = 1.0
"""A rate that was measured over less says nothing."""


def display(*, quiet: bool, stream: TextIO | None = None) -> AbstractContextManager[Progress]:
    """The display that fits: silent, bars on a terminal, lines elsewhere."""
    stream = sys.stderr if stream is None else stream
    if quiet:
        return nullcontext(SilentProgress())
    if stream.isatty():
        return _bars(stream)
    return nullcontext(PlainProgress(stream))


def duration(seconds: float) -> str:
    """45s, 3:05, 1:02:03."""
    whole = int(seconds)
    if whole < 60:
        return f"{whole}s"
    minutes, rest = divmod(whole, 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def speed(per_second: float | None) -> str:
    """Steps per second, or seconds per step where that reads better, in two digits."""
    if not per_second:
        return ""
    if per_second >= 1:
        return f"{_two_digits(per_second)}/s"
    return f"{_two_digits(1 / per_second)} s each"


def _two_digits(value: float) -> str:
    return f"{value:.1f}" if value < 10 else f"{float(f'{value:.2g}'):,.0f}"


class Pace:
    """How fast a piece of work goes: what was done here, over the time that this took.

    The clock stands where nothing is done: a bar that waits, or has ended, keeps its rate.

    Args:
        total: steps; None is unknown.
        done: steps that were done before, such as by the run that is resumed.
        clock: in seconds.
    """

    def __init__(
        self,
        total: int | None,
        done: int = 0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.total, self.done = total, done
        self._before, self._clock = done, clock
        self.started = self.last = clock()

    def advance(self, steps: int) -> None:
        self.done += steps
        self.last = self._clock()

    @property
    def elapsed(self) -> float:
        """Seconds until the last step."""
        return self.last - self.started

    @property
    def per_second(self) -> float | None:
        """Steps; None where too little was measured."""
        done = self.done - self._before
        return done / self.elapsed if done and self.elapsed >= TELLING_SECONDS else None

    @property
    def left(self) -> float | None:
        """Seconds until the end at this rate; None where it is not known."""
        rate = self.per_second
        if rate is None or self.total is None or self.done >= self.total:
            return None
        return max(0.0, (self.total - self.done) / rate - (self._clock() - self.last))


# Plain lines -----------------------------------------------------------------------------------


class PlainTicker:
    """Prints a line every ten seconds, and one at the end.

    Args:
        title: of the work.
        pace: of the work.
        write: takes a line.
        brief: part of a larger piece of work: it has a last line only where it had others.
        clock: in seconds.
    """

    def __init__(
        self,
        title: str,
        pace: Pace,
        write: Callable[[str], None],
        *,
        brief: bool = False,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._title, self._pace, self._write, self._clock = title, pace, write, clock
        self._brief = brief
        self._note: str | None = None
        self._printed_at = clock()
        if not brief:
            write(f"{title}: {self._count()}" if pace.total is not None else f"{title} ...")

    def advance(self, steps: int = 1, note: str | None = None) -> None:
        self._pace.advance(steps)
        self.update(note=note)

    def update(self, *, total: int | None = None, note: str | None = None) -> None:
        self._pace.total = total if total is not None else self._pace.total
        self._note = note if note is not None else self._note
        if self._clock() - self._printed_at >= PLAIN_SECONDS:
            self._print()

    def finish(self) -> None:
        """The last line: how much was done, and in what time."""
        if self._brief:
            return
        parts = [f"{self._count()} in {duration(self._pace.elapsed)}"]
        if rate := speed(self._pace.per_second):
            parts.append(rate)
        self._write(f"{self._title}: {', '.join(parts)}")

    def _count(self) -> str:
        done, total = self._pace.done, self._pace.total
        return f"{done}" if total is None else f"{done}/{total}"

    def _print(self) -> None:
        parts = [self._count()]
        if rate := speed(self._pace.per_second):
            parts.append(rate)
        if (left := self._pace.left) is not None:
            parts.append(f"{duration(left)} left")
        if self._note:
            parts.append(self._note)
        self._write(f"{self._title}: {', '.join(parts)}")
        self._printed_at, self._brief = self._clock(), False


class PlainProgress:
    """One line now and then, for logs and pipes."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._depth = 0

    @contextmanager
    def task(self, title: str, total: int | None = None, done: int = 0) -> Iterator[Ticker]:
        pace = Pace(total, done)
        ticker = PlainTicker(title, pace, self.message, brief=self._depth > 0)
        self._depth += 1
        try:
            yield ticker
        finally:
            self._depth -= 1
        ticker.finish()

    def message(self, text: str) -> None:
        print(readable(text, encoding_of(self._stream)), file=self._stream, flush=True)


# Bars ------------------------------------------------------------------------------------------


class _BarTicker:
    def __init__(self, bars: Any, task: TaskID, pace: Pace) -> None:
        self._bars, self._task, self._pace = bars, task, pace

    def advance(self, steps: int = 1, note: str | None = None) -> None:
        self._pace.advance(steps)
        self._bars.advance(self._task, steps)
        self.update(note=note)

    def update(self, *, total: int | None = None, note: str | None = None) -> None:
        if total is not None:
            self._pace.total = total
            self._bars.update(self._task, total=total)
        if note is not None:
            self._bars.update(self._task, note=note)


class BarProgress:
    """One bar per running task, the overall one on top, the current ones below it."""

    def __init__(self, bars: Any) -> None:
        self._bars = bars
        self._depth = 0

    @contextmanager
    def task(self, title: str, total: int | None = None, done: int = 0) -> Iterator[Ticker]:
        indent, pace = "  " * self._depth, Pace(total, done)
        task = self._bars.add_task(
            f"{indent}{readable(title)}", total=total, completed=done, note="", pace=pace
        )
        self._depth += 1
        try:
            yield _BarTicker(self._bars, task, pace)
            # What ended earlier than it might have, or had no known end, is finished too.
            self._bars.update(task, total=pace.done, completed=pace.done)
        finally:
            self._depth -= 1
            self._bars.stop_task(task)
            # The finished overall bar stays; finished parts make room for the next.
            if self._depth:
                self._bars.remove_task(task)

    def message(self, text: str) -> None:
        self._bars.console.print(text, markup=False, highlight=False)


@contextmanager
def _bars(stream: TextIO) -> Iterator[Progress]:
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        ProgressColumn,
        SpinnerColumn,
        TextColumn,
        TimeElapsedColumn,
    )
    from rich.progress import Progress as RichBars
    from rich.table import Column
    from rich.text import Text

    from eexit_cli.ui.console import Screen

    class Speed(ProgressColumn):
        def render(self, task: Any) -> Text:
            rate = speed(task.fields["pace"].per_second)
            return Text(rate, style="progress.data.speed")

    class Left(ProgressColumn):
        def render(self, task: Any) -> Text:
            left = task.fields["pace"].left
            said = "" if left is None or task.finished else f"{duration(left)} left"
            return Text(said, style="progress.remaining")

    class Counted(MofNCompleteColumn):
        def render(self, task: Any) -> Text:
            return Text("") if task.total is None else super().render(task)

    class Note(ProgressColumn):
        def render(self, task: Any) -> Text:
            return Text(task.fields.get("note", ""), style="dim", overflow="ellipsis")

    console = Screen(file=stream)
    spinner = "line" if console.options.ascii_only else "dots"
    columns: list[ProgressColumn] = [
        SpinnerColumn(spinner, finished_text="[green]✓[/]"),
        TextColumn("{task.description}", markup=False, table_column=Column(no_wrap=True)),
        BarColumn(bar_width=20),
        Counted(),
        Speed(table_column=Column(no_wrap=True)),
        TimeElapsedColumn(),
        Left(table_column=Column(no_wrap=True)),
    ]
    if console.width >= 100:
        columns.append(Note(table_column=Column(no_wrap=True, ratio=1)))
    with RichBars(*columns, console=console) as bars:
        yield BarProgress(bars)
