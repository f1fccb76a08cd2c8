"""The commands as functions: what the README and the docstrings show, and what is refused."""

from __future__ import annotations

import doctest
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import eexit_cli as eexit
from eexit_cli import api
from eexit_cli.config import AttackConfig, EvaluateConfig, TrainConfig
from eexit_cli.config.keywords import config_of
from eexit_cli.core.errors import UsageError

README = Path(__file__).parents[1] / "README.md"


def test_the_docstrings_are_true(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    found = doctest.testmod(api)
    assert found.attempted >= 10
    assert found.failed == 0


def test_the_readme_is_true(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    text = README.read_text(encoding="utf-8")
    section = text[text.index("## From Python") :]
    block = re.search(r"```python\n(.*?)```", section, re.DOTALL)
    assert block is not None
    names: dict[str, Any] = {}
    exec(block[1], names)
    assert "['positive', 'negative']" in capsys.readouterr().out
    assert list(names["run"].rows["recipe"]) == ["same-token"]
    assert list(names["sweep"].rows["patience"]) == [1, 2, 3]


def test_importing_loads_nothing_heavy() -> None:
    program = (
        "import sys, eexit_cli, eexit_cli.api\n"
        "heavy = {'torch', 'transformers', 'pandas', 'datasets', 'rich'}\n"
        "print(*sorted(heavy & sys.modules.keys()))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert (done.stdout.split(), done.stderr) == ([], "")


def test_every_function_is_listed() -> None:
    for name in ("attack", "calibrate", "evaluate", "load", "plot", "predict", "train"):
        assert name in dir(eexit)
        assert getattr(eexit, name) is getattr(api, name)
    with pytest.raises(AttributeError, match="no attribute 'atack'"):
        eexit.atack  # noqa: B018


def test_texts_and_pairs_are_answered_as_the_command_does(tmp_path: Path) -> None:
    model = eexit.load("pabee")
    texts = ["never boring", "dull", "a fine film"]
    early = model.answers(texts)
    said = eexit.predict(texts, model="pabee")["results"]
    assert list(early.outputs) == [each["prediction"] for each in said]
    assert [layers[0] for layers in early.exit_layers] == [each["exit_layer"] for each in said]
    assert {layers[0] for layers in model.answers(texts, model.full()).exit_layers} == {6}
    model.answers([("a", "b"), ("c", "d")])
    for wrong in ([], ["a", ("b", "c")], [" "]):
        with pytest.raises(UsageError):
            model.answers(wrong)


def test_a_decoder_puts_its_prefix_before_texts() -> None:
    model = eexit.load("calm")
    early = model.answers(["queue", "knight"])
    said = eexit.predict(["queue", "knight"], model="calm")["results"]
    assert list(early.outputs) == [each["output"] for each in said]
    assert [list(layers) for layers in early.exit_layers] == [
        [token["exit_layer"] for token in each["tokens"]] for each in said
    ]


@pytest.mark.parametrize(
    ("kind", "options", "message"),
    [
        (EvaluateConfig, {"limmit": 3}, "Unknown option 'limmit'"),
        (EvaluateConfig, {"limit": "3"}, "limit is '3'"),
        (EvaluateConfig, {"limit": True}, "limit is True"),
        (EvaluateConfig, {"limit": -1}, "limit -1 is outside its range"),
        (EvaluateConfig, {"sweep": "yes"}, "sweep is 'yes'"),
        (EvaluateConfig, {"voting": float("nan")}, "outside its range"),
        (EvaluateConfig, {"threshold": 0.1, "patience": 2}, "exclude each other"),
        (EvaluateConfig, {"text_column": "review"}, "says nothing without data_file"),
        (AttackConfig, {"query_budget": 0}, "outside its range"),
    ],
)
def test_what_cannot_be_is_refused(kind: type, options: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError) as caught:
        config_of(kind, options)
    assert message in caught.value.message
    assert caught.value.hint


def test_values_become_what_the_command_line_makes_of_them() -> None:
    config = config_of(
        EvaluateConfig, {"patience": [1, 2], "data_file": "a.csv", "threshold": None}
    )
    assert (config.patience, config.data_file) == ((1, 2), Path("a.csv"))
    assert config_of(TrainConfig, {"epochs": 2}) == TrainConfig(epochs=2)
    assert config_of(EvaluateConfig, {"threshold": 1}).threshold == 1.0
