"""save_pretrained, from_pretrained and push_to_hub: what is written is what is read, to the bit."""

from __future__ import annotations

import json

import pytest
import torch
from models_tiny import random_batch, random_model, write_checkpoint
from safetensors.torch import load_file, save_file

from eexit_cli.core.errors import EexitError
from eexit_cli.models import BACKBONES
from eexit_cli.models.encoder.conversion import DTYPES, load_classifier
from eexit_cli.models.encoder.model import MultiExitClassifier

SETTINGS = {
    "untrained_ramp": True,
    "exit_defaults": {"criterion": "threshold", "confidence": "margin", "threshold": 0.3},
    "task": "sst2",
    "training": {"strategy": "joint", "epochs": 2.0},
    "id2label": {0: "negative", 1: "neutral", 2: "positive"},
    "label2id": {"negative": 0, "neutral": 1, "positive": 2},
}


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
@pytest.mark.parametrize("family", ["deebert", "pabee"])
def test_round_trip_is_exact_to_the_bit(tmp_path, dtype, family):
    model = random_model(family=family, classes=3, pooling="mean", dtype=DTYPES[dtype], **SETTINGS)
    model.save_pretrained(tmp_path / "model")
    stored = load_file(tmp_path / "model" / "model.safetensors")
    assert {value.dtype for value in stored.values()} == {DTYPES[dtype]}

    again = MultiExitClassifier.from_pretrained(tmp_path / "model", dtype=dtype)
    assert sorted(again.state_dict()) == sorted(model.state_dict())
    for name, value in model.state_dict().items():
        assert torch.equal(again.state_dict()[name], value), name
    assert not again.training
    for name in ("family", "pooling", "num_labels", "head_dropout", *SETTINGS):
        assert getattr(again.config, name) == getattr(model.config, name), name
    assert again.config.backbone == model.config.backbone

    # A second trip writes the same files.
    again.save_pretrained(tmp_path / "again")
    for name in ("config.json", "model.safetensors"):
        first, second = ((tmp_path / folder / name).read_bytes() for folder in ("model", "again"))
        assert first == second


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_half_precision_files_load_as_float32_by_default(tmp_path, dtype):
    model = random_model(dtype=DTYPES[dtype])
    model.save_pretrained(tmp_path / "model")
    for again in (
        MultiExitClassifier.from_pretrained(tmp_path / "model"),
        load_classifier(tmp_path / "model"),
    ):
        assert {value.dtype for value in again.parameters()} == {torch.float32}
        for name, value in model.state_dict().items():
            assert torch.equal(again.state_dict()[name], value.float())
        with torch.no_grad():
            assert again(**random_batch([5, 3])).logits.dtype == torch.float32


@pytest.mark.parametrize("model_type", list(BACKBONES))
def test_every_backbone_comes_back(tmp_path, model_type):
    model = random_model(model_type, dtype=torch.float32)
    model.save_pretrained(tmp_path / "model")
    again = load_classifier(tmp_path / "model", dtype="float64")
    batch = random_batch([6, 2])
    with torch.no_grad():
        assert torch.equal(again(**batch).logits, model.double()(**batch).logits)


def test_shards_come_back(tmp_path):
    model = random_model(dtype=torch.float32)
    model.save_pretrained(tmp_path / "model", max_shard_size="20KB")
    assert (tmp_path / "model" / "model.safetensors.index.json").is_file()
    again = load_classifier(tmp_path / "model")
    for name, value in model.state_dict().items():
        assert torch.equal(again.state_dict()[name], value)


def test_a_converted_checkpoint_saves_in_our_own_layout(tmp_path):
    from models_tiny import deebert_shapes, published_config, random_tensors

    folder = write_checkpoint(
        tmp_path / "published",
        published_config("bert", 3),
        random_tensors(deebert_shapes("bert", 3)),
    )
    converted = load_classifier(folder)
    converted.save_pretrained(tmp_path / "own")
    assert json.loads((tmp_path / "own" / "config.json").read_text())["model_type"] == (
        "multi_exit_classifier"
    )
    again = load_classifier(tmp_path / "own")
    assert again.config.exit_defaults == converted.config.exit_defaults
    assert again.last_ramp is not None
    batch = random_batch([4, 7])
    with torch.no_grad():
        assert torch.equal(again(**batch).logits, converted(**batch).logits)


def test_transformers_own_loader_is_strict_here(tmp_path):
    model = random_model(dtype=torch.float32)
    model.save_pretrained(tmp_path / "model")
    path = tmp_path / "model" / "model.safetensors"
    whole = load_file(path)
    for name in whole:
        save_file({key: value for key, value in whole.items() if key != name}, path)
        with pytest.raises(EexitError, match="1 missing") as caught:
            MultiExitClassifier.from_pretrained(tmp_path / "model")
        assert name in caught.value.message
    save_file(whole | {"stray": torch.zeros(1)}, path)
    with pytest.raises(EexitError, match="1 unexpected: stray"):
        MultiExitClassifier.from_pretrained(tmp_path / "model")


def test_options_without_a_meaning_are_refused(tmp_path):
    random_model().save_pretrained(tmp_path / "model")
    with pytest.raises(TypeError, match="device_map"):
        MultiExitClassifier.from_pretrained(tmp_path / "model", device_map="auto")
    with pytest.raises(EexitError, match="Unknown dtype 'float8'"):
        MultiExitClassifier.from_pretrained(tmp_path / "model", dtype="float8")


def test_push_to_hub_uploads_what_save_pretrained_writes(tmp_path, monkeypatch):
    import transformers.utils.hub as hub
    from huggingface_hub import HfApi

    uploaded = {}

    class Repository:
        repo_id = "someone/model"
        url = "https://example.invalid"

    def create_repo(*args, **options):
        return Repository()

    def create_commit(*args, operations, **options):
        for operation in operations:
            with operation.as_file() as stream:
                uploaded[operation.path_in_repo] = stream.read()

    for name, replacement in (("create_repo", create_repo), ("create_commit", create_commit)):
        # transformers 4 calls functions, transformers 5 methods.
        monkeypatch.setattr(hub, name, replacement, raising=False)
        monkeypatch.setattr(HfApi, name, replacement)
    model = random_model(dtype=torch.float32)
    model.push_to_hub("someone/model")
    assert {"config.json", "model.safetensors"} <= set(uploaded)
    for name in ("config.json", "model.safetensors"):
        (tmp_path / name).write_bytes(uploaded[name])
    again = load_classifier(tmp_path)
    for name, value in model.state_dict().items():
        assert torch.equal(again.state_dict()[name], value)
