"""Every command on a tiny real model: nothing is replaced."""

from __future__ import annotations

import csv
import io
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from eexit_cli.core.errors import INTERRUPTED


@pytest.fixture
def attack_options(tiny_model: Path, reviews: Path) -> list[str]:
    return (
        f"--model {tiny_model} --data-file {reviews} --limit 6 --top-n 5 --beam-width 2"
        " --per-size 2"
    ).split()


def test_attack_shows_examples_table_and_next_step(eexit, attack_options) -> None:
    done = eexit("attack", *attack_options)
    assert done.code == 0, done.err
    for words in ("Slowdown", "Before", "After", "Mean exit layer", "Gain removed", "before"):
        assert words in done.out
    assert "eexit plot slowdown --run" in done.err
    assert "Slowdown" not in done.err


def test_attack_json_is_the_document_and_nothing_else(eexit, attack_options, tmp_path) -> None:
    done = eexit("attack", *attack_options, "--json")
    assert done.code == 0, done.err
    document = json.loads(done.out)
    stored = json.loads(
        (tmp_path / "results" / document["run_id"] / "all_results.json").read_text()
    )
    assert document == stored
    assert document["metrics"]["samples"] == 6


def test_attack_csv_has_raw_numbers(eexit, attack_options) -> None:
    done = eexit("attack", *attack_options, "--format", "csv")
    assert done.code == 0, done.err
    rows = {row["metric"]: row for row in csv.DictReader(io.StringIO(done.out))}
    assert 1 <= float(rows["mean_exit_layer"]["before"]) <= 4
    assert float(rows["saved_layers"]["before"]) == pytest.approx(
        1 - float(rows["mean_exit_layer"]["before"]) / 4
    )


def test_quiet_attack_prints_the_folder(eexit, attack_options) -> None:
    done = eexit("attack", *attack_options, "--quiet")
    assert (done.code, done.err) == (0, "")
    assert (Path(done.out.strip()) / "all_results.json").is_file()


def test_evaluate_and_show_again(eexit, tiny_model, reviews) -> None:
    done = eexit("evaluate", "--model", tiny_model, "--data-file", reviews, "--latency-samples", 4)
    assert done.code == 0, done.err
    assert "Exit by exit" in done.out
    assert "Full model" in done.out
    shown = eexit("results", "show", "latest")
    assert shown.code == 0
    assert shown.out == done.out


def test_sweep_as_csv_has_every_setting(eexit, tiny_model, reviews) -> None:
    common = ("evaluate", "--model", tiny_model, "--data-file", reviews, "--sweep", "--quiet")
    done = eexit(*common, "--latency-samples", 0, "--format", "csv")
    assert done.code == 0, done.err
    rows = list(csv.DictReader(io.StringIO(done.out)))
    assert {row["criterion"] for row in rows} == {"threshold", "patience", "voting", "static"}
    assert len(rows) > 100
    assert all(1 <= float(row["mean_exit_layer"]) <= 4 for row in rows)


def test_repeating_a_run_from_its_own_file(eexit, tiny_model, reviews, tmp_path) -> None:
    options = ("--data-file", reviews, "--threshold", 0.3, "--limit", 10, "--latency-samples", 0)
    first = eexit("evaluate", "--model", tiny_model, *options, "--json")
    assert first.code == 0, first.err
    document = json.loads(first.out)
    run = tmp_path / "results" / document["run_id"]
    again = eexit("evaluate", "--config", run / "config.json", "--json")
    assert again.code == 0, again.err
    assert json.loads(again.out)["metrics"] == document["metrics"]


def test_predict_marks_where_the_text_leaves(eexit, tiny_model) -> None:
    done = eexit("predict", "--model", tiny_model, "--static-layer", 2, "a [bold]good[/] film")
    assert done.code == 0, done.err
    assert '"a [bold]good[/] film"' in done.out
    leaving = [line for line in done.out.splitlines() if "leaves here" in line]
    assert len(leaving) == 1
    assert "exit  2" in leaving[0]
    assert done.out.count("not executed") == 2


def test_predict_json_and_quiet(eexit, tiny_model) -> None:
    done = eexit("predict", "--model", tiny_model, "good", "bad", "--json")
    document = json.loads(done.out)
    assert done.code == 0
    assert [result["text"] for result in document["results"]] == ["good", "bad"]
    quiet = eexit("predict", "--model", tiny_model, "good", "bad", "--quiet")
    assert quiet.code == 0
    assert quiet.out.split() == [result["label_name"] for result in document["results"]]


def test_train_then_show(eexit, tiny_model, reviews, tmp_path) -> None:
    from transformers import AutoTokenizer, BertConfig, BertModel

    encoder = tmp_path / "encoder"
    config = BertConfig(
        vocab_size=60,
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=32,
        max_position_embeddings=64,
    )
    BertModel(config).save_pretrained(encoder)
    AutoTokenizer.from_pretrained(tiny_model).save_pretrained(encoder)
    options = [
        "--max-length",
        "32",
        "--batch-size",
        "8",
        "--epochs",
        "1",
        "--strategy",
        "joint",
        "--output",
        "mine",
    ]
    done = eexit("train", "--backbone", encoder, "--data-file", reviews, *options)
    assert done.code == 0, done.err
    assert "Every exit" in done.out
    assert done.err.splitlines()[-1] == "Next:  eexit evaluate --model mine --sweep"
    followed = eexit("evaluate", "--model", "mine", "--sweep", "--latency-samples", "0")
    assert followed.code == 0, followed.err
    assert f"Data: the tenth of {reviews.name}" in followed.err
    shown = eexit("models", "show", "mine", "--json")
    assert shown.code == 0
    assert json.loads(shown.out)["layers"] == 2


def _start(arguments: list[str], folder: Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "eexit_cli", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=folder,
        env=dict(os.environ),
        # A shell's background job, as a test run may be, ignores Ctrl-C, and so would its children.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )


def test_interrupted_attack_says_how_to_go_on_and_goes_on(
    eexit_process, tiny_model, reviews, tmp_path
) -> None:
    """Ctrl-C in the middle: 130, one line, no traceback; then the run is finished from there."""
    options = f"--model {tiny_model} --data-file {reviews} --limit 0".split()
    process = _start(["attack", *options], tmp_path)
    deadline = time.monotonic() + 120
    while not any(file.stat().st_size for file in tmp_path.glob("results/*/records.jsonl")):
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert process.returncode == INTERRUPTED, err
    assert "Traceback" not in err
    assert out == ""
    last = err.strip().splitlines()[-1]
    run = next((tmp_path / "results").iterdir()).name
    assert last == f"Interrupted. Go on with: eexit attack --resume {run}"
    assert err.count("--resume") == 1
    assert not (tmp_path / "results" / run / "all_results.json").exists()
    done = eexit_process("attack", "--resume", run, "--json")
    assert done.code == 0, done.err
    assert json.loads(done.out)["metrics"]["samples"] == 40
