"""Tracing, FLOPs, products and the rearranged weights, each against something independent."""

from __future__ import annotations

import copy
import gc
import pickle
import weakref
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from seq2seq_tiny import V10, V11, sources, tiny_t5
from torch.utils.flop_counter import FlopCounterMode

from eexit_cli.models.decoding.kernels import packing_is_available
from eexit_cli.models.decoding.products import Product, gelu_new
from eexit_cli.models.decoding.settings import DecodeSettings
from eexit_cli.models.decoding.tracing import trace_tokens
from eexit_cli.models.t5.flops import T5Flops
from eexit_cli.models.t5.stack import T5Stack, padding_bias, stack_of

VARIANTS = [
    pytest.param(V10, id="v1.0"),
    pytest.param(V11, id="v1.1"),
    pytest.param({"num_layers": 3, "num_decoder_layers": 2}, id="uneven"),
]


@pytest.mark.parametrize("variant", VARIANTS)
def test_a_trace_is_what_transformers_computes(variant: dict[str, Any]) -> None:
    model = tiny_t5(41, **variant)
    ids, mask = sources(3)
    labels = torch.tensor([[5, 6, 7, 1], [8, 1, -100, -100], [9, 9, 1, -100]])
    trace = trace_tokens(model, ids, mask, labels, longest=99)
    with torch.no_grad():
        out = model(input_ids=ids, attention_mask=mask, labels=labels, output_hidden_states=True)
    raw = out.decoder_hidden_states  # embeddings, raw states of layers 1..L-1, normed state of L
    norm = model.decoder.final_layer_norm
    expected = [norm(state) for state in raw[1:-1]] + [raw[-1]]
    assert trace.states.shape == (3, 4, model.depth, 32)
    for index, state in enumerate(expected):
        torch.testing.assert_close(trace.states[:, :, index], state)
    for index, state in enumerate(raw[1:-1]):
        torch.testing.assert_close(trace.residuals[:, :, index], state)
    torch.testing.assert_close(norm(trace.residuals[:, :, -1]), raw[-1])
    assert torch.equal(trace.tokens[..., -1], out.logits.argmax(-1))
    scale = 32**-0.5 if model.config.tied_head else 1.0
    first = (expected[0] * scale) @ model.lm_head.weight.T
    assert torch.equal(trace.tokens[..., 0], first.argmax(-1))
    assert torch.equal(trace.mask, labels != -100)
    assert trace.agreement[..., -1].all()
    assert torch.equal(trace.agreement[..., 0], trace.tokens[..., 0] == trace.tokens[..., -1])


def test_a_trace_of_a_decoded_output_repeats_it() -> None:
    """Teacher forcing on the full model's own tokens gives those tokens at the last layer."""
    model = tiny_t5(42)
    ids, mask = sources(1)
    tokens = model.decode(ids, mask, DecodeSettings(max_new_tokens=10)).samples[0].tokens
    trace = trace_tokens(model, ids, mask, torch.tensor([tokens]), longest=99)
    assert trace.tokens[0, :, -1].tolist() == tokens


def test_layer_states_carry_gradients_and_a_trace_does_not() -> None:
    model = tiny_t5(43)
    ids, mask = sources(2)
    labels = torch.tensor([[3, 4], [5, 1]])
    states = model.layer_states(ids, mask, model.shift_right(labels)).states
    model.exit_logits(states[0]).sum().backward()
    assert model.decoder.block[0].layer[2].DenseReluDense.wi.weight.grad is not None
    assert model.decoder.block[1].layer[2].DenseReluDense.wi.weight.grad is None
    trace = trace_tokens(model, ids, mask, labels, longest=99)
    classifier = model.cm_heads["linear"]
    assert not trace.states.requires_grad
    classifier(trace.states).sum().backward()
    assert classifier[0].weight.grad is not None


@pytest.mark.parametrize("variant", VARIANTS)
def test_flops_against_a_counter(variant: dict[str, Any]) -> None:
    # transformers 5 may choose a fused attention, which the counter does not see on the CPU
    model = tiny_t5(44, attn_implementation="eager", **variant)
    flops = T5Flops.of(model.config)
    n, ids = 7, torch.randint(2, 50, (1, 7))
    with torch.no_grad():
        with FlopCounterMode(display=False) as counted:
            encoded = model.encoder(input_ids=ids).last_hidden_state
        cross = model.depth * n * flops.fill  # keys and values of another width, same count
        assert flops.encoder(n, 0) == counted.get_total_flops()
        with FlopCounterMode(display=False) as counted:
            state = model.decoder(
                input_ids=torch.zeros(1, 1, dtype=torch.long),
                encoder_hidden_states=encoded,
                use_cache=False,
            ).last_hidden_state
        one_token = model.depth * flops.decoder_layer(0, n)
        assert one_token + cross == counted.get_total_flops()
        with FlopCounterMode(display=False) as counted:
            model.lm_head(state)
        assert flops.head() == counted.get_total_flops()


def test_flops_of_a_token() -> None:
    flops = T5Flops(8, 4, 16, False, 2, 100)
    # q, k, v, o 8 x 4; cross q, o 8 x 4; feed-forward 2 x 8 x 16; scores and values 4 per key
    layer = 2 * (4 * 32 + 2 * 32 + 256) + 4 * 4 * (3 + 5)
    assert flops.decoder_layer(2, 5) == layer
    assert flops.fill == 2 * 2 * 32
    got = flops.token(2, 2, 5, filled_layers=1, heads=2, kept_rows=10, confidence=7)
    assert got == 2 * layer + 128 + 2 * 1600 + 160 + 7
    assert flops.head(10) == 160


@pytest.mark.parametrize("shape", [(640, 512), (512, 640), (30, 20), (20, 30)])
@pytest.mark.parametrize("rows", [1, 2, 5, 33, 70, 200])
def test_products(shape: tuple[int, int], rows: int) -> None:
    generator = torch.Generator().manual_seed(rows)
    weight = torch.randn(shape, generator=generator)
    x = torch.randn(rows, shape[1], generator=generator)
    residual = torch.randn(rows, shape[0], generator=generator)
    expected = (x.double() @ weight.double().T).float()
    for pack in (True, False):
        product = Product(weight, pack=pack)
        close = {"rtol": 1e-4, "atol": 1e-3}
        with torch.inference_mode():
            torch.testing.assert_close(product(x), expected, **close)
            torch.testing.assert_close(product.add(x, residual), residual + expected, **close)
            torch.testing.assert_close(product.relu(x), expected.relu(), **close)
            out = torch.empty(rows, shape[0])
            product.into(x, out)
            torch.testing.assert_close(out, expected, **close)


def test_only_large_float32_weights_are_packed() -> None:
    large = torch.randn(512, 512)
    assert (Product(large)._packed is not None) == packing_is_available()
    assert Product(large, pack=False)._packed is None
    assert Product(large.double())._packed is None
    assert Product(torch.randn(128, 512))._packed is None


def test_gelu_new_is_transformers_formula() -> None:
    x = torch.linspace(-5, 5, 101, dtype=torch.float64)
    inner = (2 / torch.pi) ** 0.5 * (x + 0.044715 * x**3)
    torch.testing.assert_close(gelu_new(x), 0.5 * x * (1 + torch.tanh(inner)))


@pytest.mark.parametrize("variant", VARIANTS)
def test_the_encoder_is_transformers_own(variant: dict[str, Any]) -> None:
    model = tiny_t5(45, **variant)
    ids, mask = sources(4)
    with torch.no_grad():
        expected = model.encoder(input_ids=ids, attention_mask=mask).last_hidden_state
        unit = stack_of(model).encode(ids, padding_bias(mask, torch.float64))
    got = unit * (32**0.5) * model.encoder.final_layer_norm.weight
    torch.testing.assert_close(got[mask.bool()], expected[mask.bool()], rtol=1e-5, atol=1e-5)


@given(tokens=st.integers(1, 30), position=st.integers(0, 29))
def test_one_bias_table_serves_every_position(tokens: int, position: int) -> None:
    position = position % tokens
    table = WEIGHTS.bias(tokens)
    own = MODEL.decoder.block[0].layer[0].SelfAttention
    with torch.no_grad():
        expected = own.compute_bias(position + 1, position + 1)[0, :, -1]
    assert torch.equal(table[:, tokens - 1 - position :], expected)


MODEL = tiny_t5(46)
WEIGHTS = T5Stack(MODEL)


def test_skipped_layers_in_one_product() -> None:
    unit = torch.randn(3, 32, dtype=torch.float64)
    made = torch.stack(list(WEIGHTS.skipped_key_values(unit, 1, None)), dim=1)
    assert made.shape == (3, 3, 64)
    for offset, index in enumerate((1, 2, 3)):
        with torch.no_grad():
            torch.testing.assert_close(made[:, offset], WEIGHTS.decoder[index].key_value(unit))
            attention = MODEL.decoder.block[index].layer[0]
            normed = unit * 32**0.5 * attention.layer_norm.weight
            keys = attention.SelfAttention.k(normed)
            torch.testing.assert_close(made[:, offset, :32], keys)


def test_rearranged_weights_are_made_once_and_die_with_the_model() -> None:
    model = tiny_t5(47)
    first = stack_of(model)
    assert stack_of(model) is first
    assert stack_of(model, pack=False) is not first
    with torch.no_grad():
        model.shared.weight.add_(1)
    assert stack_of(model) is not first
    assert stack_of(model.float()).embedding.dtype == torch.float32
    alive = weakref.ref(stack_of(model))
    del model, first
    gc.collect()
    assert alive() is None


def test_a_model_that_has_decoded_can_be_copied_and_pickled() -> None:
    model = tiny_t5(48)
    ids, mask = sources(2)
    settings = DecodeSettings(max_new_tokens=6)
    expected = model.decode(ids, mask, settings).samples
    assert copy.deepcopy(model).decode(ids, mask, settings).samples[0].tokens == expected[0].tokens
    again = pickle.loads(pickle.dumps(model))
    assert again.decode(ids, mask, settings).samples[0].tokens == expected[0].tokens
