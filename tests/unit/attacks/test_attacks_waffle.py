"""WAFFLE: its score, its substitutes, its floor under similarity, and its walk."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from attacks_tiny import TEXTS, TOKENIZERS, victim_for
from hypothesis import given, settings
from hypothesis import strategies as st
from textattack.attack_results import SkippedAttackResult
from textattack.goal_function_results import GoalFunctionResultStatus
from textattack.shared import AttackedText

from eexit_cli.attacks import ATTACKS, SUBSTITUTES
from eexit_cli.attacks.constraints import NoStopWords, most_changes
from eexit_cli.attacks.encoder_victim import EncoderVictim
from eexit_cli.attacks.meaning import SIMILARITY, SentenceSimilarity
from eexit_cli.attacks.substitutes import EmbeddingNeighbours
from eexit_cli.attacks.uncertainty import certainty_loss, uncertainty
from eexit_cli.attacks.word_mutation import SubstituteSwap
from eexit_cli.config import AttackConfig
from eexit_cli.core.errors import UsageError

# The tiny embeddings are random, so nothing in them is alike.
SMALL = AttackConfig(recipe="waffle", similarity=0.0, alpha=0.6)
SUCCEEDED = GoalFunctionResultStatus.SUCCEEDED
ONE_HOT = st.integers(2, 6)


@pytest.fixture(autouse=True)
def any_neighbour(monkeypatch: pytest.MonkeyPatch) -> None:
    """Random embeddings have no neighbours above the floor; take the nearest there are."""
    monkeypatch.setattr("eexit_cli.attacks.substitutes.LEAST_COSINE", -1.0)


def attack_for(victim: EncoderVictim, config: AttackConfig = SMALL) -> Any:
    return ATTACKS.load("waffle").attack(victim, config)


@given(classes=ONE_HOT, exits=st.integers(1, 8), data=st.data())
def test_the_score_spans_zero_to_one_for_every_number_of_classes(
    classes: int, exits: int, data: st.DataObject
) -> None:
    draws = data.draw(
        st.lists(
            st.lists(st.floats(-20, 20), min_size=classes, max_size=classes),
            min_size=exits,
            max_size=exits,
        )
    )
    probabilities = torch.softmax(torch.tensor(draws, dtype=torch.float64), dim=-1)
    score = float(uncertainty(probabilities))
    assert -1e-12 <= score <= 1 + 1e-12
    uniform = torch.full((exits, classes), 1 / classes, dtype=torch.float64)
    certain = torch.nn.functional.one_hot(torch.arange(exits) % classes, classes).double()
    assert float(uncertainty(uniform)) == pytest.approx(1)
    assert float(uncertainty(certain)) == pytest.approx(0, abs=1e-12)
    assert float(uncertainty((certain + uniform) / 2)) == pytest.approx(0.5)


@given(classes=ONE_HOT)
def test_the_published_normaliser_is_ours_for_two_classes_only(classes: int) -> None:
    certain = torch.nn.functional.one_hot(torch.tensor([0]), classes).double()
    published = float(uncertainty(certain, compat="upstream"))
    # By hand: the distance of a one-hot distribution is (1 - 1/K) + (K - 1)/K.
    distance = (1 - 1 / classes) + (classes - 1) / classes
    assert published == pytest.approx(1 - distance / (classes - 1))
    assert (published == pytest.approx(0, abs=1e-12)) == (classes == 2)
    uniform = torch.full((3, classes), 1 / classes, dtype=torch.float64)
    assert float(uncertainty(uniform, compat="upstream")) == pytest.approx(1)


def test_the_score_against_numpy() -> None:
    logits = torch.randn(5, 4, 3, dtype=torch.float64)
    p = np.exp(logits.numpy())
    p /= p.sum(axis=-1, keepdims=True)
    expected = np.mean(1 - np.abs(p - 1 / 3).sum(axis=-1) / (4 / 3), axis=-1)
    np.testing.assert_allclose(uncertainty(torch.tensor(p)).numpy(), expected)
    loss = certainty_loss(logits, torch.ones(5, dtype=torch.int64))
    np.testing.assert_allclose(loss.numpy(), 1 - expected)


@pytest.mark.parametrize("patience", [None, 1])
@pytest.mark.parametrize("text", TEXTS)
def test_every_result_keeps_the_rules(patience: int | None, text: str) -> None:
    victim = victim_for(patience=patience, threshold=0.55, layers=5)
    result = attack_for(victim).attack(text, 0)
    before, after = result.original_result, result.perturbed_result
    if isinstance(result, SkippedAttackResult):
        assert before.raw_output.exit_layer == 5
        assert victim.budget.spent == 1
        return
    assert after.raw_output.exit_layer >= before.raw_output.exit_layer
    exits = torch.softmax(victim.model(**victim.batcher([after.attacked_text.text])).logits, -1)
    assert after.score == pytest.approx(float(uncertainty(exits)[0]), abs=1e-6)
    words, changed = AttackedText(text).words, after.attacked_text.words
    places = [i for i, (old, new) in enumerate(zip(words, changed, strict=True)) if old != new]
    assert len(places) <= most_changes(len(words), SMALL.change_rate, 4)
    assert not any(words[i].lower() in NoStopWords().stopwords for i in places)
    assert victim.budget.gradient_passes <= 1
    if places:
        # Either the goal was reached, or every step that was taken raised the score.
        assert after.score > before.score


def test_the_walk_stops_at_alpha_and_a_higher_alpha_changes_more() -> None:
    spent = []
    alphas = (0.6, 0.7, 0.99)
    for alpha in alphas:
        victim = victim_for(threshold=0.55, layers=5)
        attack = attack_for(victim, AttackConfig(similarity=0.0, alpha=alpha))
        total = 0
        for text in TEXTS:
            result = attack.attack(text, 0)
            # An input above alpha is attacked until it uses all layers.
            if result.original_result.score <= alphas[0]:
                total += victim.budget.spent
        spent.append(total)
    assert spent == sorted(spent)
    assert spent[0] < spent[-1]


@given(limit=st.integers(1, 40), text=st.sampled_from(TEXTS))
@settings(max_examples=15, deadline=None)
def test_the_budget_holds(limit: int, text: str) -> None:
    victim = victim_for(limit=limit, threshold=0.55, layers=5)
    attack_for(victim).attack(text, 0)
    assert 1 <= victim.budget.spent <= limit


def test_a_query_runs_every_layer_and_knows_the_exit_all_the_same() -> None:
    victim = victim_for(threshold=0.55, layers=5)
    live = victim.score(TEXTS)
    victim.begin(all_exits=True)
    full = victim.score(TEXTS)
    assert victim.budget.queries == len(TEXTS)
    assert [one.exit_layer for one in full] == [one.exit_layer for one in live]
    logits = victim.model(**victim.batcher([TEXTS[0]])).logits[0]
    torch.testing.assert_close(
        torch.tensor(full[0].exits), torch.softmax(logits, -1), rtol=1e-4, atol=1e-6
    )
    assert live[0].exits is None
    victim.score(TEXTS)
    assert victim.budget.queries == len(TEXTS)


def test_upstream_skips_by_score_and_keeps_texts_that_leave_earlier() -> None:
    earlier = skipped = 0
    for seed in range(3):
        victim = victim_for(threshold=0.5, layers=5, seed=seed)
        config = AttackConfig(similarity=0.0, alpha=0.5, compat="upstream")
        attack = attack_for(victim, config)
        for text in TEXTS:
            result = attack.attack(text, 0)
            before, after = result.original_result, result.perturbed_result
            above = before.score > 0.5
            assert isinstance(result, SkippedAttackResult) == above
            skipped += above and before.raw_output.exit_layer < 5
            earlier += after.raw_output.exit_layer < before.raw_output.exit_layer
    assert skipped + earlier > 0


def test_an_input_above_alpha_that_leaves_early_is_attacked() -> None:
    deeper = 0
    for seed in range(3):
        victim = victim_for(threshold=0.5, layers=5, seed=seed)
        attack = attack_for(victim, AttackConfig(similarity=0.0, alpha=0.05))
        for text in TEXTS:
            result = attack.attack(text, 0)
            before = result.original_result.raw_output.exit_layer
            after = result.perturbed_result.raw_output.exit_layer
            assert result.original_result.score > 0.05
            assert isinstance(result, SkippedAttackResult) == (before == 5)
            if before < 5:
                succeeded = result.perturbed_result.goal_status == SUCCEEDED
                assert succeeded == (after == 5)
                deeper += after > before
    assert deeper > 5


def test_neighbours_are_the_nearest_by_cosine_and_never_the_word_itself() -> None:
    victim = victim_for()
    source = EmbeddingNeighbours(victim)
    table = victim.model.word_embeddings.weight.numpy()
    vocabulary = victim.tokenizer.get_vocab()
    words = [w for w in vocabulary if w.isalpha() and w.isascii()]
    vectors = np.stack([table[vocabulary[word]] for word in words])
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    cosines = vectors @ vectors[words.index("film")]
    expected = [words[i] for i in np.argsort(-cosines) if words[i] != "film"]
    assert source.substitutes("Film", 6) == expected[:6]
    assert source.substitutes("unbelievably", 6) == []


@pytest.mark.parametrize("tokenizer", list(TOKENIZERS))
def test_swaps_are_written_as_the_word_was(tokenizer: str) -> None:
    backbone = {"byte_bpe": "roberta", "sentencepiece": "albert"}.get(tokenizer, "bert")
    victim = victim_for(TOKENIZERS[tokenizer](), backbone=backbone)
    swap = SubstituteSwap(EmbeddingNeighbours(victim), count=4)
    text = AttackedText("the film was GREAT")
    texts = swap(text, indices_to_modify=[1, 3])
    assert texts
    for candidate in texts:
        assert len(candidate.words) == 4
        (place,) = candidate.attack_attrs["newly_modified_indices"]
        word = candidate.words[place]
        assert word == (word.upper() if place == 3 else word.lower())
        assert word.lower() != text.words[place].lower()


def test_similarity_is_the_cosine_of_mean_embeddings() -> None:
    victim = victim_for()
    floor = SentenceSimilarity(victim, 0.3)
    original = AttackedText("the film was great")
    candidates = [AttackedText("the plot was great"), AttackedText("music happy short cold")]
    for candidate in candidates:
        candidate.attack_attrs["last_transformation"] = None
    kept = floor._check_constraint_many(candidates, original)
    table = victim.model.word_embeddings.weight.double()

    def mean(text: str) -> torch.Tensor:
        ids = victim.tokenizer(text, add_special_tokens=False)["input_ids"]
        return table[ids].mean(dim=0)

    for candidate in candidates:
        expected = torch.cosine_similarity(mean(candidate.text), mean(original.text), dim=0)
        found = candidate.attack_attrs[SIMILARITY]
        assert found == pytest.approx(float(expected), abs=1e-5)
        assert (candidate in kept) == (float(expected) >= 0.3)
    assert floor._check_constraint(original, original)


def test_wordnet_is_used_where_it_is_and_named_where_it_is_not(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from eexit_cli.attacks import wordnet_env
    from eexit_cli.core.errors import MissingArtifactError

    source = SUBSTITUTES.load("wordnet")
    if wordnet_env.wordnet_is_there():
        found = source(victim_for()).substitutes("Movie", 20)
        assert "film" in found
        assert "movie" not in found
        assert all("_" not in word for word in found)
    monkeypatch.setattr(wordnet_env, "wordnet_is_there", lambda: False)
    with pytest.raises(MissingArtifactError, match="WordNet") as caught:
        source(victim_for())
    assert "pip install" in str(caught.value.hint)


def test_an_unknown_source_is_named() -> None:
    with pytest.raises(UsageError, match="Unknown source of substitutes 'thesaurus'"):
        attack_for(victim_for(), AttackConfig(substitutes="thesaurus"))
