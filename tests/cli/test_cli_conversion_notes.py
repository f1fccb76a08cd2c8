"""How a checkpoint of another layout was read is told by every command that reads it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest


@pytest.fixture
def converted(tiny_model: Path, tmp_path: Path) -> Path:
    folder = tmp_path / "published"
    shutil.copytree(tiny_model, folder)
    config = json.loads((folder / "config.json").read_text())
    config["training"] = {"converted_from": "pabee"}
    (folder / "config.json").write_text(json.dumps(config))
    return folder


@pytest.mark.parametrize(
    ("command", "options"),
    [
        ("evaluate", ["--latency-samples", "0"]),
        ("attack", ["--recipe", "random", "--limit", "2", "--query-budget", "5"]),
        ("calibrate", ["--latency-samples", "0", "--no-store"]),
        ("predict", None),
    ],
)
def test_every_command_says_how_a_checkpoint_was_converted(
    eexit, converted: Path, reviews: Path, command: str, options: list[str] | None
) -> None:
    more = ["a fine film"] if options is None else ["--data-file", reviews, *options]
    done = eexit(command, "--model", converted, *more)
    assert done.code == 0, done.err
    said = " ".join(done.err.split())
    assert "converted from PABEE's layout; default exit is the published one" in said


@pytest.mark.parametrize(
    ("asked", "said"), [("softmax", "margin"), ("margin", None), ("max_prob", None)]
)
def test_a_name_that_means_another_measure_here_is_told(eexit, tiny_model, asked, said) -> None:
    done = eexit(
        *["predict", "--model", tiny_model, "--confidence", asked, "--threshold", "0.9", "a film"]
    )
    assert done.code == 0, done.err
    lines = [line for line in done.err.splitlines() if line.startswith("The confidence ")]
    assert lines == ([f"The confidence '{asked}' is {said} on {tiny_model}"] if said else [])
