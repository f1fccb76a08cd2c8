"""The silent progress: what pipelines use when called from Python with no display."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager


class SilentTicker:
    """Counts for nobody."""

    def advance(self, steps: int = 1, note: str | None = None) -> None:
        return None

    def update(self, *, total: int | None = None, note: str | None = None) -> None:
        return None


class SilentProgress:
    """No display; implements :class:`eexit_cli.core.protocols.Progress`."""

    @contextmanager
    def task(self, title: str, total: int | None = None, done: int = 0) -> Iterator[SilentTicker]:
        yield SilentTicker()

    def message(self, text: str) -> None:
        return None
