"""The decoding loop against transformers' generate and against a decoder without any cache."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from seq2seq_tiny import (
    MEASURES,
    V10,
    V11,
    Reference,
    balanced_threshold,
    exiting,
    plain,
    sources,
    tiny_t5,
)

from eexit_cli.confidence.decoder import build_measure
from eexit_cli.core.errors import UsageError
from eexit_cli.exits.decay import TokenThreshold
from eexit_cli.models.decoding.settings import DecodeSettings
from eexit_cli.models.t5.model import MultiExitT5

VARIANTS = [
    pytest.param(V10, id="v1.0 tied relu"),
    pytest.param(V11, id="v1.1 untied gated"),
    pytest.param({**V10, "num_layers": 4, "num_decoder_layers": 2}, id="deeper encoder"),
    pytest.param({**V11, "num_layers": 1, "num_decoder_layers": 5}, id="deeper decoder"),
    pytest.param({**V10, "feed_forward_proj": "gated-silu"}, id="gated silu tied"),
    pytest.param({**V10, "d_kv": 6, "num_heads": 3}, id="inner width not d"),
]


def generated(
    model: MultiExitT5, ids: torch.Tensor, mask: torch.Tensor | None, tokens: int
) -> list[list[int]]:
    """transformers' greedy tokens, cut after the end token.

    Without the cache: transformers 4.57 fails with it when the decoder is deeper.
    """
    rows = model.generate(
        input_ids=ids,
        attention_mask=mask if mask is not None else torch.ones_like(ids),
        max_new_tokens=tokens,
        do_sample=False,
        num_beams=1,
        use_cache=False,
    )[:, 1:].tolist()
    ends = model.config.end_tokens
    return [
        row[: next((at + 1 for at, token in enumerate(row) if token in ends), len(row))]
        for row in rows
    ]


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("batch", [1, 2, 7])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=["float64", "float32"])
def test_full_depth_equals_generate(
    variant: dict[str, Any], batch: int, dtype: torch.dtype
) -> None:
    model = tiny_t5(batch, dtype=dtype, classifiers=False, **variant)
    ids, mask = sources(batch, seed=batch)
    expected = generated(model, ids, mask, 14)
    out = model.decode(ids, mask, DecodeSettings(max_new_tokens=14))
    assert [sample.tokens for sample in out.samples] == expected
    assert all(set(sample.exit_layers) == {model.depth} for sample in out.samples)
    assert all(math.isnan(c) for sample in out.samples for c in sample.confidences)
    strict = DecodeSettings(
        max_new_tokens=14, measure=build_measure("softmax"), rule=TokenThreshold(1.0)
    )
    assert plain(model.decode(ids, mask, strict).samples) == plain(out.samples)


def test_outputs_vary_so_that_the_comparison_says_something() -> None:
    model = tiny_t5(0, classifiers=False)
    ids, mask = sources(7)
    samples = model.decode(ids, mask, DecodeSettings(max_new_tokens=14)).samples
    assert len({tuple(sample.tokens) for sample in samples}) == 7
    assert len({token for sample in samples for token in sample.tokens}) > 15


def test_without_a_mask_and_without_padding() -> None:
    model = tiny_t5(3, classifiers=False)
    ids, _ = sources(3, seed=4)
    ids = ids.clamp_min(2)
    expected = generated(model, ids, None, 9)
    for mask in (None, torch.ones_like(ids)):
        out = model.decode(ids, mask, DecodeSettings(max_new_tokens=9))
        assert [sample.tokens for sample in out.samples] == expected


def test_rows_end_at_different_times_and_batches_shrink() -> None:
    """With several ends the batch is compacted again and again; the order stays."""
    model = tiny_t5(5, classifiers=False, eos_token_id=[1, 3, 7, 12, 20, 33, 41])
    ids, mask = sources(12, seed=1)
    expected = generated(model, ids, mask, 20)
    assert len({len(row) for row in expected}) > 3
    out = model.decode(ids, mask, DecodeSettings(max_new_tokens=20))
    assert [sample.tokens for sample in out.samples] == expected
    assert out.counts.tokens == sum(map(len, expected))
    assert out.counts.layer_tokens == out.counts.tokens * model.depth


@pytest.mark.parametrize("measure", MEASURES)
@pytest.mark.parametrize("variant", VARIANTS[:2])
def test_early_exit_follows_the_definitions(measure: str, variant: dict[str, Any]) -> None:
    model = tiny_t5(1, **variant)
    ids, mask = sources(4, seed=2)
    threshold = balanced_threshold(model, measure, ids, mask)
    out = model.decode(ids, mask, exiting(model, measure, threshold))
    layers = [layer for sample in out.samples for layer in sample.exit_layers]
    assert len(set(layers)) > 1, "the threshold separates nothing"
    for row, sample in enumerate(out.samples):
        source = ids[row, : int(mask[row].sum())]
        reference = Reference(model, measure, lambda position: threshold).run(source, 12)
        assert sample.tokens == reference.tokens
        assert sample.exit_layers == reference.exit_layers
        assert sample.confidences == pytest.approx(reference.confidences, abs=1e-4, nan_ok=True)


@pytest.mark.parametrize("measure", MEASURES)
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=["float64", "float32"])
def test_a_batch_equals_its_rows_alone(measure: str, dtype: torch.dtype) -> None:
    model = tiny_t5(2, dtype=dtype, eos_token_id=[1, 4])
    ids, mask = sources(32, seed=3)
    threshold = balanced_threshold(model, measure, ids, mask)
    together = exiting(model, measure, threshold, 8)
    batch = model.decode(ids, mask, together).samples
    alone = [
        model.decode(ids[row : row + 1], mask[row : row + 1], together).samples[0]
        for row in range(32)
    ]
    assert plain(batch) == plain(alone)
    for one, other in zip(batch, alone, strict=True):
        assert one.confidences == pytest.approx(other.confidences, abs=1e-4, nan_ok=True)


@pytest.mark.parametrize("measure", MEASURES)
@pytest.mark.parametrize("batch", [1, 5])
def test_lazy_filling_equals_immediate_filling(measure: str, batch: int) -> None:
    model = tiny_t5(4)
    ids, mask = sources(batch, seed=5)
    threshold = balanced_threshold(model, measure, ids, mask)
    lazy = model.decode(ids, mask, exiting(model, measure, threshold))
    immediate = model.decode(ids, mask, exiting(model, measure, threshold, filling="immediate"))
    assert plain(lazy.samples) == plain(immediate.samples)
    skipped = sum(model.depth - layer for sample in lazy.samples for layer in sample.exit_layers)
    assert immediate.counts.filled == skipped
    assert 0 < lazy.counts.filled <= skipped
    assert lazy.counts.layer_tokens == sum(sum(s.exit_layers) for s in lazy.samples)


@settings(max_examples=25)
@given(
    seed=st.integers(0, 10_000),
    batch=st.integers(1, 5),
    threshold=st.floats(0, 1),
    measure=st.sampled_from(["softmax", "saturation", "mlp"]),
    min_layer=st.integers(1, 4),
)
def test_any_threshold_fills_alike_and_respects_the_minimum(
    seed: int, batch: int, threshold: float, measure: str, min_layer: int
) -> None:
    model = MODELS[seed % len(MODELS)]
    ids, mask = sources(batch, seed=seed)
    lazy, immediate = (
        model.decode(
            ids,
            mask,
            exiting(model, measure, threshold, 8, min_layer=min_layer, filling=filling),
        ).samples
        for filling in ("lazy", "immediate")
    )
    assert plain(lazy) == plain(immediate)
    for sample in lazy:
        assert min(sample.exit_layers) >= min_layer
        left = [
            confidence
            for confidence, layer in zip(sample.confidences, sample.exit_layers, strict=True)
            if layer < model.depth
        ]
        assert all(confidence > threshold for confidence in left)


MODELS = [tiny_t5(seed) for seed in range(3)]


def test_minimum_layer_follows_the_definitions() -> None:
    model = tiny_t5(6)
    ids, mask = sources(3, seed=6)
    threshold = balanced_threshold(model, "mlp", ids, mask)
    out = model.decode(ids, mask, exiting(model, "mlp", threshold, min_layer=3))
    for row, sample in enumerate(out.samples):
        source = ids[row, : int(mask[row].sum())]
        reference = Reference(model, "mlp", lambda position: threshold, min_layer=3)
        assert plain([sample]) == [(reference.run(source, 12).tokens, reference.exit_layers)]


@pytest.mark.parametrize("form", ["paper", "code"])
@pytest.mark.parametrize("batch", [1, 4])
def test_a_decaying_threshold_follows_the_formula(form: str, batch: int) -> None:
    model = tiny_t5(7)
    ids, mask = sources(batch, seed=7)
    base, tau, length = 0.3, 4.0, 12
    formulas = {
        "paper": lambda t: 0.9 * base + 0.1 * math.exp(-tau * t / length),
        "code": lambda t: base * (0.9 + 0.1 * math.exp(-tau * (t + 1) / length)),
    }
    rule = TokenThreshold(base, temperature=tau, max_length=length, form=form)
    out = model.decode(
        ids,
        mask,
        DecodeSettings(max_new_tokens=length, measure=build_measure("softmax"), rule=rule),
    )
    for row, sample in enumerate(out.samples):
        source = ids[row, : int(mask[row].sum())]
        reference = Reference(model, "softmax", formulas[form]).run(source, length)
        assert plain([sample]) == [(reference.tokens, reference.exit_layers)]


@pytest.mark.parametrize("layer", [1, 2, 3, 4])
@pytest.mark.parametrize("batch", [1, 5])
def test_a_static_exit_is_a_shallower_model(layer: int, batch: int) -> None:
    model = tiny_t5(8)
    ids, mask = sources(batch, seed=8)
    out = model.decode(ids, mask, DecodeSettings(max_new_tokens=10, static_layer=layer))
    shallow = tiny_t5(8)
    shallow.decoder.block = shallow.decoder.block[:layer]
    assert [sample.tokens for sample in out.samples] == generated(shallow, ids, mask, 10)
    assert all(set(sample.exit_layers) == {layer} for sample in out.samples)
    assert out.counts.layer_tokens == layer * out.counts.tokens
    assert out.counts.filled == 0


def test_packed_and_plain_products_agree_on_a_model_that_packs() -> None:
    """Large enough for oneDNN's packed products where they are available."""
    model = tiny_t5(
        9, dtype=torch.float32, classifiers=False, d_model=512, d_kv=64, num_heads=8, d_ff=512,
        vocab_size=600, num_layers=1, num_decoder_layers=2,
    )  # fmt: skip
    ids, mask = sources(6, vocabulary=600)
    packed, unpacked = (
        model.decode(ids, mask, DecodeSettings(max_new_tokens=6, packed=choice)).samples
        for choice in (True, False)
    )
    assert plain(packed) == plain(unpacked)
    assert [sample.tokens for sample in packed] == generated(model, ids, mask, 6)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_decodes(dtype: torch.dtype) -> None:
    model = tiny_t5(10).to(dtype)
    ids, mask = sources(4)
    for batch in (1, 4):
        out = model.decode(ids[:batch], mask[:batch], exiting(model, "mlp", 0.5))
        assert all(0 <= token < 50 for sample in out.samples for token in sample.tokens)


def test_weights_that_change_are_seen() -> None:
    model = tiny_t5(11, classifiers=False)
    ids, mask = sources(2)
    before = model.decode(ids, mask, DecodeSettings(max_new_tokens=8)).samples
    with torch.no_grad():
        model.decoder.block[1].layer[2].DenseReluDense.wo.weight.mul_(-3)
    after = model.decode(ids, mask, DecodeSettings(max_new_tokens=8)).samples
    assert plain(before) != plain(after)
    assert [sample.tokens for sample in after] == generated(model, ids, mask, 8)


def test_timings_only_when_asked() -> None:
    model = tiny_t5(12)
    ids, mask = sources(3)
    threshold = balanced_threshold(model, "softmax", ids, mask)
    silent = model.decode(ids, mask, exiting(model, "softmax", threshold))
    assert silent.timings is None
    timed = model.decode(ids, mask, exiting(model, "softmax", threshold, timings=True))
    assert plain(timed.samples) == plain(silent.samples)
    timings = timed.timings
    assert timings is not None
    assert timings.encoder > 0
    assert timings.head > 0
    assert timings.filling > 0
    assert all(seconds > 0 for seconds in timings.layers)
    assert all(seconds > 0 for seconds in timings.confidence[:-1])
    assert timings.confidence[-1] == 0
    as_dict = timings.as_dict()
    assert as_dict["layers_seconds"] == pytest.approx(sum(timings.layers))
    assert as_dict["confidence_seconds_by_layer"] == timings.confidence


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"static_layer": 0}, "Static layer 0 is outside 1..4"),
        ({"static_layer": 5}, "Static layer 5 is outside 1..4"),
        ({"min_layer": 5}, "Minimum exit layer 5 is outside 1..4"),
        ({"max_new_tokens": 0}, "0 new tokens"),
        ({"top_k": 10}, "Top-k propagation is for softmax response"),
    ],
)
def test_settings_outside_the_model_are_usage_errors(changes: dict[str, Any], said: str) -> None:
    model = tiny_t5(0, classifiers=False)
    ids, mask = sources(2)
    with pytest.raises(UsageError) as caught:
        model.decode(ids, mask, DecodeSettings(**changes))
    assert said in caught.value.message
    assert caught.value.hint


@pytest.mark.parametrize("top_k", [-1, 0, 1, 51])
def test_top_k_outside_its_range(top_k: int) -> None:
    model = tiny_t5(0)
    ids, mask = sources(2)
    with pytest.raises(UsageError, match=r"outside 2\.\.50"):
        model.decode(ids, mask, exiting(model, "softmax", 0.5, top_k=top_k))


@pytest.mark.parametrize("measure", ["saturation", "linear", "transformer_mlp_64"])
def test_top_k_with_another_measure_is_refused(measure: str) -> None:
    model = tiny_t5(0)
    ids, mask = sources(2)
    with pytest.raises(UsageError, match=f"not for '{measure}'"):
        model.decode(ids, mask, exiting(model, measure, 0.5, top_k=10))


def test_a_static_layer_beside_a_measure_is_refused() -> None:
    model = tiny_t5(0)
    ids, mask = sources(2)
    with pytest.raises(UsageError, match="leaves no choice"):
        model.decode(ids, mask, exiting(model, "softmax", 0.5, static_layer=2))


def test_an_empty_source_is_refused() -> None:
    model = tiny_t5(0, classifiers=False)
    ids, mask = sources(3)
    mask[1] = 0
    with pytest.raises(UsageError, match="Source 2 of the batch has no tokens"):
        model.decode(ids, mask)
    with pytest.raises(UsageError, match="no tokens"):
        model.decode(ids[:, :0], None)


def test_a_measure_without_a_rule_is_a_mistake() -> None:
    model = tiny_t5(0, classifiers=False)
    ids, mask = sources(2)
    with pytest.raises(ValueError, match="go together"):
        model.decode(ids, mask, DecodeSettings(measure=build_measure("softmax")))
    with pytest.raises(ValueError, match="eval mode"):
        model.train().decode(ids, mask)
