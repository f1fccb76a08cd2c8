"""The searches on decoders: budgets, choice, determinism, what may change."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from attacks_tiny_decoder import SENTENCES, VOCABULARY, decoder_victim
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from textattack.shared import AttackedText
from tiny_decoders import WORDS

from eexit_cli.attacks import DECODER_ATTACKS
from eexit_cli.attacks.constraints import NoStopWords
from eexit_cli.attacks.decoder_search import Goal
from eexit_cli.attacks.decoder_victim import DecoderVictim, Generation
from eexit_cli.config import AttackConfig
from eexit_cli.core.edits import edit_distance

SMALL = AttackConfig(top_n=8, beam_width=2, per_size=3)
NAMES = tuple(DECODER_ATTACKS)


def built(name: str, victim: DecoderVictim, config: AttackConfig = SMALL) -> Any:
    return DECODER_ATTACKS.load(name).build(victim, victim.budget, config)


@pytest.mark.parametrize("name", NAMES)
@given(
    word=st.sampled_from(WORDS),
    budget=st.integers(1, 40),
    seed=st.integers(0, 3),
    rate=st.sampled_from([0.1, 0.3, 0.6]),
)
@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_budget_and_letters_are_never_exceeded(
    name: str, word: str, budget: int, seed: int, rate: float
) -> None:
    victim = decoder_victim(budget=budget, seed=seed)
    victim.seed = seed
    attack = built(name, victim, replace(SMALL, letter_rate=rate))
    found = attack.attack(word)
    assert victim.budget.spent <= budget
    assert edit_distance(word, found.text) <= max(1, int(rate * sum(map(str.isalpha, word)) + 1e-9))
    before, after = victim.confirm(word), victim.confirm(found.text)  # both are free
    assert before is not None
    assert after is not None
    assert victim.budget.spent <= budget
    if found.text != word:
        assert after.layers_per_token > before.layers_per_token
    assert found.skipped == (before.layers_per_token == victim.num_layers)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("words", [False, True])
def test_the_same_again(name: str, words: bool) -> None:
    def run(before: tuple[str, ...]) -> list[tuple[str, int, int, list[list[float]]]]:
        victim = decoder_victim(words=words, seed=2, threshold=0.3, budget=60)
        attack = built(name, victim)
        ends = []
        for text in (*before, *(SENTENCES if words else WORDS[:4])):
            victim.seed = len(text)
            found = attack.attack(text)
            spent = victim.budget
            ends.append((found.text, spent.queries, spent.gradient_passes, attack.best.steps))
        return ends[len(before) :]

    first = run(())
    assert first == run(())
    # Nothing is remembered from one sample to the next.
    assert first == run(("garden",))


def test_without_a_budget_the_beam_has_the_published_width() -> None:
    victim = decoder_victim(threshold=0.2, seed=1)
    config = replace(SMALL, letter_rate=0.3)
    attack = built("same-token", victim, config)
    attack.goal = replace(attack.goal, num_layers=99)  # never reached
    attack.attack("thoroughly")
    # The input and its gradient; then per round at most two drafts with 8 candidates each; then
    # the checks of those chosen.
    assert victim.budget.gradient_passes <= 1 + 2 * 2
    assert victim.budget.queries >= 1 + 8 + 1


def test_a_larger_budget_is_used() -> None:
    spent = []
    for budget in (30, 120):
        victim = decoder_victim(threshold=0.2, seed=1, budget=budget)
        attack = built("same-token", victim)
        attack.goal = replace(attack.goal, num_layers=99)
        attack.attack("thoroughly")
        spent.append(victim.budget.spent)
    assert spent[0] > 20
    assert spent[1] > 100


@pytest.mark.parametrize("name", NAMES)
def test_words_of_a_text(name: str) -> None:
    stop = NoStopWords()
    changed = 0
    for seed in range(3):
        victim = decoder_victim(words=True, seed=seed, prefix="say ", threshold=0.4, budget=80)
        attack = built(name, victim, replace(SMALL, change_rate=0.25))
        for text in SENTENCES:
            victim.seed = seed
            found = attack.attack(text)
            assert found.editor.unit == "words"
            old, new = AttackedText(text), AttackedText(found.text)
            assert len(old.words) == len(new.words)
            allowed = stop._get_modifiable_indices(old)
            differ = {i for i, pair in enumerate(zip(old.words, new.words, strict=True))
                      if pair[0] != pair[1]}  # fmt: skip
            assert differ <= allowed
            assert len(differ) <= 3
            assert all(new.words[index] in VOCABULARY for index in differ)
            assert [change["position"] for change in found.editor.changes(text, found.text)] == (
                sorted(differ)
            )
            changed += len(differ)
    assert changed


def test_goals() -> None:
    short = Generation((5, 1), (3, 3), 0.0)
    long = Generation((5, 6, 7, 1), (2, 2, 1, 2), 0.5)
    sure = Generation((5, 6, 7, 1), (2, 2, 1, 2), 0.9)
    per_token = Goal("layers-per-token", 3, 10)
    total = Goal("total-layers", 3, 10)
    assert per_token.is_reached(short)
    assert not total.is_reached(short)
    assert total.most == 30
    assert per_token.rank(short) > per_token.rank(long) > per_token.rank(sure)
    assert total.rank(long) > total.rank(short)


def test_total_layers_count_longer_outputs() -> None:
    totals = {}
    for score in ("layers-per-token", "total-layers"):
        total = 0
        for seed in range(3):
            victim = decoder_victim(seed=seed, budget=60)
            attack = built("same-token", victim, replace(SMALL, score=score))
            for word in WORDS:
                found = attack.attack(word)
                after = victim.confirm(found.text)
                assert after is not None
                total += after.total_layers
        totals[score] = total
    assert totals["total-layers"] > totals["layers-per-token"]
