"""Memory that a long run has freed goes back to the system.

glibc keeps what was freed for the next request of that size. An attack asks for tensors of ever new
sizes, so the kept pieces rarely fit, and a process of a constant 240 MB in use grew by 20 MB every
hundred samples.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable

EVERY = 32
"""Samples from one return to the next; each costs some milliseconds of page faults."""


class FreedMemory:
    """Counts samples, and returns freed memory after every :data:`EVERY` of them."""

    def __init__(self) -> None:
        self._samples = 0
        self._trim = _malloc_trim()

    def after_sample(self) -> None:
        """Call after each sample. Does nothing where the C library is not glibc."""
        self._samples += 1
        if self._samples % EVERY == 0 and self._trim is not None:
            self._trim(0)


def _malloc_trim() -> Callable[[int], int] | None:
    try:
        return ctypes.CDLL(None).malloc_trim  # type: ignore[no-any-return]
    except (AttributeError, OSError, TypeError):
        return None
