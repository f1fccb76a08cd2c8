"""The whole attack on a small victim: what every result must satisfy."""

from __future__ import annotations

import itertools
from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import replace
from itertools import islice

import pytest
import textattack
from attacks_tiny import TEXTS, TOKENIZERS, victim_for
from hypothesis import given, settings
from hypothesis import strategies as st
from textattack.attack_results import SkippedAttackResult, SuccessfulAttackResult
from textattack.shared import AttackedText

from eexit_cli.attacks import ATTACKS
from eexit_cli.attacks.constraints import NoStopWords, most_changes
from eexit_cli.attacks.encoder_victim import EncoderVictim, Outcome
from eexit_cli.attacks.search import RANDOM_SHARE, RandomTexts, Stage, narrow_then_wide
from eexit_cli.config import AttackConfig
from eexit_cli.core.stepping import replay

SAME = ["same-token", "same-char"]
SMALL = AttackConfig(top_n=12, beam_width=3, per_size=4)


def build(
    victim: EncoderVictim, recipe: str = "same-token", config: AttackConfig = SMALL
) -> textattack.Attack:
    return ATTACKS.load(recipe).build(victim, victim.budget, config)


def alone(victim: EncoderVictim, text: str) -> int:
    """Where a user's single input leaves: plain model, batch of one, by replay."""
    logits = victim.model(**victim.batcher([text])).logits
    return int(replay(logits, victim.criterion).exit_layers[0])


@pytest.mark.parametrize("recipe", SAME)
@pytest.mark.parametrize("patience", [None, 1])
@pytest.mark.parametrize("text", TEXTS)
def test_every_result_keeps_the_rules(recipe: str, patience: int | None, text: str) -> None:
    victim = victim_for(patience=patience, threshold=0.55, layers=5)
    result = build(victim, recipe).attack(text, 0)
    original, chosen = result.original_result, result.perturbed_result
    before, after = original.raw_output.exit_layer, chosen.raw_output.exit_layer
    assert before == alone(victim, text)
    assert after == alone(victim, chosen.attacked_text.text)
    assert after >= before
    if isinstance(result, SkippedAttackResult):
        assert before == victim.num_layers
        assert victim.budget.queries == 1
        assert victim.budget.gradient_passes == 0
        return
    words = AttackedText(text).words
    changed = chosen.attacked_text.words
    assert len(changed) == len(words)
    places = [i for i, (old, new) in enumerate(zip(words, changed, strict=True)) if old != new]
    assert len(places) <= most_changes(len(words), SMALL.change_rate)
    assert len(places) <= SMALL.per_size
    assert set(places) == set(chosen.attacked_text.attack_attrs["modified_indices"])
    stop_words = NoStopWords().stopwords
    assert not any(words[i].lower() in stop_words for i in places)
    if after == before:
        assert chosen.attacked_text.text == text
    assert chosen.num_queries == victim.budget.queries


@given(limit=st.integers(1, 60), text=st.sampled_from(TEXTS), char=st.booleans())
@settings(max_examples=60, deadline=None)
def test_query_budget_is_never_exceeded(limit: int, text: str, char: bool) -> None:
    victim = victim_for(limit=limit, threshold=0.55, layers=5)
    result = build(victim, "same-char" if char else "same-token").attack(text, 0)
    assert 1 <= victim.budget.spent <= limit
    after = result.perturbed_result.raw_output.exit_layer
    assert after == alone(victim, result.perturbed_result.attacked_text.text)
    assert after >= result.original_result.raw_output.exit_layer


@pytest.mark.parametrize(
    ("tokenizer", "backbone"), [("byte_bpe", "roberta"), ("sentencepiece", "albert")]
)
@pytest.mark.parametrize("recipe", SAME)
def test_other_backbones_are_slowed_down_too(recipe: str, tokenizer: str, backbone: str) -> None:
    victim = victim_for(TOKENIZERS[tokenizer](), backbone=backbone, layers=5, threshold=0.6)
    attack = build(victim, recipe)
    gained = 0
    for text in TEXTS:
        result = attack.attack(text, 0)
        chosen = result.perturbed_result
        assert chosen.raw_output.exit_layer == alone(victim, chosen.attacked_text.text)
        gained += chosen.raw_output.exit_layer - result.original_result.raw_output.exit_layer
    assert gained > 0


@pytest.mark.parametrize("limit", [None, 50])
def test_random_texts_follow_where_the_first_stage_fails(limit: int | None) -> None:
    victim = victim_for(limit=limit, threshold=1e-9, layers=5, patience=1)
    attack = build(victim)
    search = attack.search_method
    drawn: list[str] = []

    def draws(text: AttackedText, indices: list[int]) -> Iterator[AttackedText]:
        for number in itertools.count():
            changed = text.replace_word_at_index(indices[0], f"word{number}")
            drawn.append(changed.text)
            yield changed

    hopeless = Stage(1, 1, chunk=1)
    search.stages, search.rounds = (hopeless, hopeless), 1
    search.random_texts = RandomTexts(draws, most=20, chunk=4)
    text = next(text for text in TEXTS if alone(victim, text) < 5)
    search.stop_at_goal = False  # so that every text is tried
    attack.attack(text, 0)
    assert len(drawn) == (20 if limit is None else int(RANDOM_SHARE * limit))
    assert set(drawn) <= set(search._seen)
    drawn.clear()
    search.random_texts = None
    attack.attack(text, 0)
    assert not drawn


@pytest.mark.parametrize("per_size", [1, 2])
def test_random_texts_change_no_more_words_than_the_search_may(per_size: int) -> None:
    victim = victim_for(threshold=0.55, layers=5)
    draws = build(victim, config=replace(SMALL, per_size=per_size)).search_method.random_texts.draws
    text = AttackedText(" ".join(f"word{letter}" for letter in "abcdefghij"))
    first = list(islice(draws(text, list(range(10))), 5))
    assert [len(one.attack_attrs["modified_indices"]) for one in first] == [per_size] * 5
    assert [one.text for one in first] == [
        one.text for one in islice(draws(text, list(range(10))), 5)
    ]


def test_a_larger_budget_reaches_at_least_as_deep() -> None:
    reached = []
    for limit in (3, 20, 200):
        total = 0
        for text in TEXTS:
            victim = victim_for(limit=limit, threshold=0.55, layers=5)
            total += build(victim).attack(text, 0).perturbed_result.raw_output.exit_layer
        reached.append(total)
    assert reached == sorted(reached)


def test_the_same_seed_gives_the_same_result_whatever_came_before() -> None:
    fresh = []
    for text in TEXTS:
        victim = victim_for(threshold=0.55, layers=5)
        victim.seed = 7
        result = build(victim, "same-char").attack(text, 0)
        fresh.append((result.perturbed_result.attacked_text.text, victim.budget.spent))
    victim = victim_for(threshold=0.55, layers=5)
    attack = build(victim, "same-char")
    for text, expected in reversed(list(zip(TEXTS, fresh, strict=True))):
        victim.seed = 7
        result = attack.attack(text, 0)
        assert (result.perturbed_result.attacked_text.text, victim.budget.spent) == expected


def test_no_text_is_scored_twice_except_alone() -> None:
    victim = victim_for(threshold=0.55, layers=5)
    scored: list[object] = []
    alone_texts: list[object] = []
    run_in_buckets, confirm = victim._run_in_buckets, victim.confirm

    def spy(texts, *options):  # type: ignore[no-untyped-def]
        scored.extend(texts)
        return run_in_buckets(texts, *options)

    def spy_alone(text, **options):  # type: ignore[no-untyped-def]
        alone_texts.append(text)
        return confirm(text, **options)

    victim._run_in_buckets = spy  # type: ignore[method-assign]
    victim.confirm = spy_alone  # type: ignore[method-assign]
    attack = build(victim)
    for text in TEXTS:
        scored.clear()
        alone_texts.clear()
        attack.attack(text, 0)
        assert len(scored) == len(set(scored))
        assert len(alone_texts) == len(set(alone_texts))
        assert victim.budget.queries == len(scored) + len(alone_texts)


def test_a_batch_that_claims_too_much_is_not_believed() -> None:
    """Rounding may put a candidate at the last layer in a batch and not alone; alone counts."""
    victim = victim_for(threshold=0.55, layers=5)
    run_in_buckets = victim._run_in_buckets

    def optimistic(texts, *options):  # type: ignore[no-untyped-def]
        outcomes = run_in_buckets(texts, *options)
        return [Outcome(5, o.prediction, 0.0, o.probabilities) for o in outcomes]

    victim._run_in_buckets = optimistic  # type: ignore[method-assign]
    attack = build(victim)
    for text in TEXTS:
        result = attack.attack(text, 0)
        chosen = result.perturbed_result
        assert chosen.raw_output.exit_layer == alone(victim, chosen.attacked_text.text)
        assert chosen.raw_output.exit_layer >= result.original_result.raw_output.exit_layer


def test_the_wide_stage_is_the_published_one() -> None:
    narrow, wide = narrow_then_wide(100, 5)
    assert (wide.candidates, wide.beam_width) == (100, 5)
    assert narrow.candidates < wide.candidates
    assert narrow.beam_width < wide.beam_width
    assert narrow_then_wide(4, 1)[0] == Stage(4, 1)


def test_every_round_can_be_run_to_the_end() -> None:
    victim = victim_for(threshold=0.55, layers=5)
    spent = {}
    for stop in (True, False):
        attack = build(victim)
        attack.search_method.stop_at_goal = stop
        total = 0
        for text in TEXTS:
            attack.attack(text, 0)
            total += victim.budget.queries
        spent[stop] = total
    assert spent[False] > spent[True]


def test_pairs_are_attacked_in_both_columns() -> None:
    victim = victim_for(threshold=0.6, layers=5)
    attack = build(victim, config=AttackConfig(top_n=30, change_rate=0.5))
    changed = set()
    for first in TEXTS[:4]:
        for second in TEXTS[1:5]:
            pair = AttackedText(OrderedDict(premise=first, hypothesis=second))
            chosen = attack.attack(pair, 0).perturbed_result.attacked_text
            columns = chosen.tokenizer_input
            changed |= {i for i, old in enumerate((first, second)) if columns[i] != old}
    assert changed == {0, 1}


def test_attack_works_inside_textattacks_own_attacker() -> None:
    victim = victim_for(threshold=0.55, layers=5)
    dataset = textattack.datasets.Dataset([(text, 0) for text in TEXTS[:3]])
    arguments = textattack.AttackArgs(
        num_examples=3, disable_stdout=True, silent=True, shuffle=False
    )
    results = textattack.Attacker(build(victim), dataset, arguments).attack_dataset()
    assert any(isinstance(result, SuccessfulAttackResult) for result in results)
