"""Every entry of every catalog loads; every name is one that a shell and a person can type."""

from __future__ import annotations

import importlib
import pkgutil
import re

import pytest

import eexit_cli
from eexit_cli.core.catalog import Catalog
from eexit_cli.core.errors import UsageError
from eexit_cli.ui.catalogs import CATALOGS, FIXED, entries, names


def _catalogs_of_packages() -> dict[str, Catalog]:
    """Every catalog that a package of eexit_cli holds in its ``__init__``."""
    found = {}
    for info in pkgutil.iter_modules(eexit_cli.__path__, "eexit_cli."):
        if not info.ispkg or info.name in ("eexit_cli.pipelines", "eexit_cli.assets"):
            continue
        module = importlib.import_module(info.name)
        for attribute, value in vars(module).items():
            if isinstance(value, Catalog):
                found[f"{info.name}:{attribute}"] = value
    return found


ENTRIES = [
    pytest.param(where, name, id=f"{catalog.kind}: {name}")
    for where, catalog in _catalogs_of_packages().items()
    for name in catalog
]


@pytest.mark.parametrize(("where", "name"), ENTRIES)
def test_entry_loads(where: str, name: str) -> None:
    catalog = _catalogs_of_packages()[where]
    assert catalog.load(name) is not None


@pytest.mark.parametrize(("where", "name"), ENTRIES)
def test_name_is_easy_to_type(where: str, name: str) -> None:
    assert re.fullmatch(r"[a-z0-9]+([-_][a-z0-9]+)*", name)


@pytest.mark.parametrize("where", list(_catalogs_of_packages()))
def test_unknown_name_suggests_the_nearest(where: str) -> None:
    catalog = _catalogs_of_packages()[where]
    first = next(iter(catalog))
    with pytest.raises(UsageError) as caught:
        catalog.load(f"{first}x")
    assert f"Unknown {catalog.kind}" in caught.value.message
    assert caught.value.hint is not None
    assert first in caught.value.hint


@pytest.mark.parametrize("kind", [*CATALOGS, *FIXED])
def test_every_kind_of_option_value_has_names(kind: str) -> None:
    assert names(kind)


def test_every_recipe_is_described() -> None:
    for recipe in entries("recipe"):
        assert recipe.description
        assert recipe.source
