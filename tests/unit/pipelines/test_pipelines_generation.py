"""Models whose ``generation_config.json`` asks for more than greedy decoding, in the commands."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from tiny_decoders import save_decoder, write_pairs

from eexit_cli.config import AttackConfig, CalibrateConfig, EvaluateConfig, PredictConfig
from eexit_cli.core.errors import UsageError
from eexit_cli.families.seq2seq.model import load_decoder
from eexit_cli.pipelines.attack.run import run_attack
from eexit_cli.pipelines.calibrate.run import run_calibration
from eexit_cli.pipelines.evaluate import run_evaluation
from eexit_cli.pipelines.predict import run_prediction


class Heard:
    """A progress that keeps its messages."""

    def __init__(self) -> None:
        self.messages: list[str] = []

    def message(self, text: str) -> None:
        self.messages.append(text)


@pytest.fixture
def model(tmp_path: Path) -> str:
    folder = save_decoder(tmp_path / "model")
    settings(folder, num_beams=4, length_penalty=2.0, no_repeat_ngram_size=3)
    return str(folder)


def settings(folder: Path, **more: Any) -> None:
    path = folder / "generation_config.json"
    stored = json.loads(path.read_text(encoding="utf-8"))
    path.write_text(json.dumps(stored | more), encoding="utf-8")


@pytest.mark.parametrize("command", ["evaluate", "predict", "attack", "calibrate"])
def test_beams_and_penalties_are_refused_by_name(command: str, model: str, tmp_path: Path) -> None:
    data = {"data_file": write_pairs(tmp_path / "d.csv"), "results_dir": tmp_path / "results"}
    runs: dict[str, Any] = {
        "evaluate": lambda: run_evaluation(EvaluateConfig(model=model, **data)),
        "predict": lambda: run_prediction(PredictConfig(model=model, texts=("cat",))),
        "attack": lambda: run_attack(AttackConfig(model=model, recipe="all", **data)),
        "calibrate": lambda: run_calibration(CalibrateConfig(model=model, **data)),
    }
    with pytest.raises(UsageError) as caught:
        runs[command]()
    for said in ("num_beams 4", "length_penalty 2.0", "no_repeat_ngram_size 3"):
        assert said in caught.value.message
    assert "--greedy" in str(caught.value.hint)
    assert not (tmp_path / "results").exists()


def test_greedy_leaves_them_out_and_says_so(model: str, tmp_path: Path) -> None:
    config = EvaluateConfig(
        model=model,
        greedy=True,
        data_file=write_pairs(tmp_path / "d.csv"),
        latency_samples=0,
        results_dir=tmp_path / "results",
    )
    run = run_evaluation(config)
    assert run.document["config"]["greedy"] is True
    heard: Any = Heard()
    load_decoder(config, progress=heard)
    assert any("num_beams 4" in text and "left out" in text for text in heard.messages)
    plain = save_decoder(tmp_path / "plain")
    same = run_evaluation(
        EvaluateConfig(
            model=str(plain),
            data_file=config.data_file,
            latency_samples=0,
            results_dir=tmp_path / "results",
        )
    )
    outputs = [[record["output"] for record in one.records()] for one in (run, same)]
    assert outputs[0] == outputs[1]


def test_lengths_come_from_training_then_from_the_file(tmp_path: Path) -> None:
    trained = save_decoder(tmp_path / "trained", max_target_length=12)
    settings(trained, max_length=7)
    assert load_decoder(EvaluateConfig(model=str(trained))).max_new_tokens == 12
    other = save_decoder(tmp_path / "other", max_target_length=None)
    settings(other, max_length=7)
    assert load_decoder(EvaluateConfig(model=str(other))).max_new_tokens == 6
    asked = EvaluateConfig(model=str(other), max_new_tokens=9)
    assert load_decoder(asked).max_new_tokens == 9
