"""How good a decoder's outputs are before and after an attack, and which difference is tested."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from attacks_tiny_decoder import SENTENCES, VOCABULARY, word_tokenizer
from tiny_decoders import random_decoder

from eexit_cli.config import AttackConfig, EvaluateConfig
from eexit_cli.core.types import TaskInfo
from eexit_cli.families.decoders.decoding import decode_examples
from eexit_cli.families.decoders.exits import settings_from
from eexit_cli.families.seq2seq.model import load_decoder
from eexit_cli.pipelines.attack.report import attack_metrics, comparisons, task_quality
from eexit_cli.pipelines.attack.run import run_attack
from eexit_cli.pipelines.evaluate import run_evaluation

TEXTS = (*SENTENCES, "slow cold river of the mountain", "great actor short ending plot cast")
METRICS = ("rouge_l", "rouge_1", "bleu", "exact_match")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models") / "writer"
    tokenizer = word_tokenizer()
    model = random_decoder(9, vocab_size=len(tokenizer), task=None)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def write(path: Path, rows: list[dict[str, str]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def attack(folder: Path, data: Path, results: Path) -> Any:
    return run_attack(
        AttackConfig(
            model=str(folder),
            data_file=data,
            recipe="all",
            query_budget=40,
            top_n=8,
            beam_width=2,
            limit=0,
            results_dir=results,
            device="cpu",
        )
    )


@pytest.fixture(scope="module")
def pairs(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Sources of several words; targets near what the model writes, so that scores are no zeros."""
    path = tmp_path_factory.mktemp("data") / "pairs.jsonl"
    plain = [{"source": text, "target": "film"} for text in TEXTS]
    loaded = load_decoder(AttackConfig(model=str(folder), data_file=write(path, plain)))
    decoded = decode_examples(
        loaded, list(TEXTS), settings_from(loaded.exit_defaults, loaded), batch_size=1
    )
    for number, (row, output) in enumerate(zip(plain, decoded.outputs, strict=True)):
        row["target"] = output if number == 1 else f"{output} {VOCABULARY[number]} the end"
    return write(path, plain)


def test_texts_are_scored_before_and_after_as_evaluate_scores_them(
    folder: Path, pairs: Path, tmp_path: Path
) -> None:
    result = attack(folder, pairs, tmp_path)
    records = list(result.records())
    for row in result.document["rows"]:
        own = [record for record in records if record["recipe"] == row["recipe"]]
        assert row["unit"] == "words"
        assert row["quality_samples"] == row["samples"] == len(TEXTS)
        for when, key in (("before", "text"), ("after", "perturbed_text")):
            rows = [{"source": r[key], "target": r["target"]} for r in own]
            evaluated = run_evaluation(
                EvaluateConfig(
                    model=str(folder),
                    data_file=write(tmp_path / "inputs.jsonl", rows),
                    results_dir=tmp_path,
                    device="cpu",
                )
            ).document["metrics"]
            for name in METRICS:
                assert row[f"{name}_{when}"] == pytest.approx(evaluated[name]), (name, when)
            assert row[f"agreement_{when}"] == pytest.approx(evaluated["agreement"])
        assert row["exact_match_before"] == pytest.approx(1 / len(TEXTS))
    assert all(row["rouge_l_after"] != row["rouge_l_before"] for row in result.document["rows"])


def record(unit: str, before: str, after: str, target: str | None) -> dict[str, Any]:
    found = {"unit": unit, "output_before": before, "output_after": after}
    return found if target is None else {**found, "target": target}


def test_references_hold_only_for_texts_of_several_words() -> None:
    info = TaskInfo("own", "generation", metrics=("exact_match",))
    texts = [record("words", "a b", "a b", "a b"), record("words", "a b", "c", "a b")]
    word = record("letters", "x", "x", "x")
    assert task_quality(info, texts) == {
        "quality_samples": 2,
        "exact_match_before": 1.0,
        "exact_match_after": 0.5,
    }
    # The word's output is right for a word that is no longer there.
    assert task_quality(info, [*texts, word]) == task_quality(info, texts)
    assert task_quality(info, [word]) == {"quality_samples": 1, "exact_match_before": 1.0}
    assert task_quality(info, [*texts, record("words", "a", "a", None)]) == {}
    assert task_quality(info, [record("letters", "a", "a", None)]) == {}


def outputs(*layers: tuple[list[int], list[int]], skipped: int = 0) -> list[dict[str, Any]]:
    """Records with these layers of their tokens, before and after; the last ones not attacked."""
    records = []
    for number, (before, after) in enumerate(layers):
        record: dict[str, Any] = {
            "status": "skipped" if number >= len(layers) - skipped else "attacked",
            "unit": "letters",
            "changed_words": [],
            "num_words": 5,
        }
        for name in ("goal_reached", "queries", "gradient_passes", "seconds"):
            record[name] = 0
        record["similarity_characters"] = 1.0
        for when, own in (("before", before), ("after", after)):
            record |= {
                f"token_layers_{when}": own,
                f"total_layers_{when}": sum(own),
                f"tokens_{when}": len(own),
                f"exit_layer_{when}": sum(own) / len(own),
                f"output_{when}": "a",
                f"full_output_{when}": "a",
                f"output_similarity_{when}": 1.0,
            }
        records.append(record)
    return records


def test_the_difference_beside_the_p_value_is_the_one_that_was_tested() -> None:
    """The first recipe is deeper on most inputs, the second on the one with a long output."""
    short, long = [1], [1] * 60
    first = outputs(*[(short, [3])] * 11, (short, long))
    second = outputs(*[(short, [2])] * 11, (short, [2] * 60))
    (pair,) = comparisons({"one": first, "other": second}, 3, seed=0)
    # By hand: eleven inputs a layer deeper, one a layer less deep.
    assert pair["difference_layers"] == pytest.approx((11 - 1) / 12)
    # Of 12 fair signs at least 11 agree with either one's odds (24 + 2) / 2 ** 12.
    assert pair["p_value"] == pytest.approx(26 / 4096)
    # Token by token the long output outweighs them all.
    assert pair["difference_gain"] == pytest.approx((11 * 3 + 60 - 11 * 2 - 120) / 71 / 2)
    assert pair["difference_gain"] < 0 < pair["difference_layers"]


def test_the_gain_of_attacked_outputs_leaves_the_others_out() -> None:
    info = TaskInfo("own", "generation", metrics=("exact_match",))
    records = outputs(([1, 1], [3, 2]), ([2], [3]), ([1, 1, 1], [1, 1, 1]), skipped=1)
    found = attack_metrics(info, records, 3, seed=0)
    # By hand: layers over tokens, of the first two and of all three.
    assert found["gain_removed_attacked"] == pytest.approx((8 / 3 - 4 / 3) / (3 - 4 / 3))
    assert found["gain_removed"] == pytest.approx((11 / 6 - 7 / 6) / (3 - 7 / 6))
    assert (found["attacked"], found["skipped"]) == (2, 1)
    nobody = attack_metrics(info, outputs(([1], [1]), skipped=1), 3, seed=0)
    assert nobody["gain_removed_attacked"] is None
