"""Every attack of the catalog: what it must say about itself and how it must behave."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from pathlib import Path
from typing import Any

import pytest

from eexit_cli.attacks import ATTACKS
from eexit_cli.attacks.recipe import Recipe
from eexit_cli.config import AttackConfig
from eexit_cli.pipelines.attack import list_recipes

NAMES = sorted(ATTACKS)


@pytest.mark.parametrize("name", NAMES)
def test_recipe_describes_itself(name: str) -> None:
    recipe = ATTACKS.load(name)
    assert isinstance(recipe, Recipe)
    assert recipe.name == name
    assert recipe.description
    assert "\n" not in recipe.description
    assert recipe.source
    (row,) = [row for row in list_recipes() if row["name"] == name]
    assert set(row) == {"name", "description", "source", "needs"}


@pytest.fixture(scope="module")
def tiny() -> Any:
    """The attacks' small victim and its texts."""
    if importlib.util.find_spec("textattack") is None:
        pytest.skip("TextAttack is not installed")
    from eexit_cli.attacks.textattack_env import prepare

    prepare()
    folder = str(Path(__file__).parent.parent / "unit" / "attacks")
    sys.path.insert(0, folder)
    try:
        return importlib.import_module("attacks_tiny")
    finally:
        sys.path.remove(folder)


@pytest.mark.parametrize("limit", [1, 2, 5, 25, None])
@pytest.mark.parametrize("name", NAMES)
def test_recipe_keeps_its_budget_and_never_speeds_its_victim_up(
    name: str, limit: int | None, tiny: Any
) -> None:
    import textattack

    victim = tiny.victim_for(limit=limit, threshold=0.55, layers=5)
    attack = ATTACKS.load(name).build(victim, victim.budget, AttackConfig(top_n=10))
    assert isinstance(attack, textattack.Attack)
    for text in tiny.TEXTS[:4]:
        result = attack.attack(text, 0)
        assert limit is None or victim.budget.spent <= limit
        before = result.original_result.raw_output.exit_layer
        assert result.perturbed_result.raw_output.exit_layer >= before
