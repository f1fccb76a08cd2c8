"""Entries of catalogs that other installed packages add: their entry points, found cheaply.

``importlib.metadata`` alone takes half as long to import as everything that ``eexit --help`` does,
so the files that it would read are read here: ``entry_points.txt`` beside each package's metadata.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache


@dataclass(frozen=True)
class EntryPoint:
    """One line of a package's entry points.

    Attributes:
        group, name, target: as in ``[group]``, ``name = module:attribute``.
        package: name and version of the package that adds it.
    """

    group: str
    name: str
    target: str
    package: str


def entry_points(group: str) -> list[EntryPoint]:
    """What installed packages add to a group, by name; of equal names all are here."""
    return [each for each in installed() if each.group == group]


def installed() -> list[EntryPoint]:
    """The entry points of all groups."""
    return _found(tuple(sys.path))


@cache
def _found(places: tuple[str, ...]) -> list[EntryPoint]:
    packages: dict[str, list[EntryPoint]] = {}
    for place in places:
        for folder in _metadata_of(place or "."):
            package, _, version = os.path.splitext(os.path.basename(folder))[0].partition("-")
            # The first on the path is the one that Python imports.
            if package.lower() not in packages:
                packages[package.lower()] = list(_read(folder, f"{package} {version}".strip()))
    found = [each for entries in packages.values() for each in entries]
    return sorted(found, key=lambda each: (each.group, each.name, each.package))


def _metadata_of(place: str) -> list[str]:
    try:
        names = [name for name in os.listdir(place) if name.endswith((".dist-info", ".egg-info"))]
    except OSError:
        return []
    return [os.path.join(place, name) for name in sorted(names)]


def _read(folder: str, package: str) -> Iterator[EntryPoint]:
    try:
        with open(os.path.join(folder, "entry_points.txt"), "rb") as stream:
            content = stream.read()
    except OSError:
        return
    if b"[eexit." not in content:
        return
    group = ""
    for line in map(str.strip, content.decode(errors="replace").splitlines()):
        if line.startswith("[") and line.endswith("]"):
            group = line[1:-1].strip()
        elif group.startswith("eexit.") and "=" in line and not line.startswith(("#", ";")):
            name, _, target = line.partition("=")
            yield EntryPoint(group, name.strip(), target.strip(), package)
