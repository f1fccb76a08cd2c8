"""The hint that a wrong name gets: what is near, and what there is."""

from __future__ import annotations

from collections.abc import Iterable

from eexit_cli.core.catalog import nearest


def suggest(name: str, known: Iterable[str], *, title: str = "Available") -> str:
    """``Did you mean train? Available: train, test``."""
    known = list(known)
    close = nearest(name, known)
    meant = f"Did you mean {' or '.join(close)}? " if close else ""
    return f"{meant}{title}: {', '.join(known)}"
