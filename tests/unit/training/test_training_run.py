"""``run_training`` from data to a folder that loads again."""

from __future__ import annotations

import errno
import json
import os
import re
import shlex
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from training_tiny import Listener, write_backbone, write_reviews

from eexit_cli.config import TrainConfig
from eexit_cli.core.errors import EexitError, MissingArtifactError, NotFiniteError, UsageError
from eexit_cli.core.stepping import replay
from eexit_cli.core.types import RunResult
from eexit_cli.families import training as family_training
from eexit_cli.families import training_source
from eexit_cli.families.encoder import training as train_encoder
from eexit_cli.families.encoder.exits import criterion_from
from eexit_cli.families.encoder.training_report import advice
from eexit_cli.models.encoder.conversion import load_classifier
from eexit_cli.pipelines import train
from eexit_cli.training.settings import TrainingSettings


@pytest.fixture
def config(tmp_path: Path) -> TrainConfig:
    return TrainConfig(
        backbone=str(write_backbone(tmp_path / "backbone")),
        data_file=write_reviews(tmp_path / "reviews.csv", 160),
        output=tmp_path / "model",
        results_dir=tmp_path / "results",
        pooling="mean",
        epochs=2,
        learning_rate=3e-3,
        batch_size=16,
        max_length=24,
        device="cpu",
    )


def _changed(config: TrainConfig, **changes: Any) -> TrainConfig:
    return replace(config, **changes)


def _weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "model.safetensors")


def _records(result: RunResult) -> list[dict[str, Any]]:
    lines = (result.path / "records.jsonl").read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines]


@pytest.mark.parametrize(
    ("family", "criterion", "stages"),
    [("deebert", "threshold", {"backbone", "ramps"}), ("pabee", "patience", {"weighted-joint"})],
)
def test_a_family_trains_with_its_papers_strategy(
    config: TrainConfig, family: str, criterion: str, stages: set[str]
) -> None:
    listener = Listener()
    result = train.run_training(_changed(config, model=family), progress=listener)
    assert config.output is not None
    folder = config.output
    assert not folder.with_name("model.training").exists()
    model = load_classifier(folder)
    assert model.config.family == family
    assert model.config.exit_defaults["criterion"] == criterion
    assert model.config.exit_defaults["provenance"]["samples"] == 16
    assert {record["stage"] for record in _records(result)} == stages
    metrics = result.document["metrics"]
    assert metrics["num_layers"] == 3
    assert metrics["examples"] == 144
    assert [row["exit_layer"] for row in result.document["rows"]] == [1, 2, 3]
    # What the run says of validation is what the stored model does on it.
    listed = _trace_of(config, model)
    labels = listed[1].numpy()
    for layer in (1, 2, 3):
        accuracy = float(np.mean(listed[0][:, layer - 1].argmax(-1).numpy() == labels))
        assert metrics[f"accuracy_exit_{layer}"] == pytest.approx(accuracy)
    decision = replay(
        listed[0], criterion_from(model.config.exit_defaults, num_layers=3, num_classes=2)
    )
    assert metrics["mean_exit_layer"] == pytest.approx(float(decision.exit_layers.double().mean()))
    assert any("Default exit" in message for message in listener.messages)


def _trace_of(config: TrainConfig, model: Any) -> tuple[torch.Tensor, torch.Tensor]:
    from transformers import AutoTokenizer

    from eexit_cli.data import load_examples

    assert config.output is not None
    tokenizer = AutoTokenizer.from_pretrained(config.output)
    examples = load_examples(config, default_split="validation", label_names=None)
    names = list(examples.info.label_names)
    assert names == [model.config.id2label[index] for index in range(2)]
    batch = tokenizer(list(examples.dataset["text"]), padding=True, return_tensors="pt")
    with torch.no_grad():
        return model(**batch).logits, torch.tensor(examples.dataset["label"])


def test_the_folder_says_how_it_was_made(config: TrainConfig) -> None:
    made = _changed(config, strategy="alternating", save_dtype="float16", vocabulary=80)
    listener = Listener()
    result = train.run_training(made, progress=listener)
    assert config.output is not None
    stored = json.loads((config.output / "config.json").read_text(encoding="utf-8"))
    assert stored["training"]["strategy"] == "alternating"
    assert stored["training"]["learning_rate"] == 3e-3
    assert stored["training"]["validation"]["accuracy"] == result.document["metrics"]["accuracy"]
    assert stored["backbone"]["vocab_size"] == 80
    tensors = _weights(config.output)
    assert {value.dtype for value in tensors.values()} == {torch.float16}
    assert tensors["backbone.embeddings.word_embeddings.weight"].shape[0] == 80
    card = (config.output / "README.md").read_text(encoding="utf-8")
    command = next(line for line in card.splitlines() if line.startswith("eexit train"))
    words = shlex.split(command)
    for pair in (["--strategy", "alternating"], ["--vocabulary", "80"], ["--pooling", "mean"]):
        position = words.index(pair[0])
        assert words[position : position + 2] == pair
    assert "--weight-decay" not in words
    for row in result.document["rows"]:
        assert f"| {row['exit_layer']} | {row['accuracy']:.4f} |" in card
    assert any(message.startswith("Vocabulary:") for message in listener.messages)


@pytest.mark.parametrize("stop_at", [3, 12, 21, 30])
def test_a_killed_run_resumes_to_the_same_model_and_records(
    config: TrainConfig, tmp_path: Path, stop_at: int
) -> None:
    """Two stages of 18 steps: killed in the first, at its validation, and in the second."""
    whole = _changed(config, output=tmp_path / "whole", evaluations_per_epoch=2)
    expected = train.run_training(whole)
    broken = _changed(config, evaluations_per_epoch=2)
    with pytest.raises(KeyboardInterrupt):
        train.run_training(broken, progress=Listener(stop_at))
    assert config.output is not None
    assert not config.output.exists()
    with pytest.raises(UsageError, match="unfinished"):
        train.run_training(broken)
    # Only --output and --resume are needed; the rest is remembered.
    result = train.run_training(
        TrainConfig(output=config.output, results_dir=config.results_dir, resume=True)
    )
    for name, value in _weights(tmp_path / "whole").items():
        assert torch.equal(value, _weights(config.output)[name]), name
    assert _records(result) == _records(expected)
    drop = ("seconds",)
    for name, value in expected.document["metrics"].items():
        assert name in drop or result.document["metrics"][name] == value
    assert len(list((tmp_path / "results").iterdir())) == 2


def test_resuming_with_another_option_names_it(config: TrainConfig) -> None:
    with pytest.raises(KeyboardInterrupt):
        train.run_training(config, progress=Listener(2))
    with pytest.raises(UsageError, match=r"--learning-rate 0.0001 differs .*'s 0.003"):
        train.run_training(_changed(config, resume=True, learning_rate=1e-4))
    # What is said holds, even where it is the default.
    again = TrainConfig(output=config.output, results_dir=config.results_dir, resume=True)
    with pytest.raises(UsageError, match=r"--epochs 3.0 differs .*'s 2"):
        train.run_training(again, explicit={"epochs"})


def test_killed_after_the_model_is_in_place_it_still_ends(
    config: TrainConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    from eexit_cli.store.results import Run

    def killed(self: Run, *args: Any, **others: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Run, "finish", killed)
        with pytest.raises(KeyboardInterrupt):
            train.run_training(config)
    assert config.output is not None
    assert (config.output / "config.json").is_file()
    result = train.run_training(_changed(config, resume=True))
    assert result.document["metrics"]["num_layers"] == 3
    with pytest.raises(UsageError, match="already holds a model"):
        train.run_training(config)


def test_a_full_disk_leaves_no_model_and_can_be_resumed(
    config: TrainConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*args: Any, **others: Any) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(family_training, "write_card", full)
        with pytest.raises(OSError, match="No space"):
            train.run_training(config)
    assert config.output is not None
    assert not config.output.exists()
    assert train.run_training(_changed(config, resume=True)).document["metrics"]["epochs"] == 2


def test_failing_before_the_training_leaves_nothing(config: TrainConfig, tmp_path: Path) -> None:
    for wrong in (
        {"label_column": "stars"},
        {"backbone": str(tmp_path / "nowhere")},
        {"vocabulary": 5},
        {"vocabulary": 80, "vocabulary_keep": "best"},
        {"strategy": "three-stage"},
        {"model": "debert"},
        {"pooling": "max"},
        {"epochs": 0},
        {"split": "validation"},
        {"device": "cuda:7"},
    ):
        with pytest.raises(EexitError) as caught:
            train.run_training(_changed(config, **wrong))
        assert caught.value.hint, wrong
        assert sorted(item.name for item in tmp_path.iterdir()) == ["backbone", "reviews.csv"]


def test_a_taken_output_is_refused_before_anything_runs(config: TrainConfig) -> None:
    assert config.output is not None
    config.output.mkdir()
    (config.output / "config.json").write_text("{}", encoding="utf-8")
    with pytest.raises(UsageError, match="already holds a model"):
        train.run_training(config)


@pytest.mark.parametrize("family", ["deebert", "pabee"])
def test_without_a_backbone_the_bundled_one_of_the_family(
    config: TrainConfig, monkeypatch: pytest.MonkeyPatch, family: str
) -> None:
    monkeypatch.setattr(training_source, "BACKBONE_PACKAGE", "a_package_that_is_not_there")
    asked = _changed(config, model=family, backbone=None).completed()
    found = training_source.settled(asked)
    assert (found.backbone, found.model, found.pooling) == (family, family, "mean")
    assert found.data_file == config.data_file
    (said,) = training_source.told(asked, found)
    assert said.startswith(f"Backbone: the bundled model {family}; ")
    assert "--backbone" in said
    assert training_source.told(found, training_source.settled(found)) == []
    # Pairs of one's own start a decoder from the bundled one; its own task a new one.
    pairs = replace(asked, model="calm")
    assert training_source.settled(pairs).backbone == "calm"
    assert "google-t5/t5-small" in training_source.told(pairs, training_source.settled(pairs))[0]
    own = replace(pairs, data_file=None, text_column=None, label_column=None)
    assert training_source.settled(own).backbone is None
    with pytest.raises(MissingArtifactError) as caught:  # a resumption whose package has gone
        train_encoder.plan(replace(found, backbone=None))
    assert "--backbone" in (caught.value.hint or "")


def test_exits_that_learned_nothing_are_named_with_what_would_help(config: TrainConfig) -> None:
    listener = Listener()
    config = _changed(config, epochs=0.2, learning_rate=1e-9)
    rows = train.run_training(config, progress=listener).document["rows"]
    said = [line for line in listener.messages if line.startswith("No better than always")]
    assert len(said) == 1
    epoch = next(line for line in listener.messages if line.startswith("Epoch"))
    told = r"Epoch \S+: validation loss [\d.]+, accuracy of exits 1 to 3:( [\d.]+){3}"
    assert re.fullmatch(told, epoch)
    assert re.search(r"exits?.* of 3\. Train longer \(--epochs 12\) or on more than", said[0])
    assert len(rows) == 3


@pytest.mark.parametrize(
    ("accuracies", "epochs", "said"),
    [
        ([0.6, 0.8, 1.0], 1, None),
        ([0.5, 0.8, 1.0], 1, "exit 1 of 3. Train longer (--epochs 25) or on more than these 100"),
        ([0.5, 0.4, 0.5], 25, "exits 1, 2, 3 of 3. Train on more than these 100 rows"),
    ],
)
def test_advice_on_exits(accuracies: list[float], epochs: float, said: str | None) -> None:
    job: Any = SimpleNamespace(
        model=SimpleNamespace(num_classes=3),
        training=range(100),
        settings=TrainingSettings(batch_size=16, gradient_accumulation=2, epochs=epochs),
        processes=SimpleNamespace(num_processes=1),
        info=SimpleNamespace(label_names=("bad", "fair", "good")),
    )
    labels = np.array([2, 2, 0, 1])
    found = advice(job, labels, np.array(accuracies))
    if said is None:
        assert found is None
    else:
        assert found is not None
        assert found.startswith(
            f"No better than always answering 'good' (50.0 % of 4 validation samples): {said}"
        )


def test_without_a_backbone_the_installed_one_is_preferred(
    config: TrainConfig, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    package = tmp_path / "site" / "tiny_encoder_package"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text(
        f"def get_model_path():\n    return {config.backbone!r}\n", encoding="utf-8"
    )
    monkeypatch.syspath_prepend(str(package.parent))
    monkeypatch.setattr(training_source, "BACKBONE_PACKAGE", "tiny_encoder_package")
    listener = Listener()
    train.run_training(_changed(config, backbone=None, epochs=0.2), progress=listener)
    assert listener.messages[0].startswith("Backbone:")


def test_regression_trains_and_leaves_by_patience(config: TrainConfig, tmp_path: Path) -> None:
    rows = ["text,label"] + [f"the film is {'good' * (i % 2)},{i % 5}.5" for i in range(100)]
    scores = tmp_path / "scores.csv"
    scores.write_text("\n".join(rows) + "\n", encoding="utf-8")
    result = train.run_training(_changed(config, data_file=scores, epochs=1))
    assert config.output is not None
    model = load_classifier(config.output)
    assert model.num_classes == 1
    assert model.config.exit_defaults["criterion"] == "patience"
    assert {"pearson_exit_1", "pearson_full", "pearson"} <= result.document["metrics"].keys()
    assert "mse_exit_3" in _records(result)[0]


def test_freezing_embeddings_keeps_them(config: TrainConfig) -> None:
    train.run_training(_changed(config, strategy="joint", freeze_embeddings=True))
    assert config.output is not None
    assert config.backbone is not None
    before = load_file(Path(config.backbone) / "model.safetensors")
    name = "embeddings.word_embeddings.weight"
    assert torch.equal(before[name], _weights(config.output)[f"backbone.{name}"])


def test_slow_bfloat16_is_said(config: TrainConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    for capability, expected in (("AVX2", True), ("AVX512", False)):
        monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda c=capability: c)
        listener = Listener(stop_at=1)
        assert config.output is not None
        other = _changed(config, dtype="bfloat16", output=config.output.with_name(capability))
        with pytest.raises(KeyboardInterrupt):
            train.run_training(other, progress=listener)
        assert any("bfloat16" in message for message in listener.messages) is expected


def test_a_training_that_diverges_says_so_and_leaves_nothing(config: TrainConfig) -> None:
    wild = _changed(config, learning_rate=1e6, optimizer="sgd", model="deebert", strategy="joint")
    with pytest.raises(NotFiniteError, match=r"Training diverged: after \d+ steps") as caught:
        train.run_training(wild)
    assert "--learning-rate" in str(caught.value.hint)
    assert caught.value.exit_code == 1
    assert config.output is not None
    assert [path.name for path in config.output.parent.glob("model*")] == []
    # The same output is free for a tamer one.
    train.run_training(_changed(config, epochs=0.2, model="deebert"))
    assert (config.output / "config.json").is_file()


def test_a_backbone_with_more_tokens_than_embeddings_is_refused(config: TrainConfig) -> None:
    from transformers import AutoTokenizer

    assert config.backbone is not None
    tokenizer = AutoTokenizer.from_pretrained(config.backbone)
    tokenizer.add_tokens(["covid19"])
    tokenizer.save_pretrained(config.backbone)
    with pytest.raises(EexitError, match="tokens, the model only"):
        train.run_training(_changed(config, model="deebert"))
    assert config.output is not None
    assert [path.name for path in config.output.parent.glob("model*")] == []
