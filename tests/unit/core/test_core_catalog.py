"""Catalogs: lazy, collision-checked, helpful."""

import pytest

from eexit_cli.core.catalog import Catalog, nearest
from eexit_cli.core.errors import UsageError


def test_loads_lazily_and_by_alias():
    catalog = Catalog("number", {"pi": "math:pi"}, aliases={"PI": "pi"})
    import math

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
