"""``run_training`` of decoders: from pairs to a folder that decodes, and its classifiers."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from tiny_decoders import save_decoder, save_plain_t5, write_pairs
from training_tiny import Listener
from transformers import AutoTokenizer

from eexit_cli.config import EvaluateConfig, TrainConfig
from eexit_cli.core.errors import EexitError, MissingArtifactError, NotFiniteError, UsageError
from eexit_cli.core.types import RunResult
from eexit_cli.data import load_examples
from eexit_cli.families.decoders.decoding import decode_examples
from eexit_cli.families.decoders.exits import settings_from
from eexit_cli.families.decoders.loaded import LoadedDecoder
from eexit_cli.families.seq2seq.model import load_decoder
from eexit_cli.metrics.generation import compute_generation
from eexit_cli.pipelines.train import run_training


@pytest.fixture
def config(tmp_path: Path) -> TrainConfig:
    return TrainConfig(
        model="calm",
        task="pronunciation",
        limit=96,
        validation_limit=24,
        num_layers=1,
        num_decoder_layers=3,
        d_model=16,
        d_ff=24,
        num_heads=2,
        epochs=2,
        batch_size=16,
        learning_rate=5e-3,
        output=tmp_path / "model",
        results_dir=tmp_path / "results",
        device="cpu",
    )


def _of(base: Path, config: TrainConfig, **changes: Any) -> TrainConfig:
    """The same, starting from a folder."""
    shape = dict.fromkeys(("num_layers", "num_decoder_layers", "d_model", "d_ff", "num_heads"))
    return replace(config, backbone=str(base), **{**shape, **changes})


def _load(folder: Path) -> LoadedDecoder:
    return load_decoder(TrainConfig(model=str(folder), device="cpu"))


def _weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "model.safetensors")


def _records(result: RunResult) -> list[dict[str, Any]]:
    lines = (result.path / "records.jsonl").read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines]


def test_a_new_t5_learns_and_its_figures_are_those_of_the_stored_model(config: TrainConfig) -> None:
    listener = Listener()
    result = run_training(config, progress=listener)
    assert config.output is not None
    loaded = _load(config.output)
    metrics = result.document["metrics"]
    records = _records(result)
    assert [record["epoch"] for record in records] == [1.0, 2.0]
    assert records[1]["loss"] < records[0]["loss"]
    assert {f"token_accuracy_exit_{layer}" for layer in (1, 2, 3)} <= set(records[0])
    assert [row["exit_layer"] for row in result.document["rows"]] == [1, 2, 3]
    examples = load_examples(replace(config, limit=24), default_split="validation", generates=True)
    targets = list(examples.dataset["target"])
    for settings, suffix in (
        ({"static_layer": 2}, "_exit_2"),
        ({}, "_full"),
        (loaded.exit_defaults, ""),
    ):
        decoded = decode_examples(loaded, examples, settings_from(settings, loaded))
        scores = compute_generation(examples.info, decoded.outputs, targets)
        for name, value in scores.items():
            assert metrics[f"{name}{suffix}"] == pytest.approx(value)
    layers = decoded.token_layers
    assert metrics["mean_exit_layer"] == pytest.approx(sum(layers) / len(layers))
    provenance = loaded.exit_defaults["provenance"]
    lost = provenance["phoneme_error_rate"] - provenance["phoneme_error_rate_full"]
    assert lost <= 0.005 + 1e-9
    assert any("Default exit" in message for message in listener.messages)
    card = (config.output / "README.md").read_text(encoding="utf-8")
    assert "eexit train" in card
    assert f"{metrics['phoneme_error_rate_exit_2']:.4f}" in card


def test_what_a_backbone_asks_of_decoding_goes_on(config: TrainConfig, tmp_path: Path) -> None:
    """Start, forced tokens and what is left out are the trained model's too, and are said."""
    base = save_plain_t5(tmp_path / "t5")
    path = base / "generation_config.json"
    stored = json.loads(path.read_text(encoding="utf-8"))
    asked = {"decoder_start_token_id": 5, "forced_bos_token_id": 9, "num_beams": 4}
    path.write_text(json.dumps(stored | asked), encoding="utf-8")
    listener = Listener()
    run_training(_of(base, config, epochs=0.2), progress=listener)
    assert any("num_beams 4" in message for message in listener.messages)
    assert config.output is not None
    written = json.loads((config.output / "generation_config.json").read_text(encoding="utf-8"))
    assert written.items() >= asked.items()
    with pytest.raises(UsageError, match="num_beams 4"):
        _load(config.output)
    loaded = load_decoder(EvaluateConfig(model=str(config.output), greedy=True, device="cpu"))
    assert loaded.model.shift_right(torch.tensor([[7]])).tolist() == [[5]]
    assert decode_examples(loaded, ["c a t"], settings_from({}, loaded)).tokens[0][0] == 9


def test_a_resumed_training_ends_with_the_weights_of_an_unbroken_one(
    config: TrainConfig, tmp_path: Path
) -> None:
    run_training(replace(config, output=tmp_path / "whole"))
    with pytest.raises(KeyboardInterrupt):
        run_training(config, progress=Listener(9))
    assert config.output is not None
    assert not config.output.exists()
    run_training(TrainConfig(resume=True, output=config.output, results_dir=config.results_dir))
    whole, resumed = _weights(tmp_path / "whole"), _weights(config.output)
    assert whole.keys() == resumed.keys()
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)


def test_classifiers_learn_beside_a_frozen_decoder(config: TrainConfig, tmp_path: Path) -> None:
    base = save_decoder(tmp_path / "base", classifiers=("mlp",))
    asked = _of(base, config, confidence="linear,transformer_MLP_64", epochs=1)
    result = run_training(asked)
    assert config.output is not None
    before, after = _weights(base), _weights(config.output)
    # What was there stays to the last bit, an earlier classifier included.
    assert all(torch.equal(before[name], after[name]) for name in before)
    loaded = _load(config.output)
    assert set(loaded.model.cm_heads) == {"mlp", "linear", "transformer_mlp_64"}
    assert loaded.exit_defaults["threshold"] == 0.5
    rows = result.document["rows"]
    assert [row["confidence"] for row in rows] == ["linear", "transformer_mlp_64"]
    metrics = result.document["metrics"]
    assert metrics["auroc_linear_exit_1"] == rows[0]["auroc_exit_1"]
    stored = loaded.model.config.training["classifiers"]
    assert stored["linear"]["auroc"] == [rows[0][f"auroc_exit_{layer}"] for layer in (1, 2)]
    assert "AUROC" in (config.output / "README.md").read_text(encoding="utf-8")


def test_a_classifier_learns_the_same_alone_and_in_company(
    config: TrainConfig, tmp_path: Path
) -> None:
    base = save_decoder(tmp_path / "base", classifiers=())
    found = {}
    for names in ("mlp", "linear,mlp,transformer_linear_64"):
        output = tmp_path / names.replace(",", "-")
        run_training(_of(base, config, confidence=names, epochs=1, output=output))
        found[names] = {name: value for name, value in _weights(output).items() if ".mlp." in name}
    alone, together = found.values()
    assert alone.keys() == together.keys() != set()
    for name in alone:
        assert torch.allclose(alone[name], together[name], rtol=0, atol=1e-6)


def test_layers_that_train_again_lose_their_classifiers(
    config: TrainConfig, tmp_path: Path
) -> None:
    base = save_decoder(tmp_path / "base", classifiers=("linear",))
    listener = Listener()
    run_training(
        _of(base, config, strategy="free", shallow_layer=1, distillation="uniform", epochs=1),
        progress=listener,
    )
    assert config.output is not None
    loaded = _load(config.output)
    assert not loaded.model.cm_heads
    assert any("linear, which learned from other layers" in text for text in listener.messages)
    assert loaded.exit_defaults["shallow_layer"] == 1
    assert loaded.model.config.training["strategy"] == "free"


def test_a_plain_t5_and_pairs_of_ones_own(config: TrainConfig, tmp_path: Path) -> None:
    base = save_plain_t5(tmp_path / "t5")
    pairs = write_pairs(tmp_path / "pairs.csv")
    listener = Listener()
    run_training(
        _of(
            base,
            config,
            task=None,
            limit=None,
            data_file=pairs,
            source_prefix="say: ",
            max_target_length=4,
            optimizer="sgd",
            dropout=0.0,
        ),
        progress=listener,
    )
    assert config.output is not None
    settings = _load(config.output).model.config
    assert settings.source_prefix == "say: "
    assert settings.max_target_length == 4
    assert settings.dropout_rate == 0.0
    assert any("targets were cut at 4 tokens" in text for text in listener.messages)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        (
            {"model": "deebert"},
            "--num-layers is for encoder-decoders .*; model 'deebert' is a classifier",
        ),
        ({"pooling": "mean"}, "--pooling is for classifiers; model 'calm' is an encoder-decoder"),
        ({"strategy": "joint"}, "Unknown training strategy of decoders 'joint'"),
        ({"confidence": "liner"}, "Unknown confidence classifier 'liner'"),
        ({"confidence": "mlp", "dropout": 0.1}, "--dropout trains the decoder"),
        ({"confidence": ","}, "names no classifier"),
        ({"distillation": "last"}, "--distillation goes with FREE"),
        ({"strategy": "free"}, "FREE needs its shallow layer"),
        ({"strategy": "free", "shallow_layer": 3}, r"--shallow-layer 3 is outside 1\.\.2"),
        ({"num_heads": 3}, "no multiple of --num-heads 3"),
        ({"dropout": 1.0}, "--dropout 1.0 is outside"),
        ({"max_length": 1}, "--max-length 1 is too short"),
        ({"backbone": "somewhere"}, "--num-layers shapes a new T5"),
        ({"optimizer": "adam"}, "Unknown optimizer 'adam'"),
        ({"learning_rate": 0.0}, "--learning-rate 0.0 is outside"),
    ],
)
def test_bad_options_write_nothing(
    config: TrainConfig, tmp_path: Path, changes: dict[str, Any], words: str
) -> None:
    with pytest.raises(UsageError, match=words):
        run_training(replace(config, **changes))
    assert list(tmp_path.iterdir()) == []


def test_other_tasks_need_something_to_start_from(config: TrainConfig) -> None:
    with pytest.raises(MissingArtifactError, match="No backbone"):
        run_training(replace(config, task="cnn_dailymail"))


def test_an_output_is_named_where_none_is_given() -> None:
    named = TrainConfig(model="calm", task="cnn_dailymail").completed()
    assert named.output == Path("calm-cnn_dailymail")
    classifiers = TrainConfig(model="calm", confidence="mlp,linear").completed()
    assert (classifiers.task, classifiers.output) == (
        "pronunciation",
        Path("calm-pronunciation-mlp-linear"),
    )
    reviews = TrainConfig(data_file=Path("x/reviews.csv"))
    assert reviews.completed().output == Path("deebert-reviews")
    for backbone, name in (
        ("pabee", "pabee"),
        ("google-bert/bert-base-uncased", "bert-base-uncased"),
    ):
        other = replace(reviews, backbone=backbone).completed()
        assert other.output == Path(f"{name}-reviews")
        named = replace(reviews, backbone=backbone, model="deebert").completed()
        assert named.output == Path("deebert-reviews")
    unknown = TrainConfig(backbone="x/calm").completed()
    assert (unknown.task, unknown.output) == (None, Path("calm-trained"))


def test_a_training_that_diverges_says_so_and_leaves_nothing(config: TrainConfig) -> None:
    with pytest.raises(NotFiniteError, match="Training diverged"):
        run_training(replace(config, learning_rate=1e12, optimizer="sgd"))
    assert config.output is not None
    assert [path.name for path in config.output.parent.glob("model*")] == []


def test_a_backbone_with_more_tokens_than_embeddings_is_refused(
    config: TrainConfig, tmp_path: Path
) -> None:
    base = save_plain_t5(tmp_path / "t5")
    tokenizer = AutoTokenizer.from_pretrained(base)
    tokenizer.add_tokens(["covid19"])
    tokenizer.save_pretrained(base)
    with pytest.raises(EexitError, match="tokens, the model only"):
        run_training(_of(base, config))
