"""Going on from a model with exits: its weights exactly; its exits where they fit."""

from __future__ import annotations

import pytest
import torch
from models_tiny import (
    deebert_shapes,
    pabee_shapes,
    published_config,
    random_batch,
    random_model,
    random_tensors,
    write_checkpoint,
)

from eexit_cli.models.encoder.continued import continue_from, why_new_exits
from eexit_cli.models.encoder.conversion import load_classifier

ASKED = {"family": "deebert", "pooling": "first", "num_labels": 2}


def given(**settings):
    return random_model(dtype=torch.float32, **settings)


@pytest.mark.parametrize("family", ["deebert", "pabee"])
@pytest.mark.parametrize("pooling", ["first", "mean"])
def test_kept_exits_answer_as_before_and_nothing_else_goes_on(family, pooling):
    old = given(
        family=family,
        pooling=pooling,
        exit_defaults={"criterion": "patience", "patience": 1},
        task="sst2",
        training={"backbone": "somewhere"},
    )
    asked = {"family": family, "pooling": pooling, "num_labels": 2}
    assert why_new_exits(old, **asked) is None
    model = continue_from(
        old, **asked, seed=1, head_dropout=0.3, label_names=["no", "yes"], new_exits=False
    )
    batch = random_batch([6, 3])
    with torch.no_grad():
        assert torch.equal(model(**batch).logits, old(**batch).logits)
    assert model.dropout.p == 0.3
    assert model.config.id2label == {0: "no", 1: "yes"}
    assert (model.config.exit_defaults, model.config.task, model.config.training) == ({}, None, {})
    # A copy: training the one must not move the other.
    with torch.no_grad():
        model.word_embeddings.weight.add_(1)
    assert not torch.equal(model.word_embeddings.weight, old.word_embeddings.weight)


@pytest.mark.parametrize(
    ("asked", "why"),
    [
        ({"family": "pabee"}, "its are deebert's, pabee's are asked for"),
        ({"num_labels": 3}, "its have 2 classes, the data 3 classes"),
        ({"num_labels": 1}, "its have 2 classes, the data one value"),
        ({"pooling": "mean"}, "its read the first token, those asked for the mean of all tokens"),
    ],
)
def test_exits_that_do_not_fit_are_new_and_the_layers_stay(asked, why):
    old = given()
    settings = {**ASKED, **asked}
    assert why_new_exits(old, **settings) == why
    model = continue_from(old, **settings, seed=1, new_exits=True)
    again = continue_from(old, **settings, seed=1, new_exits=True)
    for name, value in old.backbone.state_dict().items():
        assert torch.equal(model.backbone.state_dict()[name], value), name
    for name, value in model.state_dict().items():
        assert torch.equal(again.state_dict()[name], value), name
    assert model.num_classes == settings["num_labels"]
    assert (
        float(model.classifiers[0].weight.detach().std()) < 0.05
    )  # BERT's 0.02; the old ones have 0.5
    kept = torch.equal(model.poolers[0].dense.weight, old.poolers[-1].dense.weight)
    assert kept is (settings["pooling"] == "first")


@pytest.mark.parametrize(
    ("family", "shapes"), [("deebert", deebert_shapes), ("pabee", pabee_shapes)]
)
def test_published_layouts_go_on(tmp_path, family, shapes):
    tensors = random_tensors(shapes("bert", 2))
    folder = write_checkpoint(tmp_path / "model", published_config("bert", 2), tensors)
    old = load_classifier(folder)
    asked = {"family": family, "pooling": "first", "num_labels": 2}
    model = continue_from(old, **asked, seed=1, new_exits=False)
    assert model.state_dict().keys() == old.state_dict().keys()
    assert all(torch.equal(model.state_dict()[name], old.state_dict()[name]) for name in tensors
               if name in old.state_dict())  # fmt: skip
    assert (model.last_ramp is not None) is (family == "deebert")
    model.save_pretrained(tmp_path / "saved")
    again = load_classifier(tmp_path / "saved")
    batch = random_batch([5, 2])
    with torch.no_grad():
        assert torch.equal(again(**batch).logits, old(**batch).logits)
    other = continue_from(old, **{**asked, "num_labels": 3}, seed=1, new_exits=True)
    assert other.last_ramp is None
