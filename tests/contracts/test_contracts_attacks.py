"""Every attack of the catalog: what it must say about itself and how it must behave."""

from __future__ import annotations

import importlib
import importlib.util
import json
import random
import sys
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from eexit_cli.attacks import ATTACKS, DECODER_ATTACKS
from eexit_cli.attacks.recipe import Recipe
from eexit_cli.config import AttackConfig
from eexit_cli.core.catalog import Catalog
from eexit_cli.core.errors import UsageError
from eexit_cli.pipelines.attack.run import list_recipes

NAMES = sorted(ATTACKS)


EVERY = [
    pytest.param(catalog, family, name, id=f"{family}-{name}")
    for catalog, family in ((ATTACKS, "encoder"), (DECODER_ATTACKS, "decoder"))
    for name in catalog
]


@pytest.mark.parametrize(("catalog", "family", "name"), EVERY)
def test_recipe_describes_itself(catalog: Catalog, family: str, name: str) -> None:
    recipe = catalog.load(name)
    assert isinstance(recipe, Recipe)
    assert recipe.name == name
    assert recipe.description
    assert "\n" not in recipe.description
    assert recipe.source
    assert recipe.family == family
    assert recipe.goal in ("slowdown", "misclassification")
    assert recipe.default_budget is None or recipe.default_budget > 0
    # What it reads are options, and a mode that it knows is one of them.
    assert set(recipe.reads) <= {item.name for item in fields(AttackConfig)}
    assert ("compat" in recipe.reads) == bool(recipe.compat)
    for mode in recipe.compat:
        recipe.check_compat(mode)
    with pytest.raises(UsageError, match=f"'{name}' has no --compat sideways"):
        recipe.check_compat("sideways")
    # Without the mode every sample stands for itself.
    assert not recipe.is_ordered(AttackConfig())
    (row,) = [row for row in list_recipes() if row["name"] == name]
    assert {"name", "description", "source", "needs"} <= set(row)
    assert family in row["families"]
    assert json.loads(json.dumps(row)) == row


@pytest.fixture(scope="module")
def tiny() -> Any:
    """The attacks' small victim and its texts."""
    return _of_the_attacks("attacks_tiny")


@pytest.fixture(scope="module")
def tiny_decoder() -> Any:
    """The attacks' small decoder and its texts."""
    return _of_the_attacks("attacks_tiny_decoder")


def _of_the_attacks(module: str) -> Any:
    from eexit_cli.attacks.textattack_env import prepare

    prepare()
    folder = str(Path(__file__).parent.parent / "unit" / "attacks")
    sys.path.insert(0, folder)
    try:
        return importlib.import_module(module)
    finally:
        sys.path.remove(folder)


def built(name: str, tiny: Any, settings: AttackConfig, **options: Any) -> Any:
    """The recipe on the small victim, or a skip that says why not."""
    recipe: Recipe = ATTACKS.load(name)
    if recipe.missing is not None and (lacking := recipe.missing()) is not None:
        pytest.skip(lacking)
    victim = tiny.victim_for(threshold=0.55, layers=5, **options)
    learned = None
    if recipe.fit is not None:
        spent = victim.budget.spent
        learned = recipe.fit(victim, tiny.TEXTS[4:], settings)
        assert victim.budget.spent == spent
        assert json.loads(json.dumps(learned)) == learned
    return victim, recipe.attack(victim, settings, learned)


@pytest.mark.parametrize("limit", [1, 2, 5, 25, None])
@pytest.mark.parametrize("name", NAMES)
def test_recipe_keeps_its_budget_and_never_speeds_its_victim_up(
    name: str, limit: int | None, tiny: Any
) -> None:
    import textattack

    recipe: Recipe = ATTACKS.load(name)
    victim, attack = built(name, tiny, AttackConfig(top_n=10, per_size=3), limit=limit)
    assert isinstance(attack, textattack.Attack)
    # What is learned once has no choice per input, and accuracy is another goal.
    may_speed_up = recipe.fit is not None or recipe.goal != "slowdown"
    for text in tiny.TEXTS[:4]:
        result = attack.attack(text, 0)
        assert limit is None or victim.budget.spent <= limit
        if not may_speed_up:
            before = result.original_result.raw_output.exit_layer
            assert result.perturbed_result.raw_output.exit_layer >= before


@pytest.mark.parametrize("mode", [None, "upstream"])
@pytest.mark.parametrize("name", NAMES)
def test_a_sample_stands_for_itself_unless_the_recipe_says_otherwise(
    name: str, mode: str | None, tiny: Any
) -> None:
    """Workers and resumed runs rest on it."""
    recipe: Recipe = ATTACKS.load(name)
    settings = AttackConfig(top_n=10, per_size=3, compat=mode)
    if mode is not None and mode not in recipe.compat:
        pytest.skip(f"no --compat {mode}")
    if recipe.is_ordered(settings):
        pytest.skip("ordered")
    found = []
    for texts in (tiny.TEXTS[:4], tiny.TEXTS[3::-1]):
        victim, attack = built(name, tiny, settings)
        results = {}
        for text in texts:
            random.seed(7)
            np.random.seed(7)
            victim.seed = 7
            chosen = attack.attack(text, 0).perturbed_result.attacked_text
            results[text] = (chosen.text, victim.budget.queries, victim.budget.gradient_passes)
        found.append(results)
    assert found[0] == found[1]


# --- decoders -----------------------------------------------------------------------------------


@pytest.mark.parametrize("words", [False, True], ids=["letters", "words"])
@pytest.mark.parametrize("limit", [1, 3, 25])
@pytest.mark.parametrize("name", sorted(DECODER_ATTACKS))
def test_a_decoders_recipe_keeps_its_budget_and_never_speeds_its_victim_up(
    name: str, limit: int, words: bool, tiny_decoder: Any
) -> None:
    """And a sample stands for itself: workers and resumed runs rest on it."""
    recipe: Recipe = DECODER_ATTACKS.load(name)
    settings = AttackConfig(top_n=8, beam_width=2, per_size=3)
    assert not recipe.is_ordered(settings)
    texts = tiny_decoder.SENTENCES if words else ("queue", "knight", "banana")
    found = []
    for order in (texts, texts[::-1]):
        victim = tiny_decoder.decoder_victim(words=words, budget=limit, threshold=0.3, seed=2)
        attack = recipe.attack(victim, settings)
        results = {}
        for text in order:
            victim.seed = 7
            end = attack.attack(text)
            spent = victim.budget
            assert spent.spent <= limit
            results[text] = (end.text, end.skipped, spent.queries, spent.gradient_passes)
            # Confirming is free.
            before, after = victim.confirm(text), victim.confirm(end.text)
            assert spent.spent <= limit
            if end.text != text:
                assert after.layers_per_token > before.layers_per_token
            changes = end.editor.changes(text, end.text)
            assert json.loads(json.dumps(changes)) == changes
            assert bool(changes) == (end.text != text)
        found.append(results)
    assert found[0] == found[1]
