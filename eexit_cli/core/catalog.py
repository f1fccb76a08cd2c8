"""A catalog maps a name to a lazily imported attribute.

Adding a thing (an exit criterion, a confidence measure, an attack, a p-value, a figure, a
backbone, a task) is one new file and one line in its package's catalog::

    MEASURES = Catalog("confidence measure", {"entropy": "eexit_cli.confidence.entropy:MEASURE"})

``tests/contracts/`` iterates every catalog, so the new entry is tested without an edit.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Iterator, Mapping
from importlib import import_module
from typing import Any

from eexit_cli.core.errors import UsageError


def nearest(name: str, known: Iterable[str], *, how_many: int = 3) -> list[str]:
    """Names that the user may have meant, best first; empty when nothing is near."""
    known = list(known)
    folded = {candidate.casefold(): candidate for candidate in known}
    matches = difflib.get_close_matches(name.casefold(), folded, n=how_many, cutoff=0.5)
    return [folded[match] for match in matches]


def unknown_name(kind: str, name: str, known: Iterable[str]) -> UsageError:
    """The one sentence that every unknown name gets: what was asked, what is near, what exists."""
    known = list(known)
    close = nearest(name, known)
    meant = f"Did you mean {' or '.join(close)}? " if close else ""
    return UsageError(
        f"Unknown {kind} '{name}'", hint=f"{meant}Available: {', '.join(sorted(known))}"
    )


class Catalog(Mapping[str, str]):
    """Name -> ``"module:attribute"``, imported on first use.

    Args:
        kind: what the entries are, in the words of an error message ("exit criterion").
        entries: the names with their ``"module:attribute"`` targets.
        aliases: other accepted spellings -> the name that they stand for.

    Raises:
        ValueError: a name is registered twice, or a target is not ``"module:attribute"``.
    """

    def __init__(
        self,
        kind: str,
        entries: Mapping[str, str] | None = None,
        *,
        aliases: Mapping[str, str] | None = None,
    ) -> None:
        self.kind = kind
        self._targets: dict[str, str] = {}
        self._aliases: dict[str, str] = {}
        for name, target in (entries or {}).items():
            self.add(name, target)
        for alias, name in (aliases or {}).items():
            self.alias(alias, name)

    def add(self, name: str, target: str) -> None:
        if name in self._targets or name in self._aliases:
            raise ValueError(f"{self.kind} '{name}' is registered twice")
        module, separator, attribute = target.partition(":")
        if not (module and separator and attribute):
            raise ValueError(f"{self.kind} '{name}': '{target}' is not 'module:attribute'")
        self._targets[name] = target

    def alias(self, alias: str, name: str) -> None:
        if alias in self._targets or alias in self._aliases:
            raise ValueError(f"{self.kind} '{alias}' is registered twice")
        if name not in self._targets:
            raise ValueError(f"{self.kind} alias '{alias}' points to unknown '{name}'")
        self._aliases[alias] = name

    def canonical(self, name: str) -> str:
        """The registered name behind a name or an alias; an unknown name is a usage error."""
        name = self._aliases.get(name, name)
        if name not in self._targets:
            raise unknown_name(self.kind, name, self._targets)
        return name

    def load(self, name: str) -> Any:
        """Import and return the entry.

        Raises:
            UsageError: the name is unknown; the hint lists the nearest and the available ones.
        """
        module, _, attribute = self._targets[self.canonical(name)].partition(":")
        return getattr(import_module(module), attribute)

    def __getitem__(self, name: str) -> str:
        return self._targets[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._targets)

    def __len__(self) -> int:
        return len(self._targets)
