"""The two transformations against brute force."""

from __future__ import annotations

from functools import partial

import pytest
import torch
from attacks_tiny import SPECIAL, TEXTS, TOKENIZERS, victim_for, wordpiece
from textattack.constraints.pre_transformation import RepeatModification
from textattack.shared import AttackedText

from eexit_cli.attacks.constraints import ChangeLimit, NoStopWords, most_changes
from eexit_cli.attacks.letter_mutation import LOOK_ALIKES, CharacterMutation, critical_rows
from eexit_cli.attacks.saliency import word_gradients
from eexit_cli.attacks.slowdown_loss import slowdown_loss
from eexit_cli.attacks.word_mutation import ESTIMATE, TokenMutation
from eexit_cli.core.seed import stream

LOSS = partial(slowdown_loss, lam=0.8)


def brute_force(transformation: TokenMutation, text: AttackedText) -> list[tuple[float, int, str]]:
    """Every (change, index, word) by a loop over positions and the whole vocabulary, sorted."""
    victim, table = transformation.victim, transformation.table
    words = word_gradients(victim, LOSS, text, set(range(text.num_words)))
    assert words is not None
    embedding = victim.model.word_embeddings.weight
    pairs = []
    for row, index in enumerate(words.indices):
        start = words.spans[index].start
        after_space = start > 0 and text.text[start - 1].isspace()
        bare = table.mark is not None and not after_space
        if table.mark == "▁" and start == 0:
            bare = False
        for entry, word in enumerate(table.words):
            piece = int((table.bare_ids if bare else table.spaced_ids)[entry])
            if piece < 0 or word.casefold() == text.words[index].casefold():
                continue
            moved = embedding[piece] - words.embeddings[row]
            pairs.append((float(moved @ words.gradients[row]), index, word))
    return sorted(pairs)


@pytest.mark.parametrize("make", TOKENIZERS.values(), ids=TOKENIZERS)
@pytest.mark.parametrize("text", [TEXTS[0].lower(), TEXTS[2], "(film, plot) great"])
def test_best_pairs_are_those_of_a_full_sort(make, text: str) -> None:  # type: ignore[no-untyped-def]
    tokenizer = make()
    victim = victim_for(tokenizer)
    transformation = TokenMutation(victim, LOSS, top_n=25)
    original = AttackedText(text)
    expected = brute_force(transformation, original)[:25]
    candidates = transformation(original)
    assert len(candidates) == 25
    changes = [candidate.attack_attrs[ESTIMATE] for candidate in candidates]
    assert changes == pytest.approx([change for change, _, _ in expected], rel=1e-4, abs=1e-5)
    found = set()
    for candidate in candidates:
        (index,) = candidate.attack_attrs["newly_modified_indices"]
        found.add((index, candidate.words[index]))
    assert found == {(index, word) for _, index, word in expected}


def test_top_n_beyond_what_exists_gives_everything() -> None:
    victim = victim_for()
    transformation = TokenMutation(victim, LOSS, top_n=10**6)
    text = AttackedText("film plot")
    candidates = transformation(text)
    assert len(candidates) == len(brute_force(transformation, text))


def test_the_estimate_is_the_change_of_the_loss_to_first_order() -> None:
    victim = victim_for()
    victim.model.double()
    table = victim.model.word_embeddings.weight
    # All embeddings close together: the first order is then nearly all there is.
    with torch.no_grad():
        table.mul_(1e-3)
    transformation = TokenMutation(victim, LOSS, top_n=40)
    text = AttackedText("film plot was great")
    (before,) = victim.gradients([text.text], LOSS)
    for candidate in transformation(text):
        (after,) = victim.gradients([candidate.text], LOSS)
        one, other = victim.score([text.text, candidate.text])
        if one.exit_layer == other.exit_layer:
            assert after.loss - before.loss == pytest.approx(
                candidate.attack_attrs[ESTIMATE], rel=0.05, abs=1e-5
            )


@pytest.mark.parametrize("text", TEXTS)
def test_replacements_are_words_and_never_the_word_itself(text: str) -> None:
    transformation = TokenMutation(victim_for(), LOSS, top_n=500)
    original = AttackedText(text)
    for candidate in transformation(original):
        assert candidate.num_words == original.num_words
        (index,) = candidate.attack_attrs["newly_modified_indices"]
        old, new = original.words[index], candidate.words[index]
        assert new.casefold() != old.casefold()
        assert new not in SPECIAL
        assert not new.startswith("##")
        assert new[0].isupper() == old[0].isupper()
        others = [word for place, word in enumerate(candidate.words) if place != index]
        assert others == [word for place, word in enumerate(original.words) if place != index]


def test_capitalised_words_and_words_of_several_pieces_are_replaced() -> None:
    transformation = TokenMutation(victim_for(), LOSS, top_n=10**6)
    text = AttackedText("Actor unbelievably FILM")
    replaced = {next(iter(c.attack_attrs["newly_modified_indices"])) for c in transformation(text)}
    assert replaced == {0, 1, 2}


def test_cased_vocabulary_offers_entries_written_alike() -> None:
    transformation = TokenMutation(
        victim_for(wordpiece(lower_case=False, capitals=True)), LOSS, top_n=10**6
    )
    for candidate in transformation(AttackedText("Film plot")):
        assert candidate.words[0][0].isupper()
        assert candidate.words[1].islower()


@pytest.mark.parametrize("word", ["film", "Film", "don't", "a-b", "wow", "ok", "x"])
def test_mutants_are_one_edit_away_and_one_word(word: str) -> None:
    transformation = CharacterMutation(victim_for(), LOSS, top_n=10)
    mutants = transformation.mutants(word, stream(0, word))
    if len(word) < 2:
        assert mutants == []
        return
    assert len(mutants) == len(set(mutants)) > 0
    for mutant in mutants:
        assert mutant.casefold() != word.casefold()
        assert AttackedText(mutant).words == [mutant]
        swapped = sorted(mutant) == sorted(word)
        inserted = len(mutant) == len(word) + 1 and any(
            mutant[:i] + mutant[i + 1 :] == word for i in range(len(mutant))
        )
        deleted = len(mutant) == len(word) - 1 and any(
            word[:i] + word[i + 1 :] == mutant for i in range(len(word))
        )
        replaced = len(mutant) == len(word) and [
            LOOK_ALIKES.get(old) == new for old, new in zip(word, mutant, strict=True) if old != new
        ] == [True]
        assert swapped or inserted or deleted or replaced


def test_character_mutation_takes_the_words_with_the_largest_gradient() -> None:
    victim = victim_for()
    transformation = CharacterMutation(victim, LOSS, top_n=10**6)
    text = AttackedText(TEXTS[-1] + " film plot great movie story")
    words = word_gradients(victim, LOSS, text, set(range(text.num_words)))
    assert words is not None
    norms = {
        index: float(g.norm()) for index, g in zip(words.indices, words.gradients, strict=True)
    }
    ten = set(sorted(norms, key=lambda index: -norms[index])[:10])
    assert {words.indices[row] for row in critical_rows(words)} == ten
    mutated = {next(iter(c.attack_attrs["newly_modified_indices"])) for c in transformation(text)}
    assert mutated <= ten


def test_character_mutation_draws_from_the_samples_seed_alone() -> None:
    victim = victim_for()
    transformation = CharacterMutation(victim, LOSS, top_n=12)
    text = AttackedText(TEXTS[0])
    victim.seed = 1
    first = [candidate.text for candidate in transformation(text)]
    torch.manual_seed(123)
    assert [candidate.text for candidate in transformation(text)] == first
    assert len(first) == 12
    victim.seed = 2
    assert [candidate.text for candidate in transformation(text)] != first


def test_constraints_allow_only_what_they_should() -> None:
    text = AttackedText("The film of a great plot")
    transformation = TokenMutation(victim_for(), LOSS, top_n=5)
    assert NoStopWords()(text, transformation) == {1, 4, 5}
    changed = transformation(text)[0]
    (index,) = changed.attack_attrs["modified_indices"]
    assert index not in RepeatModification()(changed, transformation)
    limit = ChangeLimit(0.1)
    assert limit(text, transformation) == set(range(6))
    text.attack_attrs["modified_indices"] = {0, 1, 2}
    assert limit(text, transformation) == set()


@pytest.mark.parametrize(
    ("words", "rate", "most"),
    [(1, 0.1, 1), (2, 0.5, 2), (10, 0.1, 3), (30, 0.1, 3), (31, 0.1, 4), (70, 0.1, 7)],
)
def test_most_changes(words: int, rate: float, most: int) -> None:
    assert most_changes(words, rate) == most
