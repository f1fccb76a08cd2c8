"""What every row of the backbone table must do; a new row is tested without an edit."""

from __future__ import annotations

import pytest
import torch
from transformers import AutoConfig, AutoModel

from eexit_cli.exits.static import StaticExit
from eexit_cli.models import BACKBONES
from eexit_cli.models.encoder.backbones import Backbone, backbone_for
from eexit_cli.models.encoder.model import MultiExitClassifier, MultiExitConfig

TINY = {
    "hidden_size": 16,
    "num_hidden_layers": 3,
    "num_attention_heads": 2,
    "intermediate_size": 32,
    "vocab_size": 60,
    "max_position_embeddings": 40,
    "embedding_size": 8,
    "pad_token_id": 1,
}


@pytest.fixture(params=list(BACKBONES))
def model_type(request):
    return request.param


@pytest.fixture
def model(model_type):
    torch.manual_seed(0)
    config = MultiExitConfig(backbone={"model_type": model_type, **TINY})
    model = MultiExitClassifier(config).double().eval()
    with torch.no_grad():
        for value in model.parameters():
            value.add_(torch.randn_like(value) * 0.2)
    return model


@pytest.fixture
def batch():
    ids = torch.randint(2, 60, (3, 9), generator=torch.Generator().manual_seed(1))
    mask = (torch.arange(9) < torch.tensor([9, 4, 6])[:, None]).long()
    return {"input_ids": torch.where(mask.bool(), ids, 1), "attention_mask": mask}


def test_the_row_is_found_by_transformers_own_name(model_type):
    row = BACKBONES.load(model_type)
    assert isinstance(row, Backbone)
    assert row.model_type == model_type
    assert backbone_for(AutoConfig.for_model(model_type)) is row


def test_layers_run_one_by_one_give_transformers_own_hidden_states(model, model_type, batch):
    inner = AutoModel.from_config(model.config.backbone_config(), attn_implementation="eager")
    inner.double().eval()
    incomplete = inner.load_state_dict(model.backbone.state_dict(), strict=False)
    assert not incomplete.unexpected_keys
    assert all("pooler" in name for name in incomplete.missing_keys)
    with torch.no_grad():
        expected = inner(**batch, output_hidden_states=True).hidden_states
        row = model.adapter
        hidden = row.embed(model.backbone, input_ids=batch["input_ids"])
        mask = row.mask(batch["attention_mask"], hidden.dtype)
        aux = row.aux(model.backbone, hidden)
        states = []
        for index in range(row.num_layers(model.backbone.config)):
            hidden = row.run_layer(model.backbone, index, hidden, mask, aux)
            states.append(hidden)
    assert len(states) == len(expected) - 1 == TINY["num_hidden_layers"]
    kept = batch["attention_mask"].bool()
    for state, reference in zip(states, expected[1:], strict=True):
        torch.testing.assert_close(state[kept], reference[kept], rtol=0, atol=1e-9)


def test_word_embeddings_can_replace_ids(model, batch):
    with torch.no_grad():
        vectors = model.word_embeddings(batch["input_ids"])
        by_ids = model(**batch).logits
        by_vectors = model(inputs_embeds=vectors, attention_mask=batch["attention_mask"]).logits
    torch.testing.assert_close(by_vectors, by_ids, rtol=0, atol=1e-9)


def test_every_parameter_of_every_exit_is_trained(model, batch):
    model.train()
    model(**batch).logits.square().sum().backward()
    untouched = [name for name, value in model.named_parameters() if value.grad is None]
    assert untouched == []


def test_a_live_exit_equals_the_same_layer_of_the_full_pass(model, batch):
    with torch.no_grad():
        logits = model(**batch).logits
    for layer in range(1, model.num_exits + 1):
        live = model.infer(**batch, criterion=StaticExit(layer))
        torch.testing.assert_close(live.logits, logits[:, layer - 1], rtol=0, atol=1e-9)
        assert live.exit_layers.tolist() == [layer] * 3


def test_the_longest_input_fits_and_a_longer_one_does_not(model):
    longest = torch.full((1, model.max_tokens), 5)
    with torch.no_grad():
        assert torch.isfinite(model(longest).logits).all()
        with pytest.raises((IndexError, RuntimeError)):
            model(torch.full((1, model.max_tokens + 1), 5))


def test_the_pretrained_pooler_is_found_where_there_is_one(model_type):
    inner = AutoModel.from_config(AutoConfig.for_model(model_type, **TINY))
    pooler = BACKBONES.load(model_type).pooler_dense(inner)
    has_one = any("pooler" in name for name in inner.state_dict())
    assert (pooler is not None) == has_one
    if pooler is not None:
        assert pooler.weight.shape == (TINY["hidden_size"], TINY["hidden_size"])
