"""Other people's attacks: their own parts and goal, our counting; and what they need to run."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import nltk
import numpy as np
import pytest
import textattack
import torch
from attacks_tiny import NOUNS, TEXTS, victim_for
from textattack.attack_recipes import DeepWordBugGao2018, Pruthi2019
from textattack.goal_functions import UntargetedClassification
from textattack.models.wrappers import ModelWrapper
from textattack.shared import AttackedText

from eexit_cli.attacks import ATTACKS, needs, wordnet_env
from eexit_cli.attacks.constraints import most_changes
from eexit_cli.attacks.needs import Need
from eexit_cli.attacks.own_goal import OwnGoal, with_own_goal
from eexit_cli.config import AttackConfig
from eexit_cli.core.seed import seed_everything

RECIPES = {"deepwordbug": DeepWordBugGao2018, "pruthi": Pruthi2019}


class Plain(ModelWrapper):
    """The victim's answers for TextAttack alone, with nothing of ours in between."""

    def __init__(self, victim: Any) -> None:
        self.victim = victim
        self.model = victim.model

    def __call__(self, text_input_list: list[str], **kwargs: Any) -> np.ndarray:
        rows = []
        for text in text_input_list:
            batch = self.victim.batcher([text])
            with torch.inference_mode():
                decision = self.victim.model.infer(**batch, criterion=self.victim.criterion)
            rows.append(torch.softmax(decision.logits.double(), dim=-1)[0].numpy())
        return np.array(rows)


@pytest.mark.parametrize("name", RECIPES)
def test_a_baseline_finds_what_textattack_finds_alone(name: str) -> None:
    victim = victim_for(layers=5)
    ours = ATTACKS.load(name).attack(victim, AttackConfig())
    theirs = RECIPES[name].build(Plain(victim))
    found = 0
    for text in TEXTS:
        label = int(Plain(victim)([text])[0].argmax())
        results = []
        for attack in (ours, theirs):
            seed_everything(11)
            random.seed(11)
            results.append(attack.attack(text, label))
        assert type(results[0]).__name__ == type(results[1]).__name__
        # Texts that differ in capitals alone are one to this tokenizer: which comes first is left
        # to the last bit, and batches of another size round otherwise.
        first, second = (result.perturbed_text().casefold() for result in results)
        assert first == second
        found += isinstance(results[0], textattack.attack_results.SuccessfulAttackResult)
    assert found


@pytest.mark.parametrize("name", ["deepwordbug", "pruthi", "pwws", "random"])
@pytest.mark.parametrize("limit", [1, 2, 3, 20, 60])
def test_a_baseline_keeps_the_budget_with_its_final_check(name: str, limit: int) -> None:
    recipe = ATTACKS.load(name)
    if recipe.missing is not None and recipe.missing():
        pytest.skip(f"{name} {recipe.missing()}")
    victim = victim_for(limit=limit, layers=5)
    attack = recipe.attack(victim, AttackConfig(top_n=10, per_size=10))
    for text in TEXTS[:5]:
        result = attack.attack(text, -1)
        assert victim.confirm(result.perturbed_result.attacked_text.tokenizer_input) is not None
        assert victim.budget.spent <= limit


def test_queries_are_what_the_victim_scores() -> None:
    victim = victim_for(layers=5)
    scored: list[Any] = []
    run = victim._run
    victim._run = lambda model, batch, *rest: (
        scored.extend(batch["input_ids"])
        or run(  # type: ignore[method-assign, func-returns-value]
            model, batch, *rest
        )
    )
    attack = ATTACKS.load("deepwordbug").attack(victim, AttackConfig())
    attack.attack(TEXTS[0], -1)
    assert victim.budget.queries == len(scored)


def test_an_input_that_is_wrong_already_is_skipped_and_one_without_label_is_not() -> None:
    victim = victim_for(layers=5)
    attack = ATTACKS.load("deepwordbug").attack(victim, AttackConfig())
    answer = victim.confirm(TEXTS[0]).prediction  # type: ignore[union-attr]
    wrong = attack.attack(TEXTS[0], 1 - answer)
    assert isinstance(wrong, textattack.attack_results.SkippedAttackResult)
    assert victim.budget.queries == 1
    assert not isinstance(
        attack.attack(TEXTS[0], -1), textattack.attack_results.SkippedAttackResult
    )


def test_progress_follows_the_text_that_the_goal_likes_best() -> None:
    victim = victim_for(layers=5)
    attack = ATTACKS.load("deepwordbug").attack(victim, AttackConfig())
    result = attack.attack(TEXTS[1], -1)
    steps = attack.goal_function.best.steps
    assert steps[0] == [1, result.original_result.raw_output is not None and steps[0][1]]
    assert [spent for spent, _ in steps] == sorted(spent for spent, _ in steps)
    chosen = victim.score([result.perturbed_result.attacked_text.tokenizer_input])[0]
    assert steps[-1][1] == chosen.exit_layer


def test_another_goal_than_misclassification_is_no_baseline() -> None:
    victim = victim_for()
    attack = ATTACKS.load("same-token").attack(victim, AttackConfig())
    with pytest.raises(TypeError, match="not an untargeted classification"):
        with_own_goal(attack, victim)
    assert not issubclass(UntargetedClassification, OwnGoal)


def test_the_control_changes_as_many_words_as_same_may_and_no_stop_words() -> None:
    victim = victim_for(layers=5)
    victim.seed = 5
    attack = ATTACKS.load("random").attack(victim, AttackConfig(top_n=5, per_size=4))
    vocabulary = set(attack.transformation.table.words)
    changed = 0
    for text in TEXTS:
        original = AttackedText(text)
        result = attack.attack(original, 0)
        words = result.perturbed_result.attacked_text.words
        swaps = [(a, b) for a, b in zip(original.words, words, strict=True) if a != b]
        changed += bool(swaps)
        assert len(swaps) <= most_changes(original.num_words, 0.1)
        for old, new in swaps:
            assert new.lower() in vocabulary
            assert old.lower() not in ("the", "was", "and", "is", "a", "this", "not", "of", "it")
        assert victim.budget.gradient_passes == 0
        assert victim.budget.queries <= 1 + 20 + 1
    assert changed
    assert NOUNS.split()[0] in vocabulary


def test_the_controls_draws_depend_on_the_samples_seed_alone() -> None:
    texts = []
    for warm in (False, True):
        victim = victim_for(layers=5)
        attack = ATTACKS.load("random").attack(victim, AttackConfig(top_n=3, per_size=2))
        if warm:
            victim.seed = 1
            attack.attack(TEXTS[1], 0)
        victim.seed = 9
        texts.append(attack.attack(TEXTS[0], 0).perturbed_text())
    assert texts[0] == texts[1]


def test_words_can_be_ranked_by_gradient_as_a2t_does() -> None:
    from textattack.constraints.pre_transformation import RepeatModification
    from textattack.search_methods import GreedyWordSwapWIR
    from textattack.transformations import WordSwapRandomCharacterDeletion

    for limit in (None, 1, 2, 30):
        victim = victim_for(layers=5, limit=limit)
        attack = with_own_goal(
            textattack.Attack(
                UntargetedClassification(victim),
                [RepeatModification()],
                WordSwapRandomCharacterDeletion(random_one=False),
                GreedyWordSwapWIR(wir_method="gradient", truncate_words_to=victim.max_length),
            ),
            victim,
        )
        attack.attack(TEXTS[0], -1)
        victim.confirm(TEXTS[0])
        assert limit is None or victim.budget.spent <= limit
        assert victim.budget.gradient_passes == (0 if limit in (1, 2) else 1)


def test_the_gradient_is_that_of_the_answering_exits_loss() -> None:
    victim = victim_for(layers=5)
    text = TEXTS[2]
    found = victim.get_grad(text)
    batch = victim.batcher([text])
    table = victim.model.word_embeddings.weight
    embedded = table[batch["input_ids"]].detach().requires_grad_(True)
    exit_layer = victim.score([text])[0].exit_layer
    logits = victim.model(inputs_embeds=embedded, attention_mask=batch["attention_mask"]).logits
    answer = logits[0, exit_layer - 1]
    (-torch.log_softmax(answer, dim=-1)[answer.argmax()]).backward()
    assert np.allclose(found["gradient"], embedded.grad[0].numpy(), atol=1e-5)
    assert found["ids"][0].tolist() == batch["input_ids"][0].tolist()
    (pieces,) = victim.tokenize([text])
    assert len(pieces) == len(found["gradient"])


def test_needs_are_said_with_how_to_get_them() -> None:
    there, lacking = Need("a (pip install a)", lambda: True), Need("b (run c)", lambda: False)
    assert needs.missing([there]) is None
    assert needs.missing([there, lacking]) == "b (run c)"
    assert needs.missing([lacking, lacking]) == "b (run c); b (run c)"
    for name in ATTACKS:
        for words in ATTACKS.load(name).needs:
            assert " (" in words, "says how to get it"
            assert words.endswith(")")


@pytest.fixture
def nltk_path(monkeypatch: pytest.MonkeyPatch) -> None:
    """NLTK's list of folders, as it was, at the end."""
    monkeypatch.setattr(nltk.data, "path", list(nltk.data.path))


def test_a_packaged_wordnet_is_read_by_nltk(nltk_path: None) -> None:
    if wordnet_env.packaged_wordnet() is None:
        pytest.skip("no packaged WordNet here")
    wordnet_env.offer_wordnet()
    from nltk.corpus import wordnet

    assert {"film", "picture", "flick"} <= {
        lemma for synset in wordnet.synsets("movie") for lemma in synset.lemma_names()
    }
    assert wordnet.synset("dog.n.01").lexname() == "noun.animal"


def test_a_wordnet_without_its_small_files_gets_them(
    tmp_path: Path, nltk_path: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As Debian's, and with the line ends that the PyPI package has."""
    (tmp_path / "data.noun").write_bytes(b"line\r\nanother\r\n")
    monkeypatch.setattr(wordnet_env, "_of_package", lambda: None)
    monkeypatch.setattr(wordnet_env, "DEBIAN", tmp_path)
    monkeypatch.setattr(wordnet_env, "_nltk_has_wordnet", lambda: False)
    assert wordnet_env.wordnet_is_there()
    wordnet_env.offer_wordnet()
    corpus = Path(nltk.data.path[-1]) / "corpora" / "wordnet"
    assert (corpus / "data.noun").read_bytes() == b"line\nanother\n"
    names = (corpus / "lexnames").read_text().splitlines()
    assert len(names) == 45
    assert names[5].split() == ["05", "noun.animal", "1"]
    assert (corpus / "index.sense").exists()
    monkeypatch.setattr(wordnet_env, "DEBIAN", tmp_path / "nothing")
    assert not wordnet_env.wordnet_is_there()
