"""Attacks on a tiny decoder from end to end: records, figures, workers, resuming, refusals."""

from __future__ import annotations

import json
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tiny_decoders import WORDS, save_decoder, write_pairs

from eexit_cli.config import AttackConfig
from eexit_cli.core.edits import edit_distance
from eexit_cli.core.errors import UsageError
from eexit_cli.core.progress import SilentProgress
from eexit_cli.families.decoders.decoding import decode_examples
from eexit_cli.families.decoders.exits import settings_from
from eexit_cli.families.seq2seq.model import load_decoder
from eexit_cli.models.decoding.settings import DecodeSettings
from eexit_cli.pipelines.attack.attacker import Attacker
from eexit_cli.pipelines.attack.report import comparisons
from eexit_cli.pipelines.attack.run import run_attack
from eexit_cli.store.results import ResultStore


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_decoder(tmp_path_factory.mktemp("models") / "spell", seed=2)


@pytest.fixture
def config(folder: Path, tmp_path: Path) -> AttackConfig:
    return AttackConfig(
        model=str(folder),
        data_file=write_pairs(tmp_path / "pairs.csv"),
        recipe="all",
        query_budget=40,
        top_n=12,
        beam_width=2,
        results_dir=tmp_path / "results",
        device="cpu",
    )


def records_of(path: Path) -> dict[tuple[str, str], dict[str, Any]]:
    lines = (path / "records.jsonl").read_text().splitlines()
    records = {(r["recipe"], r["id"]): r for r in map(json.loads, lines)}
    for record in records.values():
        record.pop("seconds")
    return records


def test_records_are_what_decoding_anew_gives(config: AttackConfig, folder: Path) -> None:
    result = run_attack(config)
    records = records_of(result.path)
    assert len(records) == 2 * len(WORDS)
    loaded = load_decoder(config)
    live = settings_from(loaded.exit_defaults, loaded)
    full = DecodeSettings(max_new_tokens=loaded.max_new_tokens)
    for when, key in (("before", "text"), ("after", "perturbed_text")):
        texts = [record[key] for record in records.values()]
        early = decode_examples(loaded, texts, live, batch_size=1)
        late = decode_examples(loaded, texts, full, batch_size=1)
        for place, record in enumerate(records.values()):
            layers = early.exit_layers[place]
            assert record[f"token_layers_{when}"] == layers
            assert record[f"exit_layer_{when}"] == pytest.approx(np.mean(layers))
            assert record[f"total_layers_{when}"] == sum(layers)
            assert record[f"tokens_{when}"] == len(layers)
            one, other = early.outputs[place], late.outputs[place]
            assert (record[f"output_{when}"], record[f"full_output_{when}"]) == (one, other)
            longer = max(len(one.split()), len(other.split()), 1)
            assert record[f"output_similarity_{when}"] == pytest.approx(
                1 - edit_distance(one.split(), other.split()) / longer
            )
    for record in records.values():
        assert record["unit"] == "letters"
        letters = sum(character.isalpha() for character in record["text"])
        assert record["num_words"] == letters
        most = max(1, int(0.3 * letters + 1e-9))
        assert len(record["changed_words"]) <= most
        assert edit_distance(record["text"], record["perturbed_text"]) == len(
            record["changed_words"]
        )
        assert record["queries"] + record["gradient_passes"] <= 40
        assert record["progress"][-1][1] == record["exit_layer_after"]
        assert record["exit_layer_after"] >= record["exit_layer_before"]
        assert record["goal_reached"] == (record["exit_layer_after"] == 3)
        assert (record["status"] == "skipped") == (record["exit_layer_before"] == 3)
        assert record["target"]
    assert {r["gradient_passes"] for r in records.values() if r["recipe"] == "random"} == {0}


def test_figures_are_over_all_tokens(config: AttackConfig) -> None:
    document = run_attack(config).document
    path = Path(config.results_dir) / document["run_id"]
    records = records_of(path)
    assert [row["recipe"] for row in document["rows"]] == ["same-token", "random"]
    for row in document["rows"]:
        own = [record for (recipe, _), record in records.items() if recipe == row["recipe"]]
        for when in ("before", "after"):
            layers = [layer for r in own for layer in r[f"token_layers_{when}"]]
            assert row[f"mean_exit_layer_{when}"] == pytest.approx(np.mean(layers))
            assert row[f"speedup_layers_{when}"] == pytest.approx(3 / np.mean(layers))
            assert row[f"tokens_mean_{when}"] == pytest.approx(len(layers) / len(own))
            assert row[f"total_layers_mean_{when}"] == pytest.approx(sum(layers) / len(own))
            assert row[f"latency_ms_{when}"] > 0
            same = [r[f"output_{when}"] == r[f"full_output_{when}"] for r in own]
            assert row[f"agreement_{when}"] == pytest.approx(np.mean(same))
            similar = [r[f"output_similarity_{when}"] for r in own]
            assert row[f"output_similarity_{when}"] == pytest.approx(np.mean(similar))
        before, after = row["mean_exit_layer_before"], row["mean_exit_layer_after"]
        assert row["gain_removed"] == pytest.approx((after - before) / (3 - before))
        assert row["gain_removed_low"] <= row["gain_removed"] <= row["gain_removed_high"]
        attacked = [record for record in own if record["status"] == "attacked"]
        rates = [len(r["changed_words"]) / r["num_words"] for r in attacked]
        assert row["change_rate_mean"] == pytest.approx(np.mean(rates))
        assert row["change_rate_max"] == pytest.approx(max(rates))
        assert row["attacked"] + row["skipped"] == row["samples"] == len(WORDS)
        goals = np.mean([r["goal_reached"] for r in attacked])
        assert row["goal_success_rate"] == pytest.approx(goals)
        last = [set(r["token_layers_after"]) == {3} for r in attacked]
        assert row["last_layer_rate"] == pytest.approx(np.mean(last))
        assert "phoneme_error_rate_after" not in row
    (pair,) = document["report"]["comparisons"]
    gains = {row["recipe"]: row["gain_removed"] for row in document["rows"]}
    assert pair["difference_gain"] == pytest.approx(gains["same-token"] - gains["random"])
    by_recipe = {name: [r for (n, _), r in records.items() if n == name] for name in gains}
    assert comparisons(by_recipe, 3, seed=config.seed) == [pair]


def test_workers_and_resuming_change_nothing(config: AttackConfig) -> None:
    whole = run_attack(config)

    class Stops(SilentProgress):
        @contextmanager
        def task(self, title: str, total: int | None = None, done: int = 0) -> Any:
            yield self

        records = 0

        def advance(self, steps: int = 1, note: str | None = None) -> None:
            self.records += note is not None
            if self.records == 7:
                raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_attack(config, progress=Stops())
    store = ResultStore(config.results_dir)
    (broken,) = [run for run in store.list() if run.status != "finished"]
    resumed = run_attack(AttackConfig(resume=broken.id, results_dir=config.results_dir, workers=2))
    assert records_of(resumed.path) == records_of(whole.path)
    assert resumed.document["rows"][0]["gain_removed"] == whole.document["rows"][0]["gain_removed"]


@pytest.mark.parametrize(
    ("confidence", "options"),
    [
        ("saturation", {"threshold": 0.7}),
        ("linear", {"threshold": 0.5, "min_layer": 2}),
        ("transformer_linear_64", {"threshold": 0.3}),
        ("softmax", {"threshold": 0.4, "top_k_propagation": 5}),
        ("softmax", {"threshold": 0.6, "decay": "paper", "temperature": 2.0}),
        ("softmax", {"threshold": 0.6, "shallow_layer": 1}),
    ],
)
def test_every_way_of_leaving_can_be_attacked(
    config: AttackConfig, confidence: str, options: dict[str, Any]
) -> None:
    chosen = replace(config, confidence=confidence, query_budget=25, **options)
    attacker = Attacker(chosen, load_decoder(chosen))
    records = [attacker.attack("same-token", {"id": word, "source": word}) for word in WORDS[:3]]
    assert any(record["gradient_passes"] for record in records)
    for record in records:
        assert record["exit_layer_after"] >= record["exit_layer_before"]
        assert min(record["token_layers_before"]) >= (options.get("min_layer") or 1)
        if "shallow_layer" in options:
            assert set(record["token_layers_after"]) <= {1, 3}


@pytest.mark.parametrize(
    ("options", "message", "hint"),
    [
        ({"recipe": "waffle"}, "Recipe 'waffle' attacks classifiers", "same-token, random"),
        ({"recipe": "same-token,pwws"}, "Recipe 'pwws' attacks classifiers", "same-token, random"),
        ({"recipe": "nothing"}, "Unknown attack recipe 'nothing'", "same-token"),
        ({"static_layer": 2}, "A static exit layer cannot be slowed down", "--threshold"),
        ({"patience": 2}, "--patience is for classifiers", "--confidence"),
        ({"min_layer": 3}, "no token leaves before layer 3", "--min-layer"),
        ({"min_layer": 9}, "Minimum exit layer 9 is outside 1..3", "--min-layer"),
        (
            {"shallow_layer": 1, "adaptive_threshold": True},
            "An adaptive threshold depends on the inputs before",
            "--no-adaptive-threshold",
        ),
        ({"confidence": "entropy", "threshold": 0.5}, "'entropy' is for classifiers", "softmax"),
        ({"recipe": "same-token", "compat": "upstream"}, "has no --compat upstream", "--compat"),
        ({"alpha": 0.7}, "--alpha says nothing to these recipes", "a classifier"),
        ({"recipe": "random", "lam": 0.5}, "--lam says nothing to random", "same-token"),
        ({"confidence": "saturation", "threshold": 0.5, "lam": 0.5}, "--lam says nothing", "loss"),
        ({"letter_rate": 0.0}, "--letter-rate 0.0 is outside", "0.3"),
        ({"query_budget": 0}, "--query-budget 0 leaves nothing", "At least 1"),
        ({"task": "movie-reviews", "data_file": None}, "movie-reviews", ""),
    ],
)
def test_what_cannot_be_is_one_clear_line(
    config: AttackConfig, options: dict[str, Any], message: str, hint: str
) -> None:
    plain = {"top_n": 100, "beam_width": 5}  # not every recipe reads them
    with pytest.raises(UsageError, match=message) as raised:
        run_attack(replace(config, **{**plain, **options}))
    assert hint.lower() in str(raised.value.hint).lower()
    assert not config.results_dir.exists()


def test_what_saves_nothing_is_skipped(config: AttackConfig) -> None:
    result = run_attack(replace(config, threshold=1.0, recipe="same-token"))
    records = records_of(result.path).values()
    assert {record["status"] for record in records} == {"skipped"}
    assert {record["reason"] for record in records} == {"all layers"}
    assert {record["queries"] for record in records} == {1}
    row = result.document["rows"][0]
    assert row["gain_removed"] is None
    assert row["mean_exit_layer_before"] == 3
    assert row["queries_mean"] is None


def test_a_classifier_has_no_decoder_options() -> None:
    for options, message in (
        ({"min_layer": 2}, "--min-layer is for encoder-decoders"),
        ({"letter_rate": 0.5}, "--letter-rate says nothing to same-token"),
        ({"score": "total-layers"}, "--score says nothing to same-token"),
    ):
        with pytest.raises(UsageError, match=message):
            run_attack(AttackConfig(model="deebert", limit=1, **options))  # type: ignore[arg-type]
