"""What the shell offers after an option: names only, from light imports.

A completion that fails must never break the user's prompt, so it offers nothing instead.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from functools import wraps

from eexit_cli.ui import catalogs

Complete = Callable[[str], list[str]]


def _starting(candidates: Callable[[], Iterable[str]]) -> Complete:
    @wraps(candidates)
    def complete(incomplete: str) -> list[str]:
        try:
            return [name for name in candidates() if name.startswith(incomplete)]
        except Exception:
            # A traceback would land in the middle of the command that is being typed.
            return []

    # typer reads the signature, which must be complete's and not the wrapped function's.
    del complete.__wrapped__  # type: ignore[attr-defined]
    complete.__annotations__ = {"incomplete": str, "return": list[str]}
    return complete


def of_catalog(kind: str) -> Complete:
    """The names of a catalog or of a fixed set."""
    return _starting(lambda: catalogs.names(kind))


def of_catalog_list(kind: str) -> Complete:
    """The names of a catalog, after each comma anew."""
    one = of_catalog(kind)

    def complete(incomplete: str) -> list[str]:
        head, comma, last = incomplete.rpartition(",")
        return [f"{head}{comma}{name}" for name in one(last)]

    return complete


@_starting
def models() -> Iterable[str]:
    """Bundled and local models."""
    from eexit_cli.families.listing import list_models

    return [summary.name for summary in list_models()]


@_starting
def runs() -> Iterable[str]:
    """Runs of the result folder, the newest first."""
    from eexit_cli.store.results import ResultStore

    store = ResultStore(os.environ.get("EEXIT_RESULTS_DIR", "results"))
    return [summary.id for summary in reversed(store.list())]
