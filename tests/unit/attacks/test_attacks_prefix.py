"""The universal trigger: learning a prefix, and putting it before inputs."""

from __future__ import annotations

import json
import pickle

import pytest
from attacks_tiny import TEXTS, TOKENIZERS, WORDS, victim_for
from textattack.attack_results import SkippedAttackResult
from textattack.shared import AttackedText

from eexit_cli.attacks import ATTACKS
from eexit_cli.attacks.prefix import attacked, with_prefix
from eexit_cli.attacks.slowdown_loss import slowdown_loss
from eexit_cli.attacks.vocabulary import WordTable
from eexit_cli.attacks.words import changed_words
from eexit_cli.config import AttackConfig
from eexit_cli.core.seed import stream

CONFIG = AttackConfig(top_n=16, beam_width=2, per_size=4, prefix_length=2)
draw = stream(5, "search texts")
SEARCH = [" ".join(draw.choices(WORDS, k=draw.randint(3, 9))) for _ in range(12)]


def loss(logits, exit_layers):  # type: ignore[no-untyped-def]
    return slowdown_loss(logits, exit_layers, lam=0.8)


@pytest.fixture(scope="module")
def learned() -> dict[str, object]:
    recipe = ATTACKS.load("universal")
    return recipe.fit(victim_for(threshold=0.55, layers=5), SEARCH, CONFIG)


def test_the_prefix_slows_the_search_texts_down(learned: dict[str, object]) -> None:
    assert len(str(learned["prefix"]).split()) == 2
    history = learned["history"]
    assert isinstance(history, list)
    scores = [entry["score"] for entry in history]
    assert scores == sorted(scores)
    assert scores[-1] > scores[0]
    assert learned["mean_exit_layer_after"] == history[-1]["mean_exit_layer"]
    assert learned["search_samples"] == len(SEARCH)
    assert json.loads(json.dumps(learned)) == learned


def test_what_it_reports_of_the_search_is_what_the_victim_does(
    learned: dict[str, object],
) -> None:
    victim = victim_for(threshold=0.55, layers=5)
    for key, texts in (
        ("mean_exit_layer_before", SEARCH),
        ("mean_exit_layer_after", [f"{learned['prefix']} {text}" for text in SEARCH]),
    ):
        layers = [outcome.exit_layer for outcome in victim.score(texts)]
        assert learned[key] == pytest.approx(sum(layers) / len(layers))


class Crew:
    """Members in this process, who hand their answers in from the last to the first."""

    size = 2

    def __init__(self) -> None:
        self.member = victim_for(threshold=0.55, layers=5)
        self.parts: list[list[int]] = []

    def do(self, shares, sizes):  # type: ignore[no-untyped-def]
        assert [len(share) for share in shares] == sizes
        self.parts.append(sizes)
        for place in reversed(range(len(shares))):
            share = pickle.loads(pickle.dumps(shares[place]))
            yield place, pickle.loads(pickle.dumps(self.member.share(share)))


def test_a_crew_learns_what_one_process_learns(learned: dict[str, object]) -> None:
    victim, crew = victim_for(threshold=0.55, layers=5), Crew()
    victim.crew = crew
    victim._run = victim._differentiate = None  # type: ignore[method-assign, assignment]
    found = ATTACKS.load("universal").fit(victim, SEARCH, CONFIG)
    seconds = {"seconds": 0.0}
    assert {**found, **seconds} == {**learned, **seconds}
    assert sum(len(sizes) > 1 for sizes in crew.parts) > 5
    assert [4, 4, 4] in crew.parts, "gradients, four texts each"


def test_learning_counts_its_cost_and_leaves_the_budget_alone() -> None:
    victim = victim_for(limit=3, threshold=0.55, layers=5)
    budget = victim.budget
    victim.begin()
    victim.score(TEXTS[:2])
    passes = 0
    differentiate = victim._differentiate

    def count(texts, loss):  # type: ignore[no-untyped-def]
        nonlocal passes
        passes += len(texts)
        return differentiate(texts, loss)

    victim._differentiate = count  # type: ignore[method-assign]
    found = ATTACKS.load("universal").fit(victim, SEARCH, CONFIG)
    assert victim.budget is budget
    assert budget.spent == 2
    assert found["gradient_passes"] == passes > 0
    assert found["queries"] > len(SEARCH)
    assert SEARCH[0] not in victim._known


@pytest.mark.parametrize("limit", [1, 2, 3, 40])
def test_learning_on_a_text_costs_no_more_than_attacking_one(
    limit: int, learned: dict[str, object]
) -> None:
    victim = victim_for(limit=limit, threshold=0.55, layers=5)
    found = ATTACKS.load("universal").fit(victim, SEARCH, CONFIG)
    assert found["queries"] + found["gradient_passes"] <= max(2, limit) * len(SEARCH)
    if limit <= 3:  # enough to judge the first prefix, and to differentiate it, and no more
        assert len(found["history"]) == 1
    else:
        assert 1 < len(found["history"]) <= len(learned["history"])  # type: ignore[arg-type]
    layers = [
        o.exit_layer
        for o in victim_for(threshold=0.55, layers=5).score(
            [f"{found['prefix']} {text}" for text in SEARCH]
        )
    ]
    assert found["mean_exit_layer_after"] == pytest.approx(sum(layers) / len(layers))


def test_learning_is_repeatable(learned: dict[str, object]) -> None:
    again = ATTACKS.load("universal").fit(victim_for(threshold=0.55, layers=5), SEARCH, CONFIG)
    assert {**again, "seconds": 0} == {**learned, "seconds": 0}


def test_a_learned_prefix_beats_its_starting_point_and_most_random_ones(
    learned: dict[str, object],
) -> None:
    victim = victim_for(threshold=0.55, layers=5)
    dice = stream(1, "random prefixes")
    history = learned["history"]
    assert isinstance(history, list)
    beaten = 0
    for _ in range(20):
        prefix = " ".join(dice.choices(WORDS, k=2))
        found = victim.score([f"{prefix} {text}" for text in SEARCH])
        score = sum(one.exit_layer + one.closeness for one in found) / len(found) / 5
        beaten += history[-1]["score"] >= score
    assert beaten >= 18


def test_every_input_gets_the_prefix_at_two_queries() -> None:
    victim = victim_for(threshold=0.55, layers=5)
    attack = ATTACKS.load("universal").attack(victim, CONFIG, {"prefix": "dull story"})
    for text in TEXTS:
        result = attack.attack(text, 0)
        if isinstance(result, SkippedAttackResult):
            assert victim.budget.queries == 1
            continue
        chosen = result.perturbed_result
        assert chosen.attacked_text.text == f"dull story {text}"
        assert victim.budget.queries == 2
        assert victim.budget.gradient_passes == 0
        assert chosen.raw_output == victim.confirm(f"dull story {text}")
        assert changed_words(AttackedText(text), chosen.attacked_text) == [
            {"position": 0, "from": "", "to": "dull"},
            {"position": 1, "from": "", "to": "story"},
        ]


def test_pairs_get_it_before_their_first_text() -> None:
    victim = victim_for(threshold=0.6, layers=5)
    attack = ATTACKS.load("universal").attack(victim, CONFIG, {"prefix": "dull"})
    for first in TEXTS:
        pair = attacked((first, "the plot"))
        result = attack.attack(pair, 0)
        if not isinstance(result, SkippedAttackResult):
            chosen = result.perturbed_result.attacked_text
            assert chosen.tokenizer_input == (f"dull {first}", "the plot")
            assert chosen.column_labels == ["text", "text_pair"]
    assert with_prefix("a b", ("c", "d")) == ("a b c", "d")


def test_a_budget_of_one_query_leaves_the_input_as_it_is() -> None:
    victim = victim_for(limit=1, threshold=0.55, layers=5)
    attack = ATTACKS.load("universal").attack(victim, CONFIG, {"prefix": "dull"})
    for text in TEXTS:
        assert attack.attack(text, 0).perturbed_result.attacked_text.text == text
        assert victim.budget.spent == 1


@pytest.mark.parametrize("tokenizer", ["byte_bpe", "sentencepiece"])
def test_other_vocabularies_learn_whole_words_too(tokenizer: str) -> None:
    backbone = {"byte_bpe": "roberta", "sentencepiece": "albert"}[tokenizer]
    victim = victim_for(TOKENIZERS[tokenizer](), backbone=backbone, layers=4, threshold=0.6)
    config = AttackConfig(top_n=8, beam_width=1, per_size=2, prefix_length=2)
    found = ATTACKS.load("universal").fit(victim, SEARCH[:5], config)
    # What spells a word after a space on its own; byte BPE has pieces such as "war" too.
    whole = set(WordTable.of(victim.tokenizer).words)
    assert set(found["prefix"].split()) <= whole


def test_without_search_texts_or_a_learned_prefix_it_does_not_run() -> None:
    recipe = ATTACKS.load("universal")
    with pytest.raises(ValueError, match="there are none"):
        recipe.fit(victim_for(), [], CONFIG)
    with pytest.raises(ValueError, match="learned"):
        recipe.attack(victim_for(), CONFIG)


@pytest.mark.parametrize(
    ("before", "after", "expected"),
    [
        ("a good film", "a bad film", [(1, "good", "bad")]),
        ("a good film", "good film", [(0, "a", "")]),
        ("a film", "x y a film", [(0, "", "x"), (1, "", "y")]),
        ("a film b", "a plot twist b", [(1, "film", "plot"), (2, "", "twist")]),
        ("a film", "a film", []),
    ],
)
def test_changes_are_told_word_by_word(
    before: str, after: str, expected: list[tuple[int, str, str]]
) -> None:
    found = changed_words(AttackedText(before), AttackedText(after))
    assert [(one["position"], one["from"], one["to"]) for one in found] == expected
