"""What of Balcony's and EE-LLM's layouts is refused, each in one line."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from causal_exits_tiny import KINDS, Original
from safetensors.torch import load_file, save_file

from eexit_cli.confidence.decoder import build_classifier
from eexit_cli.core.errors import EexitError
from eexit_cli.models.causal.layouts import load_causal


def refused(folder: Path, match: str) -> None:
    with pytest.raises(EexitError, match=match) as caught:
        load_causal(folder, build_classifier=build_classifier)
    assert "\n" not in str(caught.value)
    assert caught.value.hint


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"exit_mlp": True}, "exits of kind 'exit_mlp' are not supported"),
        ({"exit_attention": True}, "exits of kind 'exit_attention' are not supported"),
        ({"exit_layer_indices": None}, "exit_layer_indices is None"),
        ({"exit_layer_indices": [1, 4]}, r"exit_layer_indices is \[1, 4\]"),
        ({"exit_layer_indices": [1]}, "unexpected: model.exit_modules.1.0"),
        ({"exit_layer_indices": [1, 2, 3]}, "missing: exits.3.layer"),
        ({"exit_decoder_layer": False}, "do not fit its config.json"),
        ({"tie_exit_lm_head": False}, "2 missing: exits.1.head.weight, exits.3.head.weight"),
    ],
)
def test_balcony(tmp_path: Path, changes: dict[str, Any], match: str) -> None:
    refused(Original(KINDS["balcony"]).write(tmp_path, **changes), match)


def test_a_tensor_more_or_less(tmp_path: Path) -> None:
    folder = Original(KINDS["balcony-norm"]).write(tmp_path)
    tensors = load_file(folder / "model.safetensors")
    norm = tensors.pop("model.exit_modules.1.0.weight")
    save_file(tensors, folder / "model.safetensors")
    refused(folder, "1 missing: exits.3.norm.weight")
    tensors |= {"model.exit_modules.1.0.weight": norm, "model.exit_modules.1.0.bias": norm.clone()}
    save_file(tensors, folder / "model.safetensors")
    refused(folder, "1 unexpected: exits.3.norm.bias")


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"use_exit_mlp": True}, r"feed-forwards of their own \(use_exit_mlp\)"),
        ({"normalization": "LayerNorm"}, "norms other than RMSNorm"),
        ({"swiglu": False}, "feed-forwards other than SwiGLU"),
        ({"position_embedding_type": "learned_absolute"}, "positions that are not rotary"),
        ({"exit_layer_nums": [1]}, "exit_layer_nums names layer 1"),
        ({"exit_layer_nums": [2]}, "unexpected"),
        ({"use_exit_norm": True}, "2 missing: exits.1.norm.weight, exits.3.norm.weight"),
        ({"skip": (0,)}, "pipeline stage 0 is missing"),
        ({"skip": (1,)}, "its files hold 2 layers of 4"),
        ({"extra": torch.zeros(3)}, "unexpected: model.layers.0.strange.weight"),
    ],
)
def test_ee_llm(tmp_path: Path, changes: dict[str, Any], match: str) -> None:
    refused(Original(KINDS["ee-llm"]).write(tmp_path, **changes), match)


def test_an_exit_after_the_last_layer_is_left_out(tmp_path: Path) -> None:
    kind = replace(KINDS["ee-llm-block"], layers=(1, 3, 4))
    folder = Original(kind).write(tmp_path)
    model = load_causal(folder, build_classifier=build_classifier)
    assert model.config.exit_layers == (1, 3, 4)
    assert set(model.exits) == {"1", "3"}


class Foreign:
    """Not among what a file may hold."""


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    folder = Original(KINDS["ee-llm-block"]).write(tmp_path)
    (path,) = folder.glob("*/mp_rank_00/*.pt")
    torch.save({"model": {}, "args": Foreign()}, path)
    refused(folder, "cannot be read without running code of its own")
    torch.save({"model": {}}, path)
    refused(folder, "lacks the training's arguments")
    torch.save({"model0": {}}, path)
    refused(folder, "no checkpoint of Megatron-LM")
    path.write_bytes(b"PK")
    refused(folder, "or is damaged")
    path.parent.rename(path.parent.parent / "mp_rank_01")
    refused(folder, "tensor parallelism")


@pytest.mark.parametrize(
    ("exits", "match"),
    [
        ({"9": {}}, "exit_modules names layer 9, outside 1..3"),
        ({"x": {}}, "exit_modules names layer x"),
        ({"1": {"nrom": True}}, "unknown parts"),
        ({"1": {"norm": "yes"}}, "not a table of true and false"),
        ([1], "not a table of exits by layer"),
    ],
)
def test_a_configuration_that_cannot_be(tmp_path: Path, exits: Any, match: str) -> None:
    folder = Original(KINDS["balcony-norm"]).write(tmp_path)
    model = load_causal(folder, build_classifier=build_classifier)
    model.save_pretrained(folder)
    raw = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**raw, "exit_modules": exits}))
    refused(folder, match)
