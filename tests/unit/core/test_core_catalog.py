"""Catalogs: lazy, collision-checked, helpful."""

import math

import pytest

from eexit_cli.core.catalog import Catalog, nearest
from eexit_cli.core.errors import EexitError, UsageError
from eexit_cli.core.plugins import EntryPoint


def test_loads_lazily_and_by_alias():
    catalog = Catalog("number", {"pi": "math:pi"}, aliases={"PI": "pi"})
    assert catalog.load("pi") == catalog.load("PI") == math.pi
    assert list(catalog) == ["pi"]


def test_refuses_collisions_and_malformed_targets():
    catalog = Catalog("number", {"pi": "math:pi"})
    with pytest.raises(ValueError, match="registered twice"):
        catalog.add("pi", "math:tau")
    with pytest.raises(ValueError, match="registered twice"):
        catalog.alias("pi", "pi")
    with pytest.raises(ValueError, match="unknown"):
        catalog.alias("e", "euler")
    with pytest.raises(ValueError, match="module:attribute"):
        catalog.add("tau", "math.tau")


def test_an_unknown_name_is_answered_with_the_nearest():
    catalog = Catalog("confidence measure", {"entropy": "math:pi", "margin": "math:e"})
    with pytest.raises(UsageError) as caught:
        catalog.load("entrpoy")
    assert caught.value.message == "Unknown confidence measure 'entrpoy'"
    assert caught.value.hint == "Did you mean entropy? Available: entropy, margin"
    assert caught.value.exit_code == 2


def test_nearest_ignores_case_and_gives_nothing_for_nonsense():
    assert nearest("SST2", ["sst2", "cola"]) == ["sst2"]
    assert nearest("zzzzz", ["sst2", "cola"]) == []


def test_entries_of_other_packages_stand_behind_the_own_ones(monkeypatch):
    points = [
        EntryPoint("eexit.numbers", "half", "math:tau", "one 1.0"),
        EntryPoint("eexit.numbers", "half", "math:pi", "two 2.0"),
        EntryPoint("eexit.numbers", "lost", "math:nothing", "two 2.0"),
        EntryPoint("eexit.numbers", "pi", "math:e", "two 2.0"),
    ]
    monkeypatch.setattr("eexit_cli.core.catalog.entry_points", lambda group: points)
    catalog = Catalog("number", {"pi": "math:pi"}, plugins="eexit.numbers")
    assert list(catalog) == ["pi", "half", "lost"]
    assert catalog.load("half") == math.tau
    assert catalog.load("pi") == math.pi
    assert dict(catalog.working()) == {"pi": math.pi, "half": math.tau}
    with pytest.raises(EexitError, match="'lost' of the package two"):
        catalog.load("lost")
    problems = catalog.problems()
    assert "the package one 1.0 has one of that name" in problems["half"]
    assert "eexit has one of that name" in problems["pi"]
    assert "AttributeError" in problems["lost"]


def test_an_entry_of_another_package_is_what_the_catalog_asks_for(monkeypatch):
    points = [EntryPoint("eexit.numbers", "pi", "math:pi", "one 1.0")]
    monkeypatch.setattr("eexit_cli.core.catalog.entry_points", lambda group: points)
    catalog = Catalog("number", plugins="eexit.numbers", needs=("real", "digits"))
    with pytest.raises(EexitError, match="it has no digits"):
        catalog.load("pi")
