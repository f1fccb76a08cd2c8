"""From a name to a model ready to run."""

from __future__ import annotations

import json
from types import SimpleNamespace

import pytest
import torch
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers
from transformers import AutoConfig, BertConfig, PreTrainedTokenizerFast

from eexit_cli.config.common import CommonConfig
from eexit_cli.core.errors import EexitError, MissingArtifactError, UsageError
from eexit_cli.families.encoder.model import load_model
from eexit_cli.families.loading import load_tokenizer, resolve_device, resolve_dtype
from eexit_cli.models.encoder.model import MultiExitClassifier, MultiExitConfig

PIECES = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "good", "bad", "film", "Good"]
BACKBONE = {
    "model_type": "bert",
    "hidden_size": 16,
    "num_hidden_layers": 3,
    "num_attention_heads": 2,
    "intermediate_size": 32,
    "vocab_size": len(PIECES),
    "max_position_embeddings": 20,
}


def write_vocabulary(folder):
    (folder / "vocab.txt").write_text("\n".join(PIECES) + "\n", encoding="utf-8")


@pytest.fixture
def folder(tmp_path):
    """Our own layout, with the tokenizer as old checkpoints carry it."""
    config = MultiExitConfig(
        backbone=BACKBONE, id2label={0: "no", 1: "yes"}, exit_defaults={"criterion": "static"}
    )
    MultiExitClassifier(config).save_pretrained(tmp_path / "model")
    write_vocabulary(tmp_path / "model")
    return tmp_path / "model"


def load(folder, **options):
    return load_model(CommonConfig(model=str(folder), device="cpu", **options))


def test_everything_is_there(folder):
    loaded = load(folder)
    assert (loaded.ref.kind, loaded.folder) == ("folder", folder)
    assert not loaded.model.training
    assert loaded.tokenizer.is_fast
    assert (loaded.device, loaded.dtype) == (torch.device("cpu"), torch.float32)
    assert (loaded.num_layers, loaded.num_classes) == (3, 2)
    assert loaded.label_names == ("no", "yes")
    assert loaded.max_length == 20
    assert loaded.exit_defaults == {"criterion": "static"}
    batch = loaded.batcher()(["good film", "bad"])
    assert batch["input_ids"].tolist() == [[2, 5, 7, 3], [2, 6, 3, 0]]
    assert loaded.model.infer(**batch).exit_layers.tolist() == [3, 3]


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16", "float64"])
def test_dtype(folder, dtype):
    loaded = load(folder, dtype=dtype)
    assert loaded.dtype == getattr(torch, dtype)
    assert {value.dtype for value in loaded.model.parameters()} == {loaded.dtype}


def test_max_length(folder):
    loaded = load(folder, max_length=4)
    batcher = loaded.batcher()
    assert batcher(["good bad film"])["input_ids"].tolist() == [[2, 5, 6, 3]]
    assert batcher.truncated == 1
    for length in (21, 2, 0, -5):
        with pytest.raises(UsageError, match=f"--max-length {length}") as caught:
            load(folder, max_length=length)
        assert "20" in caught.value.hint


def test_lower_case_is_the_tokenizers_own_unless_overridden(folder):
    ids = {
        choice: load(folder, lower_case=choice).batcher()(["Good"])["input_ids"].tolist()
        for choice in (None, True, False)
    }
    assert ids == {None: [[2, 5, 3]], True: [[2, 5, 3]], False: [[2, 8, 3]]}
    (folder / "tokenizer_config.json").write_text(json.dumps({"do_lower_case": False}))
    assert load(folder).batcher()(["Good"])["input_ids"].tolist() == [[2, 8, 3]]
    assert load(folder, lower_case=True).batcher()(["Good"])["input_ids"].tolist() == [[2, 5, 3]]


def word_tokenizer(folder, normalizer):
    folder.mkdir()
    backend = Tokenizer(models.WordLevel({"<u>": 0, "good": 1, "Good": 2}, unk_token="<u>"))
    backend.pre_tokenizer = pre_tokenizers.Whitespace()
    backend.normalizer = normalizer
    PreTrainedTokenizerFast(tokenizer_object=backend, unk_token="<u>").save_pretrained(folder)
    return folder


@pytest.mark.parametrize("normalizer", [None, normalizers.NFC()])
def test_lower_case_works_for_tokenizers_that_have_no_such_setting(tmp_path, normalizer):
    folder = word_tokenizer(tmp_path / "words", normalizer)
    backbone = AutoConfig.for_model("roberta")
    for lower_case, expected in ((None, [2]), (False, [2]), (True, [1])):
        tokenizer = load_tokenizer(folder, backbone=backbone, lower_case=lower_case)
        assert tokenizer("Good", add_special_tokens=False)["input_ids"] == expected


def test_lower_casing_that_cannot_be_switched_off_is_an_error(tmp_path):
    folder = word_tokenizer(tmp_path / "words", normalizers.Lowercase())
    with pytest.raises(UsageError, match="cannot be switched off"):
        load_tokenizer(folder, backbone=AutoConfig.for_model("roberta"), lower_case=False)


def test_a_folder_without_a_tokenizer_is_one_clear_line(folder):
    (folder / "vocab.txt").unlink()
    with pytest.raises(MissingArtifactError, match="has no tokenizer") as caught:
        load(folder)
    assert "tokenizer.json" in caught.value.hint


@pytest.mark.parametrize("name", ["tokenizer.json", "tokenizer_config.json"])
def test_a_damaged_tokenizer_is_one_clear_line(folder, name):
    (folder / name).write_text("{")
    with pytest.raises(EexitError, match="cannot be read") as caught:
        load(folder)
    assert "\n" not in caught.value.message


def test_a_damaged_sentencepiece_model_is_one_clear_line(tmp_path):
    (tmp_path / "spiece.model").write_bytes(b"no model")
    with pytest.raises(EexitError, match="cannot be read") as caught:
        load_tokenizer(tmp_path, backbone=AutoConfig.for_model("albert"))
    assert "\n" not in caught.value.message
    assert "pip install sentencepiece" in caught.value.hint


def test_a_converted_checkpoint_says_so(tmp_path, monkeypatch):
    """The message names the layout and the published exit."""
    from eexit_cli.families.encoder import model as loading

    config = MultiExitConfig(
        backbone=BACKBONE,
        family="pabee",
        exit_defaults={"criterion": "patience", "patience": 4},
        training={"converted_from": "pabee"},
    )
    write_vocabulary(tmp_path)
    monkeypatch.setattr(
        loading, "load_classifier", lambda *args, **options: MultiExitClassifier(config)
    )
    monkeypatch.setattr(
        loading, "resolve", lambda name: SimpleNamespace(name=name, path=tmp_path, repo_id=None)
    )
    messages = []
    progress = SimpleNamespace(message=messages.append)
    load_model(CommonConfig(model="x/y", device="cpu"), progress=progress)
    assert messages == [
        "x/y: converted from PABEE's layout; default exit is the published one: "
        "criterion patience, patience 4"
    ]


# --- devices and dtypes -------------------------------------------------------------------------


@pytest.fixture
def machine(monkeypatch):
    def having(cuda=0, mps=False):
        monkeypatch.setattr(torch.cuda, "is_available", lambda: cuda > 0)
        monkeypatch.setattr(torch.cuda, "device_count", lambda: cuda)
        monkeypatch.setattr(torch.backends.mps, "is_available", lambda: mps)

    return having


def test_auto_takes_the_best_there_is(machine):
    for have, expected in (
        ({}, "cpu"),
        ({"mps": True}, "mps"),
        ({"cuda": 1, "mps": True}, "cuda"),
    ):
        machine(**have)
        assert resolve_device("auto") == torch.device(expected)


def test_devices_by_name(machine):
    machine(cuda=2)
    assert resolve_device("cuda:1") == torch.device("cuda:1")
    assert resolve_device("cpu") == torch.device("cpu")
    with pytest.raises(UsageError, match=r"'cuda:2' is not available.*2 such"):
        resolve_device("cuda:2")
    machine()
    for name in ("cuda", "mps", "cuda:0"):
        with pytest.raises(UsageError, match="not available") as caught:
            resolve_device(name)
        assert "--device auto" in caught.value.hint


@pytest.mark.parametrize("name", ["gpu", "cude", "cuda:x", "", "cuda:", "cpu:0:1"])
def test_unknown_devices(name):
    with pytest.raises(UsageError, match="Unknown device") as caught:
        resolve_device(name)
    assert "Available: auto, cpu, cuda" in caught.value.hint


def test_the_nearest_device_is_offered():
    with pytest.raises(UsageError) as caught:
        resolve_device("cude")
    assert "Did you mean cuda" in caught.value.hint


def test_dtypes_by_name():
    cpu = torch.device("cpu")
    assert resolve_dtype("bfloat16", cpu) == torch.bfloat16
    with pytest.raises(UsageError, match="Unknown dtype 'int8'") as caught:
        resolve_dtype("int8", cpu)
    assert "float16" in caught.value.hint
    with pytest.raises(UsageError, match="MPS has no float64"):
        resolve_dtype("float64", torch.device("mps"))


def test_the_backbones_configuration_chooses_the_tokenizers_kind(tmp_path):
    write_vocabulary(tmp_path)
    assert load_tokenizer(tmp_path, backbone=BertConfig()).cls_token == "[CLS]"


def test_more_tokens_than_embeddings_are_refused(folder):
    tokenizer = load(folder).tokenizer
    tokenizer.add_tokens(["covid19"])
    tokenizer.save_pretrained(folder)
    with pytest.raises(EexitError, match="has 10 tokens, the model only 9") as caught:
        load(folder)
    assert "tokenizer's files" in caught.value.hint
