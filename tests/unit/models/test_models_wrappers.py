"""Checkpoints whose names a wrapper had changed: read as the model within, or named."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from models_tiny import (
    bert_shapes,
    deebert_shapes,
    pabee_shapes,
    published_config,
    random_batch,
    random_model,
    random_tensors,
    write_bert_vocabulary,
    write_checkpoint,
)
from safetensors.torch import load_file, save_file
from tiny_decoders import save_decoder, save_plain_t5

from eexit_cli.confidence.decoder import build_classifier
from eexit_cli.config import EvaluateConfig, TrainConfig
from eexit_cli.core.errors import EexitError
from eexit_cli.families.encoder.model import load_model
from eexit_cli.families.listing import summarise
from eexit_cli.families.seq2seq.model import load_decoder
from eexit_cli.models.encoder.conversion import load_classifier
from eexit_cli.models.encoder.pretrained import initialise_from_backbone
from eexit_cli.models.t5.layouts import load_seq2seq

RENAMED: dict[str, Callable[[str], str]] = {
    "DistributedDataParallel": lambda name: f"module.{name}",
    "torch.compile": lambda name: f"_orig_mod.{name}",
    "training script": lambda name: f"model.{name}",
    "nested": lambda name: f"module._orig_mod.module.{name}",
    "compiled part": lambda name: name.replace(".0.", ".0._orig_mod.", 1),
    "sharded": lambda name: f"_fsdp_wrapped_module.{name}",
}


def rename(folder: Path, new: Callable[[str], str], **more: torch.Tensor) -> None:
    path = folder / "model.safetensors"
    tensors = {new(name): value for name, value in load_file(path).items()}
    save_file(tensors | more, path, metadata={"format": "pt"})


def write(folder: Path, layout: str) -> Path:
    if layout == "own":
        random_model(dtype=torch.float32).save_pretrained(folder)
        return folder
    shapes = (deebert_shapes if layout == "deebert" else pabee_shapes)("bert", 3)
    return write_checkpoint(folder, published_config("bert", 3), random_tensors(shapes))


@pytest.mark.parametrize("layout", ["own", "deebert", "pabee"])
@pytest.mark.parametrize("wrapper", RENAMED)
def test_a_classifier_within_a_wrapper(layout: str, wrapper: str, tmp_path: Path) -> None:
    folder = write(tmp_path, layout)
    batch = random_batch([7, 4])
    expected = load_classifier(folder)
    assert expected.wrapped is None
    rename(folder, RENAMED[wrapper])
    found = load_classifier(folder)
    assert torch.equal(found(**batch).logits, expected(**batch).logits)
    assert found.wrapped in load_file(folder / "model.safetensors")
    summary = summarise("m", "folder", folder)
    assert summary is not None
    assert summary.default_exit == found.config.exit_defaults


@pytest.mark.parametrize("own", [True, False])
@pytest.mark.parametrize("wrapper", RENAMED)
def test_a_decoder_within_a_wrapper(own: bool, wrapper: str, tmp_path: Path) -> None:
    folder = save_decoder(tmp_path) if own else save_plain_t5(tmp_path)
    before = load_seq2seq(folder, build_classifier=build_classifier).state_dict()
    rename(folder, RENAMED[wrapper])
    after = load_seq2seq(folder, build_classifier=build_classifier)
    assert after.wrapped is not None
    assert before.keys() == after.state_dict().keys()
    assert all(torch.equal(value, after.state_dict()[name]) for name, value in before.items())


def test_a_backbone_within_a_wrapper(tmp_path: Path) -> None:
    tensors = random_tensors(bert_shapes("bert", 3))
    folder = write_checkpoint(tmp_path, published_config("bert", 3), tensors)
    settings: dict[str, Any] = {"family": "deebert", "pooling": "mean", "num_labels": 2, "seed": 1}
    before = initialise_from_backbone(str(folder), **settings).state_dict()
    rename(folder, RENAMED["nested"])
    after = initialise_from_backbone(str(folder), **settings)
    assert after.wrapped is not None
    assert all(torch.equal(value, after.state_dict()[name]) for name, value in before.items())


class Heard:
    def __init__(self) -> None:
        self.messages: list[str] = []

    def message(self, text: str) -> None:
        self.messages.append(text)


def test_it_is_said_in_one_line(tmp_path: Path) -> None:
    classifier, decoder = write(tmp_path / "one", "deebert"), save_decoder(tmp_path / "two")
    write_bert_vocabulary(classifier)
    heard: Any = Heard()
    for folder in (classifier, decoder):
        rename(folder, RENAMED["DistributedDataParallel"])
    load_model(EvaluateConfig(model=str(classifier)), progress=heard)
    load_decoder(EvaluateConfig(model=str(decoder)), progress=heard)
    said = [text for text in heard.messages if "saved from a wrapper" in text]
    assert len(said) == 2
    assert all("'module." in text for text in said)


@pytest.mark.parametrize("layout", ["own", "deebert", "pabee", "t5"])
def test_an_unknown_wrapper_is_named_with_the_repair(layout: str, tmp_path: Path) -> None:
    folder = save_plain_t5(tmp_path) if layout == "t5" else write(tmp_path, layout)
    rename(folder, lambda name: f"net.encoder_.{name}", step=torch.zeros(1))
    load: Callable[[Path], Any] = load_classifier
    if layout == "t5":
        load = partial(load_seq2seq, build_classifier=build_classifier)
    with pytest.raises(EexitError) as caught:
        load(folder)
    assert "'net.encoder_." in caught.value.message
    assert "state_dict" in str(caught.value.hint)
    assert "eexit train" not in str(caught.value.hint)


def test_names_that_only_begin_so_stay(tmp_path: Path) -> None:
    """One tensor beside the wrapped ones is no wrapper of all."""
    folder = write(tmp_path, "own")
    rename(folder, str, **{"module.extra": torch.zeros(1)})
    with pytest.raises(EexitError, match=r"unexpected: module\.extra"):
        load_classifier(folder)


@pytest.mark.parametrize(
    ("layout", "labels", "layers", "expected"),
    [
        ("deebert", 2, 3, {"criterion": "threshold", "confidence": "entropy", "threshold": 0.19}),
        ("deebert", 1, 3, {}),
        ("pabee", 2, 3, {"criterion": "patience", "patience": 3}),
        ("pabee", 2, 6, {"criterion": "patience", "patience": 4}),
        ("pabee", 1, 6, {"criterion": "patience", "patience": 4}),
    ],
)
def test_lists_name_the_exit_that_loading_gives(
    layout: str, labels: int, layers: int, expected: dict[str, Any], tmp_path: Path
) -> None:
    shapes = (deebert_shapes if layout == "deebert" else pabee_shapes)("bert", layers, labels)
    names = {str(index): f"LABEL_{index}" for index in range(labels)}
    config = published_config("bert", layers) | {"num_labels": labels, "id2label": names}
    folder = write_checkpoint(tmp_path, config, random_tensors(shapes))
    assert load_classifier(folder).config.exit_defaults == expected
    summary = summarise("m", "folder", folder)
    assert summary is not None
    assert summary.default_exit == expected


def test_lists_name_the_exit_of_published_decoders(tmp_path: Path) -> None:
    folder = save_plain_t5(tmp_path)
    path = folder / "config.json"
    raw = json.loads(path.read_text(encoding="utf-8"))
    raw |= {"exit_conf_type": "softmax", "exit_conf_threshold": 0.7, "exit_min_layer": 2}
    path.write_text(json.dumps(raw), encoding="utf-8")
    expected = {"confidence": "softmax", "threshold": 0.7, "min_layer": 2}
    assert load_decoder(TrainConfig(model=str(folder))).exit_defaults == expected
    summary = summarise("m", "folder", folder)
    assert summary is not None
    assert summary.default_exit == expected
