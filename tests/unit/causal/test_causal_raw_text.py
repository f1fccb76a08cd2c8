"""Raw text from the file to the perplexity of an exit, on a small model that is trained on it."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from causal_books import book, tokenizer, write_reader
from torch.nn import functional as F
from transformers import AutoModelForCausalLM

from eexit_cli.config.attack import AttackConfig
from eexit_cli.config.calibrate import CalibrateConfig
from eexit_cli.config.evaluate import EvaluateConfig
from eexit_cli.config.train import TrainConfig
from eexit_cli.core.errors import UsageError
from eexit_cli.data.raw_text import Cutter
from eexit_cli.families.causal.model import load_causal_model
from eexit_cli.pipelines.attack.run import run_attack
from eexit_cli.pipelines.calibrate.run import run_calibration
from eexit_cli.pipelines.evaluate import run_evaluation
from eexit_cli.pipelines.train import run_training

LENGTH = 24


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Path:
    folder: Path = tmp_path_factory.mktemp("raw")
    (folder / "book.txt").write_text(book(600), encoding="utf-8")
    (folder / "other.txt").write_text(book(160, seed=4), encoding="utf-8")
    write_reader(folder / "reader", kind="gpt2")
    run_training(
        TrainConfig(
            model="layerskip",
            backbone=str(folder / "reader"),
            data_file=folder / "book.txt",
            max_length=LENGTH,
            epochs=3,
            batch_size=4,
            learning_rate=2e-3,
            dtype="float64",
            device="cpu",
            output=folder / "mine",
            results_dir=folder / "results",
        )
    )
    return folder


@pytest.fixture
def config(place: Path) -> EvaluateConfig:
    return EvaluateConfig(
        model=str(place / "mine"),
        data_file=place / "other.txt",
        dtype="float64",
        device="cpu",
        latency_samples=0,
        results_dir=place / "results",
    )


def pieces_of(model: Any, path: Path) -> list[list[int]]:
    return Cutter(model.tokenizer, LENGTH)(path.read_text(encoding="utf-8"))[1]


@pytest.mark.parametrize("start", [True, False])
def test_pieces_are_the_file_cut(start: bool) -> None:
    text = book(100)
    made = tokenizer(start=start)
    texts, pieces, total = Cutter(made, 10)(text)
    whole = made(text, add_special_tokens=False)["input_ids"]
    assert total == len(whole)
    assert {len(piece) for piece in pieces} == {10}
    read = [token for piece in pieces for token in piece[int(start) :]]
    assert read == whole[: len(read)]
    assert total - len(read) < 10 - int(start)
    assert start is ({piece[0] for piece in pieces} == {1})
    assert text.startswith("".join(texts))
    assert made.decode(read) == "".join(texts)


def test_the_full_model_has_transformers_perplexity(place: Path, config: EvaluateConfig) -> None:
    metrics = run_evaluation(replace(config, static_layer=4)).metrics
    loaded = load_causal_model(config)
    theirs = AutoModelForCausalLM.from_pretrained(place / "reader", dtype=torch.float64)
    theirs.load_state_dict(loaded.model.state_dict(), strict=False)
    total, count = 0.0, 0
    for piece in pieces_of(loaded, place / "other.txt"):
        ids = torch.tensor([piece])
        with torch.no_grad():
            logits = theirs.eval()(ids).logits[0, :-1]
        total += float(F.cross_entropy(logits, ids[0, 1:], reduction="sum"))
        count += len(piece) - 1
    wanted = pytest.approx(math.exp(total / count), rel=1e-9)
    assert metrics["perplexity"] == metrics["perplexity_full"] == wanted
    assert metrics["tokens"] == count
    assert metrics["agreement"] == 1.0
    assert next(iter(metrics)) == "perplexity"


def test_a_static_layer_has_that_of_norm_and_head(place: Path, config: EvaluateConfig) -> None:
    metrics = run_evaluation(replace(config, static_layer=2)).metrics
    loaded = load_causal_model(config)
    surprise = []
    for piece in pieces_of(loaded, place / "other.txt"):
        ids = torch.tensor([piece])
        with torch.no_grad():
            hidden = loaded.model.transformer(ids, output_hidden_states=True).hidden_states[2]
            logits = loaded.model.lm_head(loaded.model.transformer.ln_f(hidden))[0, :-1]
        surprise += F.cross_entropy(logits, ids[0, 1:], reduction="none").tolist()
    wanted = math.exp(sum(surprise) / len(surprise))
    assert metrics["perplexity"] == pytest.approx(wanted, rel=1e-9)
    assert metrics["mean_exit_layer"] == 2.0


def test_a_thresholds_perplexity_is_the_same_at_any_batch_size(config: EvaluateConfig) -> None:
    early = replace(config, confidence="softmax", threshold=0.1)
    one, five = (run_evaluation(replace(early, batch_size=size)).metrics for size in (1, 5))
    assert 1 < one["mean_exit_layer"] < 4
    for name in ("perplexity", "perplexity_full", "mean_exit_layer", "agreement", "tokens"):
        assert one[name] == pytest.approx(five[name], rel=1e-9), name
    assert one["perplexity"] != one["perplexity_full"]
    cautious = run_evaluation(replace(early, threshold=1.0)).metrics
    assert cautious["perplexity"] == pytest.approx(cautious["perplexity_full"], rel=1e-9)


def test_a_sweep_has_a_row_per_setting(config: EvaluateConfig) -> None:
    result = run_evaluation(replace(config, sweep=True, limit=3))
    rows = result.rows
    assert {"full", "threshold", "static"} <= set(rows["criterion"])
    full = rows[rows["criterion"] == "full"].iloc[0]
    assert full["perplexity"] == pytest.approx(result.metrics["perplexity_full"])
    record = next(result.records())
    assert len(record["exit_layers"]) == LENGTH - 1
    assert record["perplexity"] > 1


def test_the_own_file_gives_what_was_not_trained_on(place: Path, config: EvaluateConfig) -> None:
    own = run_evaluation(replace(config, data_file=None))
    named = run_evaluation(replace(config, data_file=place / "book.txt"))
    assert own.metrics["samples"] == named.metrics["samples"]
    assert own.metrics["perplexity"] == pytest.approx(named.metrics["perplexity"])
    trained = json.loads((place / "mine" / "config.json").read_text())
    assert trained["max_source_length"] == LENGTH
    assert load_causal_model(config).prompting.template == "{source}"
    of_task = load_causal_model(replace(config, data_file=None, task="gsm8k"))
    assert of_task.prompting.template == "Question: {source}\nAnswer:"
    assert trained["exit_defaults"]
    counts = named.document["config"]["training_rows"]
    assert counts["left_out"] == counts["of"] - own.metrics["samples"]
    with pytest.raises(UsageError, match="trained on pieces of 24 tokens"):
        run_evaluation(replace(config, data_file=place / "book.txt", max_length=20))


def test_training_lowers_the_perplexity(place: Path, config: EvaluateConfig) -> None:
    before = run_evaluation(replace(config, model=str(place / "reader"), max_length=LENGTH))
    assert run_evaluation(config).metrics["perplexity"] < before.metrics["perplexity"] / 2


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"self_speculative": True}, "--self-speculative says nothing about raw text"),
        ({"threshold": 0.5, "top_k_propagation": 5}, "--top-k-propagation leaves most tokens"),
        ({"max_length": 129}, "--max-length 129 makes no pieces"),
        ({"max_length": 1}, "--max-length 1 makes no pieces"),
        ({"source_column": "a"}, "--source-column does not go with 'other'"),
        ({"task": "gsm8k"}, "other.txt is raw text: --task"),
        ({"delimiter": ";"}, "--delimiter does not go with a .txt file"),
        ({"skip_faulty_rows": True}, "it has no rows"),
        ({"model": "calm"}, "decoder-only models alone"),
        ({"model": "deebert"}, "decoder-only models alone"),
    ],
)
def test_what_is_refused(config: EvaluateConfig, changes: dict[str, Any], said: str) -> None:
    with pytest.raises(UsageError, match=said):
        run_evaluation(replace(config, **changes))


def test_files_that_make_no_piece_are_refused(place: Path, config: EvaluateConfig) -> None:
    (place / "short.txt").write_text("the cat sat", encoding="utf-8")
    with pytest.raises(UsageError, match=r"short.txt has \d+ tokens, too few for one piece of 24"):
        run_evaluation(replace(config, data_file=place / "short.txt"))
    (place / "latin.txt").write_bytes("über ".encode("latin-1") * 200)
    with pytest.raises(UsageError, match=r"latin\.txt"):
        run_evaluation(replace(config, data_file=place / "latin.txt"))
    named = replace(config, data_file=place / "latin.txt", encoding="latin-1", limit=2)
    assert run_evaluation(named).metrics["samples"] == 2
    with pytest.raises(UsageError, match="No data file"):
        run_evaluation(replace(config, data_file=place / "none.txt"))


@pytest.mark.parametrize("file", ["other.txt", None])
def test_what_needs_outputs_refuses_raw_text(place: Path, file: str | None) -> None:
    given = {
        "model": str(place / "mine"),
        "data_file": None if file is None else place / file,
        "results_dir": place / "results",
    }
    for run, made in ((run_calibration, CalibrateConfig), (run_attack, AttackConfig)):
        with pytest.raises(UsageError, match="is raw text, with no outputs of its own"):
            run(made(**given))
