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

PLAIN_SHARE = 0.1
PLAIN_SECONDS = 30.0


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


def speed(done: float, seconds: float) -> str:
    """Steps per second, or seconds per step where that reads better; empty before the first."""
    if done <= 0 or seconds <= 0:
        return ""
    per_second = done / seconds
    return f"{per_second:.1f}/s" if per_second >= 1 else f"{1 / per_second:.1f} s each"


# Plain lines -----------------------------------------------------------------------------------


class PlainTicker:
    """Prints a line at every tenth of the work, or every half a minute where that comes first."""

    def __init__(
        self,
        title: str,
        total: int | None,
        write: Callable[[str], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._title, self._total, self._write, self._clock = title, total, write, clock
        self._done = 0
        self._note: str | None = None
        self._started = self._printed_at = clock()
        self._printed_done = 0

    def advance(self, steps: int = 1, note: str | None = None) -> None:
        self._done += steps
        self.update(note=note)

    def update(self, *, total: int | None = None, note: str | None = None) -> None:
        self._total = total if total is not None else self._total
        self._note = note if note is not None else self._note
        if self._is_due():
            self._print()

    def finish(self) -> None:
        """The last line, unless it stands there already."""
        if self._done != self._printed_done:
            self._print()

    def _is_due(self) -> bool:
        if self._done == self._printed_done:
            return False
        if self._clock() - self._printed_at >= PLAIN_SECONDS:
            return True
        if not self._total:
            return False
        return (
            self._done >= self._total
            or self._done - self._printed_done >= PLAIN_SHARE * self._total
        )

    def _print(self) -> None:
        now = self._clock()
        elapsed = now - self._started
        parts = [f"{self._done}/{self._total}" if self._total else f"{self._done}"]
        if rate := speed(self._done, elapsed):
            parts.append(rate)
        if self._total and 0 < self._done < self._total:
            left = elapsed / self._done * (self._total - self._done)
            parts.append(f"{duration(left)} left")
        if self._note:
            parts.append(self._note)
        self._write(f"{self._title}: {', '.join(parts)}")
        self._printed_at, self._printed_done = now, self._done


class PlainProgress:
    """One line now and then, for logs and pipes."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    @contextmanager
    def task(self, title: str, total: int | None = None) -> Iterator[Ticker]:
        self.message(f"{title} ..." if total is None else f"{title}: {total}")
        ticker = PlainTicker(title, total, self.message)
        yield ticker
        ticker.finish()

    def message(self, text: str) -> None:
        print(readable(text, encoding_of(self._stream)), file=self._stream, flush=True)


# Bars ------------------------------------------------------------------------------------------


class _BarTicker:
    def __init__(self, bars: Any, task: TaskID) -> None:
        self._bars, self._task = bars, task

    def advance(self, steps: int = 1, note: str | None = None) -> None:
        self._bars.advance(self._task, steps)
        self.update(note=note)

    def update(self, *, total: int | None = None, note: str | None = None) -> None:
        if total is not None:
            self._bars.update(self._task, total=total)
        if note is not None:
            self._bars.update(self._task, note=note)


class BarProgress:
    """One bar per running task, the overall one on top, the current ones below it."""

    def __init__(self, bars: Any) -> None:
        self._bars = bars
        self._depth = 0

    @contextmanager
    def task(self, title: str, total: int | None = None) -> Iterator[Ticker]:
        indent = "  " * self._depth
        task = self._bars.add_task(f"{indent}{readable(title)}", total=total, note="")
        self._depth += 1
        try:
            yield _BarTicker(self._bars, task)
        finally:
            self._depth -= 1
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
        TimeRemainingColumn,
    )
    from rich.progress import Progress as RichBars
    from rich.table import Column
    from rich.text import Text

    from eexit_cli.ui.console import Screen

    class Speed(ProgressColumn):
        def render(self, task: Any) -> Text:
            return Text(speed(task.completed, task.elapsed or 0.0), style="progress.data.speed")

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
        TimeRemainingColumn(compact=True),
    ]
    if console.width >= 100:
        columns.append(Note(table_column=Column(no_wrap=True, ratio=1)))
    with RichBars(*columns, console=console) as bars:
        yield BarProgress(bars)
