"""New exits on a pretrained encoder: its weights exactly, nothing of it random."""

from __future__ import annotations

import json

import pytest
import torch
from models_tiny import (
    HIDDEN,
    bert_shapes,
    deebert_shapes,
    published_config,
    random_batch,
    random_model,
    random_tensors,
    tiny_backbone,
    write_checkpoint,
)
from transformers import AutoConfig, AutoModel, AutoModelForMaskedLM

from eexit_cli.core.errors import EexitError, MissingArtifactError, UsageError
from eexit_cli.models import BACKBONES
from eexit_cli.models.encoder.pretrained import initialise_from_backbone

SETTINGS = {"family": "deebert", "pooling": "first", "num_labels": 2, "seed": 1}


def encoder(folder, model_type, kind=AutoModel):
    """An encoder saved by transformers itself."""
    torch.manual_seed(3)
    settings = tiny_backbone(model_type)
    model = kind.from_config(AutoConfig.for_model(settings.pop("model_type"), **settings))
    model.save_pretrained(folder)
    return model.eval()


@pytest.mark.parametrize("kind", [AutoModel, AutoModelForMaskedLM])
@pytest.mark.parametrize("model_type", list(BACKBONES))
def test_the_encoder_is_the_pretrained_one(tmp_path, model_type, kind):
    """Bare, and inside a model with a pretraining head, which is left out."""
    original = encoder(tmp_path / "backbone", model_type, kind)
    inner = original if kind is AutoModel else getattr(original, original.base_model_prefix)
    model = initialise_from_backbone(str(tmp_path / "backbone"), **SETTINGS)
    batch = random_batch([6, 3])
    with torch.no_grad():
        state = inner(**batch).last_hidden_state[:, 0]
        pooled = torch.tanh(model.poolers[-1].dense(state))
        expected = model.classifiers[-1](pooled)
        torch.testing.assert_close(model(**batch).logits[:, -1], expected, rtol=1e-4, atol=1e-6)
    for name, value in model.backbone.state_dict().items():
        assert torch.equal(value, inner.state_dict()[name]), name


@pytest.mark.parametrize("family", ["deebert", "pabee"])
@pytest.mark.parametrize("model_type", ["bert", "albert"])
def test_first_token_poolers_start_from_the_pretrained_one(tmp_path, model_type, family):
    original = encoder(tmp_path / "backbone", model_type)
    pooler = BACKBONES.load(model_type).pooler_dense(original)
    model = initialise_from_backbone(str(tmp_path / "backbone"), **(SETTINGS | {"family": family}))
    assert len(model.poolers) == (3 if family == "deebert" else 1)
    for head in model.poolers:
        assert torch.equal(head.dense.weight, pooler.weight)
        assert torch.equal(head.dense.bias, pooler.bias)


def test_mean_poolers_start_orthogonal_and_apart(tmp_path):
    encoder(tmp_path / "backbone", "bert")
    model = initialise_from_backbone(str(tmp_path / "backbone"), **(SETTINGS | {"pooling": "mean"}))
    weights = [head.dense.weight.detach() for head in model.poolers]
    for weight in weights:
        torch.testing.assert_close(weight @ weight.T, torch.eye(HIDDEN), rtol=0, atol=1e-5)
    assert not torch.allclose(weights[0], weights[1])
    assert model.config.pooling == "mean"


@pytest.mark.parametrize("model_type", ["distilbert", "electra"])
def test_without_a_pretrained_pooler_a_small_random_one(tmp_path, model_type):
    encoder(tmp_path / "backbone", model_type)
    model = initialise_from_backbone(str(tmp_path / "backbone"), **SETTINGS)
    weights = torch.cat([head.dense.weight.detach().flatten() for head in model.poolers])
    assert float(weights.std()) == pytest.approx(0.02, rel=0.1)
    assert not any(head.dense.bias.any() for head in model.poolers)


def test_the_seed_decides_the_heads_and_nothing_else_does(tmp_path):
    encoder(tmp_path / "backbone", "bert")
    state = torch.random.get_rng_state()
    first = initialise_from_backbone(str(tmp_path / "backbone"), **SETTINGS)
    assert torch.equal(state, torch.random.get_rng_state())
    torch.manual_seed(99)
    second = initialise_from_backbone(str(tmp_path / "backbone"), **SETTINGS)
    other = initialise_from_backbone(str(tmp_path / "backbone"), **(SETTINGS | {"seed": 2}))
    for name, value in first.state_dict().items():
        assert torch.equal(value, second.state_dict()[name]), name
        assert torch.equal(value, other.state_dict()[name]) == (
            "classifiers" not in name or "bias" in name
        )
    rows = torch.cat([head.weight.detach().flatten() for head in first.classifiers])
    assert float(rows.std()) == pytest.approx(0.02, rel=0.2)


def test_labels_are_written_into_the_configuration(tmp_path):
    encoder(tmp_path / "backbone", "bert")
    settings = SETTINGS | {"num_labels": 3, "label_names": ["no", "maybe", "yes"]}
    model = initialise_from_backbone(str(tmp_path / "backbone"), **settings)
    assert model.config.id2label == {0: "no", 1: "maybe", 2: "yes"}
    assert model.config.label2id == {"no": 0, "maybe": 1, "yes": 2}
    assert model.num_classes == 3
    regression = initialise_from_backbone(
        str(tmp_path / "backbone"), **(SETTINGS | {"num_labels": 1})
    )
    assert regression.num_classes == 1
    with pytest.raises(UsageError, match="3 label names for 2 classes"):
        initialise_from_backbone(
            str(tmp_path / "backbone"), **(SETTINGS | {"label_names": ["a", "b", "c"]})
        )


def test_googles_original_names_of_norms_are_known(tmp_path):
    tensors = random_tensors(bert_shapes("bert", 3))
    old = {
        name.replace("LayerNorm.weight", "LayerNorm.gamma").replace(
            "LayerNorm.bias", "LayerNorm.beta"
        ): value
        for name, value in tensors.items()
    } | {"cls.predictions.bias": torch.zeros(60)}
    folder = write_checkpoint(tmp_path / "model", published_config("bert", 3), old)
    model = initialise_from_backbone(str(folder), **SETTINGS)
    name = "encoder.layer.1.output.LayerNorm.weight"
    assert torch.equal(model.backbone.state_dict()[name], tensors[f"bert.{name}"])


def test_a_sentence_transformers_folder_is_a_backbone(tmp_path):
    """Bare names, a position buffer, and files of its own beside."""
    tensors = {
        name.removeprefix("bert."): value
        for name, value in random_tensors(bert_shapes("bert", 3)).items()
    } | {"embeddings.position_ids": torch.arange(40)[None]}
    folder = write_checkpoint(tmp_path / "model", published_config("bert", 3), tensors)
    (folder / "modules.json").write_text("[]")
    (folder / "1_Pooling").mkdir()
    model = initialise_from_backbone(str(folder), **SETTINGS)
    assert torch.equal(model.poolers[0].dense.weight, tensors["pooler.dense.weight"])


def test_every_missing_tensor_of_the_encoder_is_an_error_apart_from_the_pooler(tmp_path):
    shapes = bert_shapes("bert", 2)
    config = published_config("bert", 2)
    tensors = random_tensors(shapes)
    for name in tensors:
        rest = {key: value for key, value in tensors.items() if key != name}
        folder = write_checkpoint(tmp_path / "model", config, rest)
        if "pooler" in name:
            model = initialise_from_backbone(str(folder), **SETTINGS)
            assert torch.isfinite(model.poolers[0].dense.weight).all()
            continue
        with pytest.raises(EexitError, match="1 missing") as caught:
            initialise_from_backbone(str(folder), **SETTINGS)
        assert name.removeprefix("bert.") in caught.value.message


@pytest.mark.parametrize("wrong", ["pooler.dense.weight", "encoder.layer.0.output.dense.bias"])
def test_mis_shaped_tensors_are_errors(tmp_path, wrong):
    tensors = random_tensors(bert_shapes("bert", 2))
    tensors[f"bert.{wrong}"] = torch.zeros(3, 3)
    folder = write_checkpoint(tmp_path / "model", published_config("bert", 2), tensors)
    with pytest.raises(EexitError, match=r"\[3, 3\]"):
        initialise_from_backbone(str(folder), **SETTINGS)


def test_what_is_no_plain_encoder_is_refused(tmp_path):
    random_model(dtype=torch.float32).save_pretrained(tmp_path / "ours")
    with pytest.raises(UsageError, match="already has exits"):
        initialise_from_backbone(str(tmp_path / "ours"), **SETTINGS)
    deebert = write_checkpoint(
        tmp_path / "deebert", published_config("bert", 2), random_tensors(deebert_shapes("bert", 2))
    )
    with pytest.raises(EexitError, match=r"unexpected: encoder\.highway"):
        initialise_from_backbone(str(deebert), **SETTINGS)
    (tmp_path / "gpt").mkdir()
    (tmp_path / "gpt" / "config.json").write_text(json.dumps({"model_type": "gpt2"}))
    with pytest.raises(UsageError, match="Unknown backbone 'gpt2'"):
        initialise_from_backbone(str(tmp_path / "gpt"), **SETTINGS)
    with pytest.raises(MissingArtifactError):
        initialise_from_backbone(str(tmp_path / "nothing"), **SETTINGS)
