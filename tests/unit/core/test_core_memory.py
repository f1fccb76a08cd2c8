"""Freed memory is returned at fixed steps, and only where the C library can."""

from __future__ import annotations

import pytest

from eexit_cli.core import memory


def test_returns_memory_after_every_so_many_samples(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[int] = []

    def trim(pad: int) -> int:
        calls.append(pad)
        return 1

    monkeypatch.setattr(memory, "_malloc_trim", lambda: trim)
    freed = memory.FreedMemory()
    for _ in range(memory.EVERY * 3 - 1):
        freed.after_sample()
    assert calls == [0, 0]
    freed.after_sample()
    assert calls == [0, 0, 0]


@pytest.mark.parametrize("error", [OSError, AttributeError, TypeError])
def test_another_c_library_changes_nothing(
    monkeypatch: pytest.MonkeyPatch, error: type[Exception]
) -> None:
    def missing(name: object) -> object:
        raise error(name)

    monkeypatch.setattr(memory.ctypes, "CDLL", missing)
    freed = memory.FreedMemory()
    for _ in range(memory.EVERY):
        freed.after_sample()
    assert freed._trim is None
