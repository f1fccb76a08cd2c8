"""``run_training`` from a model that has exits already."""

from __future__ import annotations

import csv
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from tiny_decoders import save_decoder
from training_tiny import Listener, reviews, write_backbone, write_reviews

from eexit_cli.config import TrainConfig
from eexit_cli.core.errors import MissingArtifactError, UsageError
from eexit_cli.models.encoder.conversion import load_classifier
from eexit_cli.pipelines.train import run_training

STILL = 1e-12
"""A learning rate that leaves float32 weights where they are."""


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A trained PABEE model that reads the mean; its folder."""
    folder = tmp_path_factory.mktemp("base")
    run_training(
        TrainConfig(
            model="pabee",
            backbone=str(write_backbone(folder / "encoder")),
            data_file=write_reviews(folder / "reviews.csv", 160),
            output=folder / "base",
            results_dir=folder / "results",
            pooling="mean",
            epochs=4,
            learning_rate=5e-3,
            batch_size=16,
            device="cpu",
        )
    )
    return folder / "base"


@pytest.fixture
def config(base: Path, tmp_path: Path) -> TrainConfig:
    return TrainConfig(
        backbone=str(base),
        data_file=write_reviews(tmp_path / "more.csv", 80),
        output=tmp_path / "model",
        results_dir=tmp_path / "results",
        epochs=1,
        learning_rate=STILL,
        weight_decay=0.0,
        batch_size=16,
        device="cpu",
    )


def _weights(folder: Path | str) -> dict[str, torch.Tensor]:
    return load_file(Path(folder) / "model.safetensors")


def _write(path: Path, rows: list[tuple[str, str]]) -> Path:
    with path.open("w", newline="", encoding="utf-8") as stream:
        csv.writer(stream).writerows([("text", "label"), *rows])
    return path


def _said(config: TrainConfig) -> str:
    listener = Listener()
    run_training(config, progress=listener)
    (line,) = [line for line in listener.messages if line.startswith("Goes on")]
    return line


def test_family_pooling_and_all_weights_are_the_given_models(
    config: TrainConfig, base: Path
) -> None:
    assert _said(config) == f"Goes on from {base}: its weights and its 3 exits"
    assert config.output is not None
    before, after = _weights(base), _weights(config.output)
    assert before.keys() == after.keys()
    for name, value in before.items():
        torch.testing.assert_close(after[name], value, rtol=0, atol=1e-6)
    model = load_classifier(config.output)
    assert (model.config.family, model.config.pooling) == ("pabee", "mean")
    # Chosen anew: on these data, not on those of the given model.
    assert model.config.exit_defaults["provenance"]["data"] == "more, validation"
    stored = model.config.training
    assert (stored["model"], stored["pooling"], stored["backbone"]) == ("pabee", "mean", str(base))
    start = stored["started_from"]
    assert (start["family"], start["exits"]) == ("pabee", "kept")
    assert start["backbone"].endswith("encoder")
    assert start["command"].startswith("eexit train")
    card = (config.output / "README.md").read_text(encoding="utf-8")
    assert f"Went on from: {base} (which was trained from {start['backbone']})" in card
    assert f"--backbone {base}" in card


def test_training_moves_them_and_a_killed_one_resumes(config: TrainConfig, tmp_path: Path) -> None:
    moving = replace(config, learning_rate=1e-3, evaluations_per_epoch=2)
    run_training(replace(moving, output=tmp_path / "whole"))
    with pytest.raises(KeyboardInterrupt):
        run_training(moving, progress=Listener(3))
    run_training(TrainConfig(output=config.output, results_dir=config.results_dir, resume=True))
    assert config.output is not None
    assert config.backbone is not None
    whole, resumed = _weights(tmp_path / "whole"), _weights(config.output)
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)
    name = "classifiers.0.weight"
    assert not torch.allclose(whole[name], _weights(config.backbone)[name], atol=1e-5)


@pytest.mark.parametrize(
    ("names", "kept"),
    [
        ({"positive": "Positive", "negative": "negative"}, ["negative", "positive"]),
        # Numbers say nothing, so the given model's words stay.
        ({"positive": "1", "negative": "0"}, ["negative", "positive"]),
    ],
)
def test_classes_keep_the_given_models_order_and_names(
    config: TrainConfig, tmp_path: Path, names: dict[str, str], kept: list[str]
) -> None:
    data = _write(tmp_path / "d.csv", [(text, names[label]) for text, label in reviews(80)])
    result = run_training(replace(config, data_file=data))
    assert config.output is not None
    model = load_classifier(config.output)
    assert [model.config.id2label[index] for index in range(2)] == kept
    # Still: what the given model knew is what this one knows.
    assert result.document["metrics"]["accuracy_full"] == 1


def test_a_given_model_with_its_classes_the_other_way_round(
    config: TrainConfig, base: Path, tmp_path: Path
) -> None:
    turned = tmp_path / "turned"
    model = load_classifier(base)
    with torch.no_grad():
        for head in model.classifiers:
            head.weight.copy_(head.weight.flip(0))
            head.bias.copy_(head.bias.flip(0))
    model.config.id2label = {0: "positive", 1: "negative"}
    model.config.label2id = {"positive": 0, "negative": 1}
    model.save_pretrained(turned)
    for file in base.glob("*token*"):
        (turned / file.name).write_bytes(file.read_bytes())
    result = run_training(replace(config, backbone=str(turned)))
    assert config.output is not None
    assert load_classifier(config.output).config.id2label == {0: "positive", 1: "negative"}
    assert result.document["metrics"]["accuracy_full"] == 1


@pytest.mark.parametrize(
    ("names", "changes", "why"),
    [
        (("negative", "positive"), {"model": "deebert"}, "its are pabee's, deebert's"),
        (("negative", "positive"), {"pooling": "first"}, "its read the mean of all tokens"),
        (("bad", "fine", "so so"), {}, "its have 2 classes, the data 3 classes"),
        # Any order of other names would be a guess: half of the guesses start upside down.
        (("terrible", "good"), {}, r"its classes (negative, positive) are not the data's (good,"),
    ],
)
def test_exits_that_do_not_fit_are_new_and_that_is_said(
    config: TrainConfig,
    base: Path,
    tmp_path: Path,
    names: tuple[str, ...],
    changes: dict[str, Any],
    why: str,
) -> None:
    rows = [(text, names[i % len(names)]) for i, (text, _) in enumerate(reviews(90))]
    line = _said(replace(config, data_file=_write(tmp_path / "d.csv", rows), **changes))
    assert line.startswith(f"Goes on from {base}: the weights of its layers; the exits are new")
    assert why in line
    assert config.output is not None
    before, after = _weights(base), _weights(config.output)
    for name, value in before.items():
        if name.startswith("backbone."):
            torch.testing.assert_close(after[name], value, rtol=0, atol=1e-6)
    assert not torch.equal(after["poolers.0.dense.weight"], before["poolers.0.dense.weight"])
    stored = json.loads((config.output / "config.json").read_text(encoding="utf-8"))
    assert stored["training"]["started_from"]["exits"] == "new"
    card = (config.output / "README.md").read_text(encoding="utf-8")
    assert "its layers with new exits" in card


def test_a_registered_name_is_a_backbone(
    config: TrainConfig, base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EEXIT_MODELS_DIR", str(base.parent))
    assert _said(replace(config, backbone="base")).startswith("Goes on from base: its weights")
    with pytest.raises(MissingArtifactError) as caught:
        run_training(replace(config, backbone="bsae", output=Path("other")))
    assert (caught.value.hint or "").startswith("Did you mean base?")


def test_the_bundled_models_name_their_family_and_are_no_output(config: TrainConfig) -> None:
    from eexit_cli.families.training_source import settled

    for name, pooling in (("deebert", "mean"), ("pabee", "mean"), ("calm", None)):
        found = settled(replace(config, backbone=name))
        assert (found.model, found.pooling) == (name, pooling)
        plain = TrainConfig(backbone=name, output=Path("x")).completed()
        task = "pronunciation" if name == "calm" else "movie-reviews"
        assert settled(plain).task == task
        with pytest.raises(UsageError, match="is the name of a model already"):
            run_training(replace(config, backbone=name, output=Path(name)))
    assert settled(replace(config, backbone=None)).model == "deebert"
    with pytest.raises(UsageError, match="already holds a model"):
        run_training(replace(config, output=Path(str(config.backbone))))


@pytest.mark.parametrize(
    ("backbone", "model", "words", "repair"),
    [
        ("calm", "deebert", "'calm' writes text", "--model calm"),
        ("deebert", "calm", "'deebert' is a classifier", "--model deebert"),
    ],
)
def test_a_registered_model_of_the_other_kind_says_so(
    config: TrainConfig, backbone: str, model: str, words: str, repair: str
) -> None:
    with pytest.raises(UsageError, match=words) as caught:
        run_training(replace(config, backbone=backbone, model=model))
    assert repair in (caught.value.hint or "")
    assert "hf download" not in (caught.value.hint or "")
    assert config.output is not None
    assert not config.output.with_name("model.training").exists()


def test_a_decoder_goes_on_without_its_classifiers(tmp_path: Path) -> None:
    given = save_decoder(tmp_path / "given", classifiers=("mlp",))
    listener = Listener()
    result = run_training(
        TrainConfig(
            backbone=str(given),
            limit=16,
            validation_limit=4,
            epochs=1,
            learning_rate=STILL,
            weight_decay=0.0,
            task="pronunciation",
            output=tmp_path / "model",
            results_dir=tmp_path / "results",
            device="cpu",
        ),
        progress=listener,
    )
    assert result.document["config"]["model"] == "calm"
    assert f"Goes on from {given}: the weights of all its layers" in listener.messages
    assert any("Left out: the classifiers mlp" in line for line in listener.messages)
    before, after = _weights(given), _weights(tmp_path / "model")
    assert {name for name in before if not name.startswith("cm_heads.")} == after.keys()
    for name, value in after.items():
        torch.testing.assert_close(value, before[name], rtol=0, atol=1e-5)
