"""Attacks on self-speculation's drafts and on output length: losses, goals, whole runs."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from golden.golden_models import SPELT, write_causal
from hypothesis import given
from hypothesis import strategies as st

import eexit_cli as eexit
from eexit_cli.attacks.decoder_search import Goal
from eexit_cli.attacks.decoder_victim import Generation
from eexit_cli.attacks.slowdown_loss import drafts_loss, end_loss
from eexit_cli.core.errors import UsageError


def _softmax(row: np.ndarray) -> np.ndarray:
    weights = np.exp(row - row.max())
    return weights / weights.sum()


def test_drafts_lose_where_they_agree_with_the_full_model() -> None:
    chance = np.random.default_rng(0)
    values = chance.normal(size=(2, 3, 2, 5))
    values[0, :, 1] = 2 * values[0, :, 0]  # they agree
    found = drafts_loss(torch.from_numpy(values), torch.zeros(2, 3)).numpy()
    for row in range(2):
        for token in range(3):
            early, last = values[row, token]
            runner_up = np.argsort(early)[-2]
            wanted = -math.log(_softmax(early)[runner_up])
            if early.argmax() != last.argmax():
                wanted = 0.0
            assert found[row, token] == pytest.approx(wanted)
    assert (found == 0).any()
    assert (found > 0).any()


def test_the_end_is_made_unlikely_whichever_token_it_is() -> None:
    chance = np.random.default_rng(1)
    values = chance.normal(size=(2, 3, 1, 5))
    found = end_loss(torch.from_numpy(values), torch.zeros(2, 3), ends=[1, 4]).numpy()
    for row in range(2):
        for token in range(3):
            chances = _softmax(values[row, token, 0])
            assert found[row, token] == pytest.approx(math.log(chances[1] + chances[4]))


@given(
    st.lists(
        st.integers(1, 6).flatmap(lambda n: st.tuples(st.just(n), st.integers(0, n))),
        min_size=1,
        max_size=6,
    )
)
def test_the_goal_is_that_every_draft_is_rejected_at_once(passes: list[tuple[int, int]]) -> None:
    tokens = 1 + sum(accepted + 1 for _, accepted in passes)
    generation = Generation(tuple(range(tokens)), (4,) * tokens, 0.0, tuple(passes))
    goal = Goal("acceptance", 4, 99)
    assert goal.value(generation) == pytest.approx(-(tokens - 1) / len(passes))
    assert goal.is_reached(generation) == all(accepted == 0 for _, accepted in passes)


def test_an_output_of_one_token_is_nothing_to_attack_and_no_success() -> None:
    short = Generation((2,), (4,), 0.0)
    goal = Goal("acceptance", 4, 9)
    assert goal.is_beyond(short)
    assert not goal.is_reached(short)
    length = Goal("output-length", 4, 3)
    assert not length.is_beyond(short)
    assert length.is_reached(Generation((5, 6, 7), (1, 1, 1), 0.0))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("drafts")
    write_causal(place / "model")
    lines = [f"{word},K" for word in SPELT]
    (place / "words.csv").write_text("\n".join(["source,target", *lines]), encoding="utf-8")
    return place


def test_a_run_says_what_drafts_were_worth(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    run = eexit.attack(
        model=str(folder / "model"),
        data_file=folder / "words.csv",
        self_speculative=True,
        exit_layer=2,
        recipe="same-token",
        limit=5,
        query_budget=60,
        max_new_tokens=10,
        latency_samples=0,
        dtype="float64",
    )
    assert run.document["config"]["score"] == "acceptance"
    model = eexit.load(str(folder / "model"), max_new_tokens=10, dtype="float64")
    drafts = model.exit_from({"criterion": "self-speculative", "exit_layer": 2})
    for when, key in (("before", "text"), ("after", "perturbed_text")):
        texts = [record[key] for record in run.records()]
        answers = model.answers(texts, drafts)
        full = model.answers(texts, model.full())
        assert answers.outputs == full.outputs  # whatever the attack did
        passes = answers.detail.passes
        assert [len(each) for each in passes] == [r[f"verifications_{when}"] for r in run.records()]
        tokens = sum(len(each) - 1 for each in answers.detail.tokens)
        count = sum(map(len, passes))
        assert run.metrics[f"tokens_per_verification_{when}"] == pytest.approx(tokens / count)
        accepted = sum(each for one in passes for _, each in one)
        drafted = sum(each for one in passes for each, _ in one)
        assert run.metrics[f"acceptance_rate_{when}"] == pytest.approx(accepted / drafted)
    before, after = (run.metrics[f"tokens_per_verification_{w}"] for w in ("before", "after"))
    assert after <= before


def test_outputs_grow(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    run = eexit.attack(
        model=str(folder / "model"),
        data_file=folder / "words.csv",
        score="output-length",
        recipe="same-token",
        limit=6,
        query_budget=60,
        max_new_tokens=10,
        latency_samples=0,
    )
    for record in run.records():
        assert record["tokens_after"] >= record["tokens_before"]
        if record["status"] == "attacked":
            assert record["goal_reached"] == (record["tokens_after"] == 10)
    assert run.metrics["tokens_mean_after"] >= run.metrics["tokens_mean_before"]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"score": "acceptance"}, "is of self-speculation's drafts"),
        ({"self_speculative": True, "score": "total-layers"}, "says nothing to self-speculation"),
        ({"self_speculative": True, "lam": 0.1}, "--lam says nothing to an attack on acceptance"),
        ({"score": "output-length", "lam": 0.1}, "--lam says nothing"),
    ],
)
def test_options_that_say_nothing(folder: Path, options: dict[str, object], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        eexit.attack(model=str(folder / "model"), data_file=folder / "words.csv", **options)
