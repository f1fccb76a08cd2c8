"""``eexit models convert``: EE-LLM's checkpoint becomes a folder that every command takes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from causal_exits_tiny import KINDS, Original
from golden.golden_models import write_causal

from eexit_cli.confidence.decoder import build_classifier
from eexit_cli.main import main
from eexit_cli.models.causal.layouts import load_causal


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    return Path(Original(KINDS["ee-llm"]).write(tmp_path / "megatron"))


def test_it_is_the_checkpoint(
    checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    import torch

    target = tmp_path / "folder"
    arguments = ["models", "convert", str(checkpoint), "--output", str(target), "--json"]
    assert main(arguments) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["layers"] == 4
    assert told["tokenizer"].startswith("missing")
    one, other = (
        load_causal(place, build_classifier=build_classifier) for place in (checkpoint, target)
    )
    assert one.config.exit_layers == other.config.exit_layers
    ids = torch.tensor([[5, 6, 7]])
    assert one.decode(ids).samples[0].tokens == other.decode(ids).samples[0].tokens
    assert main(arguments) == 2  # there is a model now
    assert "holds a model already" in capsys.readouterr().err


def test_a_tokenizer_goes_with_it_or_does_not_fit(
    checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_causal(tmp_path / "other")
    target = tmp_path / "folder"
    arguments = ["models", "convert", str(checkpoint), "--output", str(target)]
    code = main([*arguments, "--tokenizer", str(tmp_path / "other")])
    told = capsys.readouterr()
    if code:
        assert "tokens" in told.err
        assert not target.exists()
    else:
        assert (target / "tokenizer.json").is_file()


def test_naming_the_checkpoint_as_a_model_leads_to_the_command(
    checkpoint: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["evaluate", "--model", str(checkpoint)]) == 1
    assert f"eexit models convert {checkpoint}" in capsys.readouterr().err.replace("\n", " ")
