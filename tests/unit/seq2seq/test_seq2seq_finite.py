"""A decoder whose logits or confidences are NaN or infinite writes nothing."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from seq2seq_tiny import V11, exiting, sources, tiny_t5

from eexit_cli.core.errors import NotFiniteError
from eexit_cli.models.decoding.settings import DecodeSettings
from eexit_cli.models.t5.model import MultiExitT5


def decode_in_all_ways(model: MultiExitT5, settings: DecodeSettings) -> None:
    ids, mask = sources(5, seed=1)
    ways: list[Any] = [
        lambda: model.decode(ids, mask, settings),
        lambda: model.decode(ids[:1], mask[:1], settings),
    ]
    if settings.shallow_layer is None:
        batches = [{"input_ids": ids, "attention_mask": mask}] * 2
        ways.append(lambda: model.decode_many(batches, settings))
    for way in ways:
        with pytest.raises(NotFiniteError, match="not finite"):
            way()


@pytest.mark.parametrize("value", [math.nan, math.inf])
@pytest.mark.parametrize(
    "weight",
    ["lm_head.weight", "decoder.final_layer_norm.weight", "encoder.final_layer_norm.weight"],
)
def test_the_full_model(weight: str, value: float) -> None:
    model = tiny_t5(1, classifiers=False, **V11)
    with torch.no_grad():
        dict(model.named_parameters())[weight].flatten()[3] = value
    decode_in_all_ways(model, DecodeSettings(max_new_tokens=5))
    decode_in_all_ways(model, DecodeSettings(max_new_tokens=5, static_layer=2))


@pytest.mark.parametrize("measure", ["mlp", "transformer_mlp_64"])
def test_a_broken_classifier_does_not_pass_as_unsure(measure: str) -> None:
    model = tiny_t5(1)
    with torch.no_grad():
        for parameter in model.cm_heads[measure].parameters():
            parameter.fill_(math.nan)
    decode_in_all_ways(model, exiting(model, measure, 0.5, 5))


@pytest.mark.parametrize("top_k", [None, 5])
def test_softmax_response(top_k: int | None) -> None:
    model = tiny_t5(1, **V11)
    with torch.no_grad():
        model.decoder.block[2].layer[2].DenseReluDense.wo.weight.fill_(math.nan)
    # The first two layers are sound: a threshold that all tokens pass there sees nothing wrong.
    ids, mask = sources(3)
    model.decode(ids, mask, exiting(model, "softmax", 0.0, 1))
    decode_in_all_ways(model, exiting(model, "softmax", 1.0, 5, top_k=top_k))


@pytest.mark.parametrize("measure", ["softmax", "saturation"])
def test_free(measure: str) -> None:
    model = tiny_t5(1, **V11)
    with torch.no_grad():
        model.decoder.block[3].layer[2].DenseReluDense.wo.weight.fill_(math.nan)
    decode_in_all_ways(model, exiting(model, measure, 1.0, 5, shallow_layer=2))
