"""``eexit attack`` on a decoder: what is printed, what is written, what is refused."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from tiny_decoders import WORDS, save_decoder, write_pairs


@pytest.fixture(scope="module")
def decoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_decoder(tmp_path_factory.mktemp("models") / "spell", seed=2)


@pytest.fixture(scope="module")
def pairs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_pairs(tmp_path_factory.mktemp("data") / "pairs.csv")


def test_slow_a_decoder_down(eexit, decoder, pairs) -> None:
    arguments = ("attack", "--model", decoder, "--data-file", pairs, "--query-budget", 30)
    done = eexit(*arguments, "--recipe", "same-token", "--threshold", 0.4)
    assert done.code == 0, done.err
    for words in ("softmax above 0.4", "Gain removed", "left at layer", "of 3", "same-token"):
        assert words in done.out
    assert "[" in done.out  # changed letters are in brackets where there are no colours
    done = eexit(*arguments, "--recipe", "all", "--json", "--score", "total-layers")
    assert done.code == 0, done.err
    document = json.loads(done.out)
    assert [row["recipe"] for row in document["rows"]] == ["same-token", "random"]
    assert document["config"]["score"] == "total-layers"
    assert document["metrics"]["samples"] == len(WORDS)
    run = Path("results") / document["run_id"]
    records = [json.loads(line) for line in (run / "records.jsonl").read_text().splitlines()]
    assert {record["unit"] for record in records} == {"letters"}
    again = eexit("attack", "--config", run / "config.json", "--json")
    assert again.code == 0, again.err
    rows = json.loads(again.out)["rows"]
    assert [row["gain_removed"] for row in rows] == [
        row["gain_removed"] for row in document["rows"]
    ]


def test_replay_on_another_exit_and_draw_it(eexit, decoder, pairs) -> None:
    done = eexit("attack", "--model", decoder, "--data-file", pairs, "--query-budget", 30, "--json")
    assert done.code == 0, done.err
    run = json.loads(done.out)["run_id"]
    replay = ("attack", "--transfer", run, "--model", decoder)
    done = eexit(*replay, "--confidence", "saturation", "--threshold", 0.6)
    assert done.code == 0, done.err
    for words in ("saturation above 0.6", f"replay of {run}", "Likeness", "Gain removed", "spell"):
        assert words in " ".join(done.out.split())
    done = eexit(*replay, "--defences", "--json")
    assert done.code == 0, done.err
    rows = json.loads(done.out)["rows"]
    assert [row["defence"] for row in rows] == ["none", "recalibrated"]
    done = eexit("plot", "transfer", "--output", "transfer.png")
    assert done.code == 0, done.err
    assert Path("transfer.png").stat().st_size > 1000
    done = eexit("attack", "--transfer", run, "--model", "deebert")
    assert done.code == 2
    assert done.out == ""
    lines = done.err.strip().splitlines()
    assert lines[-2] == (
        f"Error: Run '{run}' attacked the decoder '{decoder}'; 'deebert' is a classifier"
    )
    assert lines[-1].startswith("Hint: ")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--recipe", "waffle"), "Recipe 'waffle' attacks classifiers"),
        (("--static-layer", 2), "A static exit layer cannot be slowed down"),
        (("--score", "seconds"), "Unknown decoder score 'seconds'"),
        (("--patience", 3), "--patience is for classifiers"),
        (("--letter-rate", 0), "--letter-rate 0.0 is outside"),
    ],
)
def test_refused_in_one_line(eexit, decoder, pairs, arguments, message) -> None:
    done = eexit("attack", "--model", decoder, "--data-file", pairs, *arguments)
    assert done.code == 2
    assert done.out == ""
    lines = done.err.strip().splitlines()
    assert lines[-2].startswith(f"Error: {message}"), done.err
    assert lines[-1].startswith("Hint: ")
    assert not Path("results").exists()
