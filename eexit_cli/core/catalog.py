"""A catalog maps a name to a lazily imported attribute.

Adding a thing (an exit criterion, a confidence measure, an attack, a p-value, a figure, a
backbone, a task) is one new file and one line in its package's catalog::

    MEASURES = Catalog("confidence measure", {"entropy": "eexit_cli.confidence.entropy:MEASURE"})

``tests/contracts/`` iterates every catalog, so the new entry is tested without an edit.

An installed package adds entries as well, without a line here: its entry points in the catalog's
group (``core.plugins``). They stand behind the own ones, which win where names collide; one that
does not load is left out of what goes through all entries, and is an error only when asked for.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Iterator, Mapping
from functools import cached_property
from importlib import import_module
from typing import Any

from eexit_cli.core.errors import EexitError, UsageError
from eexit_cli.core.plugins import EntryPoint, entry_points


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
        plugins: the group of entry points that other packages add to, such as ``eexit.exits``.
        needs: attributes that an entry of another package must have.

    Raises:
        ValueError: a name is registered twice, or a target is not ``"module:attribute"``.
    """

    def __init__(
        self,
        kind: str,
        entries: Mapping[str, str] | None = None,
        *,
        aliases: Mapping[str, str] | None = None,
        plugins: str | None = None,
        needs: tuple[str, ...] = (),
    ) -> None:
        self.kind = kind
        self._group = plugins
        self._needs = needs
        self.own: dict[str, str] = {}
        """The entries without those of other packages."""
        self._aliases: dict[str, str] = {}
        self._problems: dict[str, str] = {}
        for name, target in (entries or {}).items():
            self.add(name, target)
        for alias, name in (aliases or {}).items():
            self.alias(alias, name)

    def add(self, name: str, target: str) -> None:
        if name in self.own or name in self._aliases:
            raise ValueError(f"{self.kind} '{name}' is registered twice")
        module, separator, attribute = target.partition(":")
        if not (module and separator and attribute):
            raise ValueError(f"{self.kind} '{name}': '{target}' is not 'module:attribute'")
        self.own[name] = target

    def alias(self, alias: str, name: str) -> None:
        if alias in self.own or alias in self._aliases:
            raise ValueError(f"{self.kind} '{alias}' is registered twice")
        if name not in self.own:
            raise ValueError(f"{self.kind} alias '{alias}' points to unknown '{name}'")
        self._aliases[alias] = name

    def canonical(self, name: str) -> str:
        """The registered name behind a name or an alias; an unknown name is a usage error."""
        name = self._aliases.get(name, name)
        if name not in self.own and name not in self._plugins:
            raise unknown_name(self.kind, name, self)
        return name

    def load(self, name: str) -> Any:
        """Import and return the entry.

        Raises:
            UsageError: the name is unknown; the hint lists the nearest and the available ones.
            EexitError: it is another package's, and does not load.
        """
        name = self.canonical(name)
        if name in self.own:
            return _imported(self.own[name])
        point = self._plugins[name]
        if name not in self._problems:
            try:
                return self._checked(name, _imported(point.target))
            except Exception as error:
                self.refuse(name, f"{type(error).__name__}: {error}")
        raise EexitError(
            self._problems[name],
            hint=f"Update or remove the package that adds it: {point.package}",
        )

    def _checked(self, name: str, entry: Any) -> Any:
        lacking = [each for each in self._needs if not hasattr(entry, each)]
        if lacking:
            raise TypeError(f"it has no {', '.join(lacking)}")
        if getattr(entry, "name", name) != name:
            raise ValueError(f"it calls itself '{entry.name}'")
        return entry

    def refuse(self, name: str, reason: str) -> None:
        """Note that another package's entry cannot be used."""
        package = self._plugins[name].package
        self._problems[name] = f"{self._plugin(name, package)} does not load: {reason}"

    def working(self) -> Iterator[tuple[str, Any]]:
        """Names and loaded entries, without those of other packages that do not load."""
        for name in self:
            try:
                entry = self.load(name)
            except EexitError:
                if name in self.own:
                    raise
                continue
            yield name, entry

    def problems(self) -> dict[str, str]:
        """What is wrong with entries of other packages, as far as it is known, by their names.

        Those that take an own name are known; whether one loads shows when it is loaded.
        """
        hidden = {}
        for each in self._entry_points:
            winner = self._plugins.get(each.name)
            if each != winner:
                has_it = "eexit" if winner is None else f"the package {winner.package}"
                hidden[each.name] = (
                    f"{self._plugin(each.name, each.package)} is not used: {has_it} has one of "
                    "that name"
                )
        return {**hidden, **self._problems}

    def _plugin(self, name: str, package: str) -> str:
        return f"{self.kind[0].upper()}{self.kind[1:]} '{name}' of the package {package}"

    @cached_property
    def _entry_points(self) -> list[EntryPoint]:
        return [] if self._group is None else entry_points(self._group)

    @cached_property
    def _plugins(self) -> dict[str, EntryPoint]:
        """The first of each name that is no own one."""
        found: dict[str, EntryPoint] = {}
        for each in self._entry_points:
            if each.name not in self.own and each.name not in self._aliases:
                found.setdefault(each.name, each)
        return found

    def __getitem__(self, name: str) -> str:
        return self.own[name] if name in self.own else self._plugins[name].target

    def __iter__(self) -> Iterator[str]:
        yield from self.own
        yield from self._plugins

    def __len__(self) -> int:
        return len(self.own) + len(self._plugins)


def _imported(target: str) -> Any:
    module, _, attribute = target.partition(":")
    return getattr(import_module(module), attribute)
