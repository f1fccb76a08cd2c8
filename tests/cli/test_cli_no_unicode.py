"""Texts and names that are no valid Unicode: said in a line, and never a reason to fail."""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from eexit_cli.store.results import ResultStore

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="names of bytes are Linux's")

LATIN = os.fsdecode("café".encode("latin-1"))
"""A name in Latin-1, as Python hands it over: with a lone surrogate."""

Invoke = Callable[..., Any]


def _jsonl(path: Path, rows: list[dict[str, str]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="ascii")
    return path


def test_a_cut_emoji_is_replaced_and_its_line_named(
    eexit: Invoke, tiny_model: Path, tmp_path: Path
) -> None:
    rows = [
        {"text": "good film", "label": "positive"},
        {"text": "bad \ud83d film", "label": "positive"},
        {"text": "\ude42 dull", "label": "positive"},
        {"text": "dull", "label": "negative"},
    ]
    data = _jsonl(tmp_path / "d.jsonl", rows)
    options = ("--model", tiny_model, "--data-file", data)
    done = eexit("evaluate", *options, "--latency-samples", 0)
    assert done.code == 0
    assert (
        "d.jsonl, line 2 and 1 more: half of a character (a cut emoji), read as \ufffd" in done.err
    )
    done = eexit("attack", *options, "--query-budget", 10)
    assert done.code == 0
    texts = [record["text"] for record in ResultStore().latest("attack").records()]
    assert sorted(texts) == ["bad \ufffd film", "dull", "good film", "\ufffd dull"]


def test_half_a_label_is_an_error_that_names_its_line(
    eexit: Invoke, tiny_model: Path, tmp_path: Path
) -> None:
    rows = [{"text": "good", "label": "positive"}, {"text": "bad", "label": "\ud83d"}]
    data = _jsonl(tmp_path / "d.jsonl", rows)
    done = eexit("evaluate", "--model", tiny_model, "--data-file", data)
    assert done.code == 2
    assert r"Error: d.jsonl, line 2: the label '\ud83d' holds half of a character" in done.err


@pytest.mark.parametrize("suffix", ["csv", "tsv", "jsonl"])
def test_a_file_of_another_encoding_names_its_line(
    eexit: Invoke, tiny_model: Path, tmp_path: Path, suffix: str
) -> None:
    separator = "\t" if suffix == "tsv" else ","
    lines = [f"text{separator}label", f"fine{separator}positive", f"café{separator}negative"]
    if suffix == "jsonl":
        lines = ['{"text": "a", "label": "positive"}'] * 2 + ['{"text": "café", "label": "x"}']
    data = tmp_path / f"d.{suffix}"
    data.write_bytes("\n".join(lines).encode("latin-1"))
    done = eexit("evaluate", "--model", tiny_model, "--data-file", data)
    assert done.code == 2
    assert f"Error: d.{suffix} is not UTF-8 text (line 3)" in done.err


def test_files_of_losses_and_options_name_their_line_too(eexit: Invoke, tmp_path: Path) -> None:
    (tmp_path / "l.csv").write_bytes("id,0.5\na,0\nb\xe9,1\n".encode("latin-1"))
    done = eexit("calibrate", "--losses", "l.csv")
    assert (done.code, "'l.csv' is not UTF-8 text (line 3)" in done.err) == (2, True)
    (tmp_path / "c.yaml").write_bytes(b"model: deebert\ntask: caf\xe9\n")
    done = eexit("evaluate", "--config", "c.yaml")
    assert (done.code, "'c.yaml' is not UTF-8 text (line 2)" in done.err) == (2, True)


def test_arguments_in_another_encoding(eexit: Invoke, tiny_model: Path) -> None:
    done = eexit("predict", "--model", tiny_model, "--json", f"good {LATIN}", "fine")
    assert done.code == 0
    assert "Not valid UTF-8, and read with \ufffd in its place: good caf\\xe9" in done.err
    assert [each["text"] for each in json.loads(done.out)["results"]] == ["good caf\ufffd", "fine"]


def test_the_name_of_a_file_never_matters(
    eexit: Invoke, tiny_model: Path, reviews: Path, tmp_path: Path
) -> None:
    model, data = tmp_path / f"model-{LATIN}", tmp_path / f"{LATIN}.csv"
    shutil.copytree(tiny_model, model)
    shutil.copy(reviews, data)
    given = ("--model", model, "--data-file", data)
    trained = ("--backbone", model, "--data-file", data, "--epochs", 1, "--output", f"{LATIN}-2")
    for arguments in (
        ("evaluate", *given, "--latency-samples", 2),
        ("calibrate", *given, "--delta", 0.5),
        ("attack", *given, "--limit", 6, "--query-budget", 10, "--workers", 2),
        ("results", "show", "latest", "--json"),
        ("plot", "slowdown", "--output", tmp_path / f"{LATIN}.png"),
        ("models", "show", model),
        ("predict", "--model", model, "fine"),
        ("train", *trained),
        ("evaluate", "--model", f"{LATIN}-2", "--latency-samples", 0),
    ):
        done = eexit(*arguments)
        assert done.code == 0, done.err
    config = ResultStore().latest("attack").config
    assert (Path(config["data_file"]), Path(config["model"])) == (data, model)
    shown = eexit("models", "show", model).out
    assert r"model-caf\xe9" in "".join(shown.split())  # a long path may break anywhere
