"""``--resume`` on the command line: an option typed at its default is an option that was typed."""

from __future__ import annotations

from pathlib import Path

import pytest

from eexit_cli.config import AttackConfig, CalibrateConfig, TrainConfig
from eexit_cli.store.results import ResultStore
from eexit_cli.training.checkpoints import Workspace

CONFIGS = {"attack": AttackConfig, "calibrate": CalibrateConfig}


def begin(command: str, folder: Path, **options: object) -> list[str]:
    """Leave a broken-off run behind; the options that go on with it."""
    if command == "train":
        Workspace(folder / "mine").claim(TrainConfig(**options).as_dict())
        return ["--output", "mine", "--resume"]
    config = CONFIGS[command](**options)
    store = ResultStore(folder / "results")
    with pytest.raises(KeyboardInterrupt), store.create(command, config.as_dict()):
        raise KeyboardInterrupt
    return ["--resume", "latest"]


@pytest.mark.parametrize(
    ("command", "stored", "typed", "said"),
    [
        ("attack", {"top_n": 7}, ["--top-n", "100"], "--top-n 100 differs from the run's 7"),
        ("attack", {"limit": 7}, ["--limit", "100"], "--limit 100 differs from the run's 7"),
        ("calibrate", {"delta": 0.2}, ["--delta", "0.1"], "--delta 0.1 differs from the run's 0.2"),
        (
            "calibrate",
            {"store": False},
            ["--store"],
            "--store True differs from the run's False",
        ),
        (
            "train",
            {"epochs": 1.0, "model": "deebert"},
            ["--epochs", "3"],
            "--epochs 3.0 differs from the unfinished training's 1.0",
        ),
        (
            "train",
            {"dtype": "bfloat16", "model": "deebert"},
            ["--dtype", "float32"],
            "--dtype float32 differs from the unfinished training's bfloat16",
        ),
    ],
)
def test_an_option_typed_at_its_default_must_agree_too(
    eexit, tmp_path: Path, command: str, stored: dict, typed: list[str], said: str
) -> None:
    resume = begin(command, tmp_path, **stored)
    done = eexit(command, *resume, *typed)
    assert done.code == 2
    assert said in " ".join(done.err.split())
    assert "Leave it out" in done.err


def test_the_environment_counts_as_typed(eexit, tmp_path: Path, monkeypatch) -> None:
    resume = begin("calibrate", tmp_path, epsilon=0.1)
    monkeypatch.setenv("EEXIT_EPSILON", "0.05")
    done = eexit("calibrate", *resume)
    assert done.code == 2
    assert "--epsilon 0.05 differs from the run's 0.1" in " ".join(done.err.split())
