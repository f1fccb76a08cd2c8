"""What an attack would have answered with a smaller budget, against attacks that had it."""

from __future__ import annotations

import random
from typing import Any

import pytest
from attacks_tiny import TEXTS, victim_for
from attacks_tiny_decoder import decoder_victim
from hypothesis import given
from hypothesis import strategies as st
from tiny_decoders import WORDS

from eexit_cli.attacks import ATTACKS, DECODER_ATTACKS
from eexit_cli.attacks.budget import BestSoFar
from eexit_cli.config import AttackConfig
from eexit_cli.core.seed import seed_everything

BUDGETS = [1, 2, 3, 5, 8, 12, 17, 25, 40]
MOST = 60


def after(steps: list[list[float]], budget: int) -> float:
    """The layer that the steps promise for a budget."""
    return [layer for spent, layer in steps if spent <= budget][-1]


@pytest.fixture(autouse=True)
def any_neighbour(monkeypatch: pytest.MonkeyPatch) -> None:
    """Random embeddings have no neighbours above the floor; take the nearest there are."""
    monkeypatch.setattr("eexit_cli.attacks.substitutes.LEAST_COSINE", -1.0)


@pytest.mark.parametrize(
    ("recipe", "settings"),
    [
        ("random", {}),
        ("deepwordbug", {}),
        ("waffle", {"similarity": 0.0, "alpha": 0.99}),
        ("waffle", {"similarity": 0.0, "alpha": 0.99, "compat": "upstream"}),
        ("same-token", {"compat": "upstream", "per_size": 3, "top_n": 8}),
    ],
    ids=lambda value: value if isinstance(value, str) else ",".join(map(str, value.values())),
)
def test_a_smaller_budget_ends_where_the_larger_one_was_then(
    recipe: str, settings: dict[str, Any]
) -> None:
    moved = 0

    def attacked(budget: int, text: str) -> tuple[int, list[list[float]]]:
        # A fresh one each time: the published gradient adds up over samples.
        victim = victim_for(limit=budget, threshold=0.55, layers=5)
        attack = ATTACKS.load(recipe).attack(victim, AttackConfig(**settings))
        seed_everything(5)
        random.seed(5)
        victim.seed = 5
        result = attack.attack(text, victim.confirm(text).prediction)  # type: ignore[union-attr]
        chosen = result.perturbed_result.attacked_text.tokenizer_input
        outcome = victim.confirm(chosen)
        if outcome is None:
            outcome = victim.score([chosen])[0]
        return outcome.exit_layer, attack.goal_function.best.steps

    for text in TEXTS[:3]:
        _, steps = attacked(MOST, text)
        moved += len(steps) > 1
        for budget in BUDGETS:
            assert attacked(budget, text)[0] == after(steps, budget), (text, budget, steps)
    assert moved


def test_a_decoder_s_random_control_with_a_smaller_budget() -> None:
    moved = 0

    def attacked(budget: int, word: str) -> tuple[float, list[list[float]]]:
        victim = decoder_victim(threshold=0.3, seed=2, budget=budget)
        recipe = DECODER_ATTACKS.load("random")
        attack = recipe.build(victim, victim.budget, AttackConfig())
        victim.seed = 3
        found = attack.attack(word)
        return victim.score([found.text])[0].layers_per_token, attack.best.steps

    for word in WORDS[:4]:
        _, steps = attacked(MOST, word)
        moved += len(steps) > 1
        for budget in BUDGETS:
            assert attacked(budget, word)[0] == pytest.approx(after(steps, budget))
    assert moved


@given(st.lists(st.tuples(st.integers(0, 5), st.integers(1, 6)), min_size=1, max_size=30))
def test_steps_follow_the_first_of_the_best(texts: list[tuple[int, int]]) -> None:
    best = BestSoFar()
    for spent, (score, layer) in enumerate(texts, start=1):
        best.note(score, layer, spent)
    for budget in range(1, len(texts) + 1):
        scores = [score for score, _ in texts[:budget]]
        assert after(best.steps, budget) == texts[scores.index(max(scores))][1]


def test_a_restart_takes_the_next_text_whatever_it_is() -> None:
    best = BestSoFar()
    best.note(3, 6, 1)
    best.note(2, 4, 2)
    best.restart()
    best.note(1, 2, 3)
    # Known from before, so that it costs nothing more.
    best.note(2, 5, 2)
    assert best.steps == [[1, 6], [3, 2], [3, 5]]
