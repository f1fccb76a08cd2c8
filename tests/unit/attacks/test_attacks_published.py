"""``--compat upstream`` against the published program, taken literally."""

from __future__ import annotations

import importlib
import math
import string
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import textattack
import torch
from attacks_tiny import TEXTS, TOKENIZERS, classifier, victim_for, wordpiece
from textattack.shared import AttackedText

from eexit_cli.attacks import ATTACKS
from eexit_cli.attacks.budget import BestSoFar
from eexit_cli.attacks.constraints import most_changes
from eexit_cli.attacks.encoder_victim import EncoderVictim, Outcome
from eexit_cli.attacks.goal import SlowdownResult
from eexit_cli.attacks.letter_mutation import LOOK_ALIKES
from eexit_cli.attacks.published_same import (
    AccumulatedGradient,
    LastRoundBeam,
    PublishedChangeLimit,
    PublishedTokenMutation,
    published_misspellings,
    untrained_ramp,
)
from eexit_cli.attacks.slowdown_loss import slowdown_loss
from eexit_cli.config import AttackConfig
from eexit_cli.core.seed import stream

UPSTREAM = AttackConfig(top_n=12, beam_width=3, per_size=4, compat="upstream")
DATA = [
    *TEXTS,
    "awful awful film the the plot lovely bright",
    "slow scene dull actor not great cold music it was a long story of the sad ending",
]


@pytest.fixture(scope="module")
def published() -> Iterator[ModuleType]:
    """The literal transcription that the benchmark measures against."""
    folder = str(Path(__file__).parents[2] / "bench")
    sys.path.insert(0, folder)
    try:
        yield importlib.import_module("published_same")
    finally:
        sys.path.remove(folder)


def attack_for(victim: EncoderVictim, recipe: str, config: AttackConfig = UPSTREAM) -> Any:
    return ATTACKS.load(recipe).attack(victim, config)


@pytest.mark.parametrize("family", ["deebert", "pabee"])
@pytest.mark.parametrize("classes", [2, 3])
def test_tokens_follow_the_literal_program_through_a_data_set(
    published: ModuleType, family: str, classes: int
) -> None:
    """Same exit layers and texts, example after example: the gradient adds up."""
    patience, threshold = (1 if family == "pabee" else None), 0.4 * classes - 0.3
    victim = victim_for(
        patience=patience, threshold=threshold, layers=5, family=family, classes=classes
    )
    literal = published.PublishedSame(
        classifier(wordpiece(), layers=5, family=family, classes=classes).requires_grad_(False),
        victim.tokenizer,
        ("entropy", threshold) if patience is None else ("patience", patience),
        max_length=victim.tokenizer.model_max_length,
        top_n=12,
        beam_width=3,
        per_size=4,
        upstream=True,
        ramp=untrained_ramp(victim.model),
    )
    attack = attack_for(victim, "same-token")
    changed = 0
    for text in DATA:
        before, after, chosen = literal.attack(text)
        result = attack.attack(text, 0)
        original, found = result.original_result, result.perturbed_result
        assert original.raw_output.exit_layer == before
        assert found.attacked_text.text == chosen
        assert found.raw_output.exit_layer == after
        changed += chosen != text
    assert changed > len(DATA) // 2


def test_another_order_of_the_examples_gives_other_records() -> None:
    """What makes the mode ordered: the recipe says so, and so do the results."""
    found = []
    for texts in (DATA, DATA[::-1]):
        victim = victim_for(threshold=0.5, layers=5)
        attack = attack_for(victim, "same-token")
        results = {text: attack.attack(text, 0).perturbed_result for text in texts}
        found.append({text: result.attacked_text.text for text, result in results.items()})
    assert found[0] != found[1]
    recipe = ATTACKS.load("same-token")
    assert recipe.is_ordered(UPSTREAM)
    assert not recipe.is_ordered(AttackConfig())


def test_the_gradient_adds_up_and_repeated_words_share_a_row() -> None:
    victim = victim_for(threshold=0.5, layers=5, family="pabee", patience=1)
    gradient = AccumulatedGradient(victim, 0.8)
    expected = torch.zeros_like(gradient.total)
    table = victim.model.word_embeddings.weight
    for text in ("happy happy film", "the film was happy", "happy happy film"):
        assert gradient.add(AttackedText(text)) is not None
        victim.forget()
        batch = victim.batcher([text])
        with torch.enable_grad():
            table.requires_grad_(True)
            logits = victim.model(**batch).logits
            layers = torch.tensor([victim.score([text])[0].exit_layer])
            loss = slowdown_loss(logits, layers, lam=0.8, compat="upstream").sum()
            expected += torch.autograd.grad(loss, table)[0]
            table.requires_grad_(False)
    torch.testing.assert_close(gradient.total, expected, rtol=1e-4, atol=1e-6)


def test_the_uniform_term_is_divided_once_more() -> None:
    logits = torch.randn(4, 5, 3)
    layers = torch.tensor([1, 2, 4, 5])
    paper = slowdown_loss(logits, layers, lam=0.0)
    code = slowdown_loss(logits, layers, lam=0.0, compat="upstream")
    torch.testing.assert_close(code, paper / 3)
    torch.testing.assert_close(
        slowdown_loss(logits, layers, lam=1.0, compat="upstream"),
        slowdown_loss(logits, layers, lam=1.0),
    )


def test_the_untrained_ramp_is_the_files_own_where_there_is_one() -> None:
    model = classifier(wordpiece())
    made = untrained_ramp(model)
    assert made is not None
    again = untrained_ramp(model)
    pooled = torch.randn(3, 16)
    assert torch.equal(made(pooled), again(pooled))
    # Near uniform, as an untrained head is, and not the trained final classifier.
    assert made(pooled).abs().max() < 0.1
    assert model.classifiers[-1](model.poolers[-1](pooled)).abs().max() > 0.1
    model.last_ramp = torch.nn.Linear(16, 2)
    assert untrained_ramp(model) is model.last_ramp
    assert untrained_ramp(classifier(wordpiece(), family="pabee")) is None


class Rounds:
    """A goal and transformations with given exit layers; a text is its round and its number."""

    num_layers = 6

    def __init__(self, *layers: list[int]) -> None:
        self.layers = layers
        self.best = BestSoFar()

    def transform(self, text: AttackedText, *, original_text: AttackedText) -> list[AttackedText]:
        number = 0 if text.text == original_text.text else int(text.words[0]) + 1
        if number == len(self.layers):
            return []
        return [AttackedText(f"{number} {i}") for i in range(len(self.layers[number]))]

    def result(self, text: AttackedText) -> Any:
        number, i = map(int, text.words)
        layer = self.layers[number][i]
        outcome = Outcome(layer, 0, 0.0, (1.0, 0.0))
        return SlowdownResult(text, outcome, layer, 1, layer / self.num_layers, 0, 0)

    def get_results(self, texts: list[AttackedText], *, reserve: int) -> tuple[list[Any], bool]:
        assert reserve == 1
        return [self.result(text) for text in texts], False

    confirm = result


@pytest.mark.parametrize(
    ("layers", "answer"),
    [
        ([[2, 5, 3], [1, 2, 2]], "1 1"),  # worse than the round before, and than the input
        ([[6, 2], [3, 3]], "1 0"),  # on after the last layer, and the first of equals
        ([[2, 4, 4]], "0 1"),  # the round without candidates does not count
    ],
)
def test_the_last_rounds_best_is_the_answer(layers: list[list[int]], answer: str) -> None:
    rounds = Rounds(*layers)
    search = LastRoundBeam(rounds=5, beam_width=1)
    search.goal_function = rounds  # type: ignore[assignment]
    search.get_transformations = rounds.transform  # type: ignore[attr-defined]
    outcome = Outcome(3, 0, 0.0, (1.0, 0.0))
    initial = SlowdownResult(AttackedText("input"), outcome, 3, 1, 0.5, 0, 0)
    assert search.perform_search(initial).attacked_text.text == answer


def test_unknown_and_unused_entries_pass_and_pieces_and_specials_do_not() -> None:
    victim = victim_for()
    mutation = PublishedTokenMutation(AccumulatedGradient(victim, 0.8), top_n=5)
    usable = {
        entry
        for entry, allowed in zip(mutation.entries, mutation._usable.tolist(), strict=True)
        if allowed
    }
    assert {"[UNK]", "[unused0]", "film"} <= usable
    assert not {"[PAD]", "[CLS]", "[SEP]", "[MASK]", "##a", "."} & usable


@pytest.mark.parametrize("tokenizer", list(TOKENIZERS))
def test_words_of_several_pieces_and_capitals_are_never_found(tokenizer: str) -> None:
    backbone = {"byte_bpe": "roberta", "sentencepiece": "albert"}.get(tokenizer, "bert")
    victim = victim_for(TOKENIZERS[tokenizer](), backbone=backbone, layers=5, threshold=0.6)
    mutation = PublishedTokenMutation(AccumulatedGradient(victim, 0.8), top_n=5)
    text = AttackedText("film unbelievably Great plot")
    known = mutation.ids_of_words(text, [0, 1, 2, 3])
    unknown = victim.tokenizer.unk_token_id
    assert [token != unknown for token in known] == [True, False, False, True]
    present = set(victim.tokenizer(text.text)["input_ids"])
    assert known[0] in present
    assert known[3] in present


@pytest.mark.parametrize("tokenizer", list(TOKENIZERS))
@pytest.mark.parametrize("recipe", ["same-token", "same-char"])
def test_it_runs_on_every_kind_of_vocabulary_within_its_budget(tokenizer: str, recipe: str) -> None:
    backbone = {"byte_bpe": "roberta", "sentencepiece": "albert"}.get(tokenizer, "bert")
    for limit in (2, 25):
        victim = victim_for(
            TOKENIZERS[tokenizer](), backbone=backbone, layers=5, threshold=0.6, limit=limit
        )
        attack = attack_for(victim, recipe)
        assert isinstance(attack, textattack.Attack)
        for text in TEXTS[:4]:
            result = attack.attack(text, 0)
            assert victim.budget.spent <= limit
            chosen = result.perturbed_result.attacked_text
            assert len(chosen.all_words_diff(AttackedText(text))) <= 3


def literal_characters(
    attack_gradient: torch.Tensor, text: AttackedText, indices: list[int], victim: EncoderVictim
) -> list[tuple[int, str]]:
    """The program's choice of words and its misspellings before the draw, word for word.

    Random letters stand as "?" so that two draws can be compared.
    """
    ids = victim.tokenizer(text.text)["input_ids"]
    sums = -attack_gradient.sum(1)
    scores = [float(sums[token]) if token in ids else math.inf for token in range(len(sums))]
    rank = sorted(range(len(scores)), key=lambda token: scores[token])
    top = rank[: min(10, len(ids))]
    found = []
    for index in indices:
        word = text.words[index]
        token = victim.tokenizer.convert_tokens_to_ids(word)
        if token not in ids or token in victim.tokenizer.all_special_ids or token not in top:
            continue
        mutants = []
        if len(word) > 1:
            for i in range(len(word) - 1):
                mutants.append(word[:i] + word[i + 1] + word[i] + word[i + 2 :])
            for i in range(len(word)):
                mutants.append(word[:i] + "?" + word[i:])
            for i in range(len(word)):
                mutants.append(word[:i] + word[i + 1 :])
        for i, letter in enumerate(word):
            if letter in LOOK_ALIKES:
                mutants.append(word[:i] + LOOK_ALIKES[letter] + word[i + 1 :])
        found += [(index, mutant) for mutant in mutants if mutant != word]
    return found


@pytest.mark.parametrize("text", DATA)
def test_characters_are_changed_where_the_program_changes_them(text: str) -> None:
    victim = victim_for(threshold=0.5, layers=5)
    config = AttackConfig(top_n=10_000, compat="upstream")
    attack = attack_for(victim, "same-char", config)
    given = AttackedText(text)
    indices = sorted(attack.get_indices_to_order(given)[1])
    victim.begin()
    candidates = attack.transformation._get_transformations(given, set(indices))
    expected = literal_characters(attack.transformation.gradient.total, given, indices, victim)
    expected_texts = sorted(
        given.replace_words_at_indices([index], [mutant]).text
        for index, mutant in expected
        if "?" not in mutant
    )
    inserted = sum("?" in mutant for _, mutant in expected)
    found = sorted(candidate.text for candidate in candidates)
    assert len(found) <= len(expected_texts) + inserted
    # A drawn letter may repeat its neighbour and give one of the other misspellings, never less.
    for candidate in set(expected_texts):
        assert found.count(candidate) >= expected_texts.count(candidate)
    # Only an insertion that leaves the word as it was drops out, and there is none.
    assert len(found) == len(expected_texts) + inserted


def test_misspellings_of_one_letter_are_look_alikes_only() -> None:
    draw = stream(0, "test")
    assert published_misspellings("a", draw) == [LOOK_ALIKES["a"]]
    assert published_misspellings("7", draw) == []
    mutants = published_misspellings("ab", draw)
    assert {"ba", "b", "a"} <= set(mutants)
    assert any(mutant[0] in string.ascii_letters and mutant[1:] == "ab" for mutant in mutants)


def test_the_published_limit_rounds_up_what_binary_numbers_make_of_it() -> None:
    text = AttackedText(" ".join(["film"] * 100))
    limit = PublishedChangeLimit(0.07)
    eight = AttackedText(" ".join(["plot"] * 8 + ["film"] * 92))
    nine = AttackedText(" ".join(["plot"] * 9 + ["film"] * 91))
    assert 100 * 0.07 > 7
    assert most_changes(100, 0.07) == 7
    assert limit._check_constraint(eight, text)
    assert not limit._check_constraint(nine, text)


def test_only_recipes_that_know_the_mode_take_it() -> None:
    from eexit_cli.core.errors import UsageError

    with pytest.raises(UsageError, match="'universal' has no --compat upstream"):
        ATTACKS.load("universal").check_compat("upstream")
    with pytest.raises(UsageError, match="no --compat sideways") as caught:
        ATTACKS.load("same-token").check_compat("sideways")
    assert "upstream" in str(caught.value.hint)
