"""8-bit weights against float64: products within their bounds, tokens of models made by hand."""

from __future__ import annotations

import copy
import os
import platform
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from golden.golden_models import write_causal
from hypothesis import assume, given
from hypothesis import strategies as st
from tiny_decoders import random_decoder
from torch import Tensor, nn

from eexit_cli.confidence.decoder import build_classifier, build_measure
from eexit_cli.core.errors import NotFiniteError
from eexit_cli.exits.decay import TokenThreshold
from eexit_cli.models.causal.layouts import load_causal
from eexit_cli.models.decoding import int8
from eexit_cli.models.decoding.int8 import (
    INT8,
    Int8Product,
    Maker,
    fbgemm_helps,
    largest_weight,
    rounded,
    sums_exactly,
)
from eexit_cli.models.decoding.products import Product
from eexit_cli.models.decoding.results import DecodeCounts
from eexit_cli.models.decoding.scoring import TopKScorer
from eexit_cli.models.decoding.settings import DecodeSettings
from eexit_cli.models.decoding.tracing import trace_tokens
from eexit_cli.models.finite import Finite

SHAPES = [(640, 512), (512, 640), (30, 20), (2000, 64)]


@pytest.fixture(params=[False, True], ids=["int_mm", "fbgemm"])
def pack(request: pytest.FixtureRequest) -> bool:
    if request.param and not fbgemm_helps():
        pytest.skip("torch has no FBGEMM here")
    return bool(request.param)


def made(
    shape: tuple[int, int], seed: int = 0, *, bias: bool = False, pack: bool = False
) -> Int8Product:
    generator = torch.Generator().manual_seed(seed)
    weight = torch.randn(shape, generator=generator) * torch.rand(shape[0], 1, generator=generator)
    return Int8Product(
        *rounded(weight), torch.randn(shape[0], generator=generator) if bias else None, pack=pack
    )


def rows_of(count: int, width: int) -> Tensor:
    """Inputs with outliers, of very different sizes."""
    generator = torch.Generator().manual_seed(count)
    x = torch.randn(count, width, generator=generator)
    x[:, 3] *= 40
    return x * torch.logspace(-3, 3, count).unsqueeze(1)


# Products ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", SHAPES)
def test_weights_are_rounded_by_output(shape: tuple[int, int]) -> None:
    weight = torch.randn(shape) * torch.logspace(-4, 4, shape[0]).unsqueeze(1)
    whole, scale = rounded(weight)
    assert whole.dtype == torch.int8
    assert whole.abs().amax(dim=1).eq(largest_weight()).all()
    error = (whole.double() * scale.double().unsqueeze(1) - weight.double()).abs()
    assert (error <= scale.double().unsqueeze(1) * 0.5001).all()


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("rows", [1, 2, 5, 33])
@pytest.mark.parametrize("bias", [False, True])
def test_products_err_by_the_rounding_of_inputs_alone(
    shape: tuple[int, int], rows: int, bias: bool, pack: bool
) -> None:
    product = made(shape, bias=bias, pack=pack)
    x = rows_of(rows, shape[1])
    weight = product.weights.double() * product.scale.double().unsqueeze(1)
    expected = x.double() @ weight.t() + (0.0 if product.bias is None else product.bias.double())
    step = x.double().abs().amax(dim=1, keepdim=True) / 127
    bound = step / 2 * weight.abs().sum(dim=1) * 1.001 + expected.abs() * 1e-6 + 1e-6
    residual = torch.randn(rows, shape[0])
    with torch.inference_mode():
        assert ((product(x) - expected).abs() <= bound).all()
        assert (product(x) - expected).abs().max() > bound.min() * 1e-3  # rounded they are
        assert ((product.add(x, residual) - residual - expected).abs() <= bound + 1e-3).all()
        assert torch.equal(product.relu(x), product(x).clamp(min=0))
        out = torch.empty(rows, shape[0])
        product.into(x, out)
        assert torch.equal(out, product(x))


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("bias", [False, True])
def test_a_row_does_not_depend_on_its_batch_nor_an_output_on_its_map(
    shape: tuple[int, int], bias: bool, pack: bool
) -> None:
    """To the last bit, or the tokens of an input would depend on the others."""
    product, x = made(shape, bias=bias, pack=pack), rows_of(33, shape[1])
    residual = torch.randn(33, shape[0])
    some = torch.tensor([7, 3, 29, 3])
    with torch.inference_mode():
        whole, added = product(x), product.add(x, residual)
        for row in (0, 16, 32):
            alone = slice(row, row + 1)
            assert torch.equal(product(x[alone]), whole[alone])
            assert torch.equal(product.add(x[alone], residual[alone]), added[alone])
        assert torch.equal(product.rows(some)(x), whole[:, some])
        assert torch.equal(product(x.t().contiguous().t()), whole)
        assert product(x[:0]).shape == (0, shape[0])


@pytest.mark.skipif(not fbgemm_helps(), reason="torch has no FBGEMM here")
@given(
    inputs=st.integers(2, 70),  # torch._int_mm is wrong for one
    rows=st.integers(1, 5),
    size=st.floats(-37, 37),
    seed=st.integers(0, 2**31),
)
def test_all_ways_round_alike(inputs: int, rows: int, size: float, seed: int) -> None:
    """Inputs between two whole numbers as well, where the last bit of a product decides."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.randint(-126, 126, (rows, inputs), generator=generator) + 0.5
    x[:, 0] = 127
    x = x * (10**size * torch.rand(rows, 1, generator=generator))
    x = x * (1 + 2.0**-24 * torch.randint(-3, 4, x.shape, generator=generator))
    assume(bool(x.isfinite().all()))  # of the others nothing is said but that they stay so
    ways = [made((9, inputs), seed, pack=each) for each in (False, True)]
    plain, packed = (way(x) for way in ways)
    assert torch.equal(packed, plain)
    for row in range(rows):
        for way in ways:
            assert torch.equal(way(x[row : row + 1])[0], plain[row])


def test_torch_says_nothing_of_what_will_go(recwarn: pytest.WarningsRecorder, pack: bool) -> None:
    made((30, 20), pack=pack)(torch.randn(1, 20))
    assert not recwarn.list


def _refuses(*_: Any) -> None:
    raise RuntimeError("Didn't find engine for operation quantized::linear_prepack")


@pytest.mark.parametrize(("what", "instead"), [("_LINEAR", "no_such"), ("_packed", _refuses)])
def test_without_fbgemm_its_place_is_taken(
    monkeypatch: pytest.MonkeyPatch, what: str, instead: Any
) -> None:
    def packs(**how: bool) -> bool:
        return Maker(INT8, **how)(torch.randn(256, 512))._pack  # type: ignore[union-attr]

    assert packs() == fbgemm_helps()
    assert not packs(pack=False)
    monkeypatch.setattr(int8, what, instead)
    int8._fbgemm_sums_exactly.cache_clear()
    try:
        assert not packs()
    finally:
        int8._fbgemm_sums_exactly.cache_clear()


def test_rows_of_zeros_and_weights_of_zeros(pack: bool) -> None:
    weight = torch.randn(30, 20)
    weight[4] = 0
    product = Int8Product(*rounded(weight), pack=pack)
    x = torch.randn(3, 20)
    x[1] = 0
    got = product(x)
    assert got.isfinite().all()
    assert got[1].eq(0).all()
    assert got[:, 4].eq(0).all()
    assert torch.equal(product(x[1:2]), got[1:2])


@pytest.mark.parametrize("damage", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("shape", [(30, 20), (512, 512)])
@pytest.mark.parametrize("plain", [False, True])
def test_what_is_not_finite_stays_so(damage: float, shape: tuple[int, int], plain: bool) -> None:
    make = Maker(INT8, pack=not plain)
    weight = torch.randn(shape)
    x = torch.randn(3, shape[1])
    sound = make(weight)(x)
    bad = x.clone()
    bad[1, 5] = damage
    got = make(weight)(bad)
    assert not got[1].isfinite().any()
    assert not make(weight)(bad[1:2]).isfinite().any()
    assert torch.equal(got[[0, 2]], sound[[0, 2]])
    weight[2, 4] = damage
    got = make(weight)(x)
    assert not got[:, 2].isfinite().any()
    assert got[:, 3:].isfinite().all()


def test_small_maps_have_8_bits_and_compute_in_float() -> None:
    small, large = torch.randn(255, 512), torch.randn(256, 512)
    assert type(Maker(INT8)(large)) is Int8Product
    assert type(Maker("float")(large)) is Product
    product = Maker(INT8)(small)
    assert type(product) is Product
    whole, scale = rounded(small)
    assert torch.equal(product.matrix.t(), whole * scale.unsqueeze(1))
    for weight in (small, large):
        head, rows = Maker(INT8).head(weight)
        x, some = torch.randn(1, 512), torch.tensor([200, 7, 7])
        kept = rows.rows(some)(x) if isinstance(rows, Int8Product) else x @ rows[some].t()
        torch.testing.assert_close(kept, head(x)[:, some])


# Processors --------------------------------------------------------------------------------------


@pytest.mark.skipif(platform.machine() not in ("x86_64", "AMD64"), reason="AVX2 is x86's")
@pytest.mark.parametrize("onednn", ["AVX2", "ALL"])
@pytest.mark.parametrize("fbgemm", ["AVX2", "AVX512_E1"])
def test_without_vnni_weights_have_7_bits_and_sums_stay_exact(onednn: str, fbgemm: str) -> None:
    program = (
        "import torch\n"
        "from eexit_cli.models.decoding.int8 import fbgemm_helps, largest_weight, sums_exactly\n"
        "from test_models_int8 import SHAPES, made, rows_of\n"
        "print(largest_weight(), *(sums_exactly(127, pack=each) for each in (False, True)))\n"
        "print(fbgemm_helps())\n"
        "for shape in SHAPES:\n"
        "    product, x = made(shape, pack=fbgemm_helps()), rows_of(33, shape[1])\n"
        "    step = x.abs().amax(dim=1, keepdim=True) / 127\n"
        "    exact = (x / step).round().double() @ product.weights.double().t()\n"
        "    exact = exact * product.scale.double() * step.double()\n"
        "    for count in (1, 2, 33):\n"
        "        torch.testing.assert_close(product(x[:count]), exact[:count].float())\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        env={
            **os.environ,
            "ONEDNN_MAX_CPU_ISA": onednn,
            "FBGEMM_ENABLE_INSTRUCTIONS": fbgemm,
            "ATEN_CPU_CAPABILITY": "avx2",
            "PYTHONPATH": os.pathsep.join([str(Path(__file__).parent), *sys.path]),
        },
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    largest, plain, packed, helps = done.stdout.split()
    assert (largest, plain) in (("63", "False"), ("127", "True"))
    # Weights that int_mm sums exactly and FBGEMM does not are left to int_mm.
    assert helps == str(fbgemm_helps() and (packed == "True" or largest == "63"))
    assert largest_weight() == (127 if sums_exactly(127, pack=False) else 63)


def test_a_processor_without_exact_sums_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    def off_by_one(x: Tensor, weights: Tensor) -> Tensor:
        return torch._int_mm(x, weights.t()) + 1

    largest_weight.cache_clear()
    monkeypatch.setattr(int8, "_summed", off_by_one)
    try:
        with pytest.raises(int8.UsageError, match="not exact"):
            largest_weight()
    finally:
        largest_weight.cache_clear()


# Models ------------------------------------------------------------------------------------------


@pytest.fixture(params=[0, 1 << 17], ids=["inputs rounded", "weights alone"])
def round_from(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> int:
    """Tiny maps computed as large ones are, or as small ones are."""
    monkeypatch.setattr(int8, "ROUND_FROM", request.param)
    return int(request.param)


def t5() -> Any:
    return random_decoder(3)


def causal(folder: Path) -> Any:
    write_causal(folder)
    return load_causal(folder, build_classifier=build_classifier)


@pytest.fixture(params=["t5", "causal"])
def model(request: pytest.FixtureRequest, tmp_path: Path) -> Any:
    return t5() if request.param == "t5" else causal(tmp_path / "causal")


def sources(batch: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(5)
    ids = torch.randint(3, 30, (batch, 9), generator=generator)
    mask = torch.ones_like(ids)
    for row in range(1, batch):
        mask[row, 9 - row % 5 :] = 0
    return ids * mask, mask


def by_hand(model: Any, round_inputs: bool) -> Any:
    """The model in float64, through transformers' modules, with every map rounded.

    Norms of a T5 are moved into the maps that read them, which changes nothing but what is rounded.
    """
    model.weights = "float"
    twin = copy.deepcopy(model).double()
    if hasattr(twin, "encoder"):
        twin.lm_head.weight = nn.Parameter(twin.lm_head.weight.detach().clone())
        for stack in (twin.encoder, twin.decoder):
            for block in stack.block:
                for layer in block.layer:
                    part = next(
                        getattr(layer, name)
                        for name in ("SelfAttention", "EncDecAttention", "DenseReluDense")
                        if hasattr(layer, name)
                    )
                    norm = layer.layer_norm
                    readers = ("q",) if hasattr(layer, "EncDecAttention") else ("q", "k", "v", "wi")
                    for name in readers:
                        if hasattr(part, name):
                            getattr(part, name).weight.data *= norm.weight.data
                    norm.weight.data.fill_(1.0)
        last = twin.encoder.final_layer_norm
        for block in twin.decoder.block:
            for name in ("k", "v"):
                getattr(block.layer[1].EncDecAttention, name).weight.data *= last.weight.data
        last.weight.data.fill_(1.0)
    for name, module in twin.named_modules():
        if isinstance(module, nn.Linear) and not name.startswith("cm_heads"):
            scale = module.weight.data.abs().amax(dim=1, keepdim=True) / largest_weight()
            module.weight.data = (module.weight.data / scale).round() * scale
            if round_inputs:
                module.register_forward_pre_hook(_rounding)
    return twin


def _rounding(module: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor]:
    step = inputs[0].abs().amax(dim=-1, keepdim=True) / 127
    return ((inputs[0] / step).round() * step,)


@torch.no_grad()
def greedy(twin: Any, ids: Tensor, tokens: int, layer: int) -> list[int]:
    """What layer ``layer`` writes, token by token, without any cache."""
    start = torch.tensor([[twin.output_start]])
    written: list[int] = []
    for _ in range(tokens):
        given = torch.cat((start, torch.tensor([written], dtype=torch.int64)), dim=1)
        states = twin.layer_states(ids, None, given).states[layer - 1]
        written.append(int(twin.exit_logits(states[0, -1]).argmax()))
        if written[-1] in twin.config.end_tokens:
            break
    return written


@pytest.mark.parametrize("layer", [None, 2])
def test_outputs_are_those_of_rounded_modules(model: Any, round_from: int, layer: int) -> None:
    twin = by_hand(model, round_inputs=round_from == 0)
    ids, mask = sources(6)
    settings = DecodeSettings(max_new_tokens=8, static_layer=layer)
    plain = model.decode(ids, mask, settings)
    model.weights = INT8
    got = model.decode(ids, mask, settings)
    for row, sample in enumerate(got.samples):
        source = ids[row : row + 1, : int(mask[row].sum())]
        assert sample.tokens == greedy(twin, source, 8, layer or model.depth)
    if round_from == 0:  # else float weights may say the same
        assert {type(each) for each in _products(model)} == {Int8Product}
    model.weights = "float"
    again = model.decode(ids, mask, settings)
    assert [one.tokens for one in again.samples] == [one.tokens for one in plain.samples]


def _products(model: Any) -> list[Any]:
    stack = model.stack()
    layer = stack.decoder[0] if hasattr(stack, "decoder") else stack.layers[0]
    return [stack.head, layer.qkv, layer.out, stack.projection(0) if stack.single else layer.up]


def exiting(top_k: int | None = None) -> DecodeSettings:
    return DecodeSettings(
        max_new_tokens=8, measure=build_measure("softmax"), rule=TokenThreshold(0.15), top_k=top_k
    )


def plain(samples: Any) -> list[Any]:
    return [(sample.tokens, sample.exit_layers) for sample in samples]


@pytest.mark.parametrize("top_k", [None, 5])
def test_batches_say_what_inputs_say_alone(model: Any, round_from: int, top_k: int | None) -> None:
    model.weights = INT8
    ids, mask = sources(12)
    together = model.decode(ids, mask, exiting(top_k))
    assert len({layer for one in together.samples for layer in one.exit_layers}) > 1
    alone = [
        model.decode(ids[row : row + 1], mask[row : row + 1], exiting(top_k)) for row in range(12)
    ]
    assert plain(together.samples) == [plain(one.samples)[0] for one in alone]
    batches = [{"input_ids": ids[a:b], "attention_mask": mask[a:b]} for a, b in ((0, 5), (5, 12))]
    assert plain(model.decode_many(batches, exiting(top_k)).samples) == plain(together.samples)
    filled = model.decode(ids, mask, replace(exiting(top_k), filling="immediate"))
    assert plain(filled.samples) == plain(together.samples)


def test_kept_rows_say_what_the_whole_head_says(model: Any, round_from: int) -> None:
    model.weights = INT8
    stack = model.stack()
    gathering, full = (TopKScorer(stack, DecodeCounts(), Finite(), 6) for _ in range(2))
    gathering.most_gathered, full.most_gathered = 3, 0
    for scorer in (gathering, full):
        scorer.begin()
    for _ in range(3):
        unit = torch.randn(3, stack.width)
        with torch.inference_mode():
            one, other = gathering.logits(unit), full.logits(unit)
        torch.testing.assert_close(one, other)
        assert gathering.choose(None) == full.choose(None)
    assert (gathering._kept is None, full._kept is None) == (False, True)


@pytest.mark.parametrize("weights", ["float", INT8])
def test_what_layers_would_choose(model: Any, weights: str, round_from: int) -> None:
    """With float weights as a trace says, with int8 as decoding does."""
    model.weights = weights
    ids, mask = sources(5)
    decoded = model.decode(ids, mask, DecodeSettings(max_new_tokens=8))
    outputs = [sample.tokens for sample in decoded.samples]
    chosen = model.layer_choices(ids, mask, outputs, longest=8)
    assert [[layers[-1] for layers in one] for one in chosen] == outputs
    assert {len(layers) for one in chosen for layers in one} == {model.depth}
    if weights == "float":
        labels = torch.full((5, 8), -100)
        for row, output in enumerate(outputs):
            labels[row, : len(output)] = torch.tensor(output)
        trace = trace_tokens(model, ids, mask, labels, longest=8).tokens.tolist()
        assert chosen == [one[: len(output)] for one, output in zip(trace, outputs, strict=True)]
    else:
        first = model.decode(ids, mask, DecodeSettings(max_new_tokens=1, static_layer=1))
        assert [one[0][0] for one in chosen] == [one.tokens[0] for one in first.samples]


def test_layers_without_an_exit_of_their_own_have_a_choice_too(tmp_path: Path) -> None:
    model = causal(tmp_path / "causal")
    model.add_exits([1])
    model.eval()
    ids, mask = sources(4)
    outputs = [s.tokens for s in model.decode(ids, mask, DecodeSettings(max_new_tokens=6)).samples]
    labels = torch.full((4, 6), -100)
    for row, output in enumerate(outputs):
        labels[row, : len(output)] = torch.tensor(output)
    trace = trace_tokens(model, ids, mask, labels, longest=6).tokens.tolist()
    expected = [one[: len(output)] for one, output in zip(trace, outputs, strict=True)]
    assert model.layer_choices(ids, mask, outputs, longest=6) == expected


def test_self_speculation_writes_what_the_full_model_writes(
    tmp_path: Path, round_from: int
) -> None:
    model = causal(tmp_path / "causal")
    model.weights = INT8
    ids, mask = sources(8)
    full = model.decode(ids, mask, DecodeSettings(max_new_tokens=8))
    drafts = model.decode(ids, mask, DecodeSettings(max_new_tokens=8, draft_layer=1))
    assert [one.tokens for one in drafts.samples] == [one.tokens for one in full.samples]


def test_free_says_the_same_alone_and_in_batches(round_from: int) -> None:
    model = t5()
    model.weights = INT8
    ids, mask = sources(6)
    settings = replace(exiting(), shallow_layer=1)
    together = model.decode(ids, mask, settings)
    alone = [model.decode(ids[row : row + 1], mask[row : row + 1], settings) for row in range(6)]
    assert plain(together.samples) == [plain(one.samples)[0] for one in alone]


def test_gradients_and_files_are_of_the_float_weights(model: Any, tmp_path: Path) -> None:
    labels = torch.tensor([[5, 7, 9]])
    ids = torch.tensor([[4, 6, 8]])

    def pass_of() -> tuple[Tensor, Tensor]:
        model.zero_grad()
        states = model.layer_states(ids, None, model.shift_right(labels)).states
        model.exit_logits(states[-1]).sum().backward()
        return states[-1].detach(), model.word_embeddings.weight.grad.clone()

    state, gradient = pass_of()
    model.save_pretrained(tmp_path / "float")
    model.weights = INT8
    model.decode(ids, None, DecodeSettings(max_new_tokens=3))
    model.save_pretrained(tmp_path / "int8")
    again, same = pass_of()
    assert torch.equal(state, again)
    assert torch.equal(gradient, same)
    assert gradient.abs().max() > 0
    for name in ("model.safetensors", "config.json"):
        one, other = ((tmp_path / folder / name).read_bytes() for folder in ("float", "int8"))
        assert one == other


def test_damaged_weights_are_an_error(model: Any, round_from: int) -> None:
    model.weights = INT8
    ids, mask = sources(2)
    with torch.no_grad():
        (model.decoder.block[0].layer[2].DenseReluDense.wi if hasattr(model, "decoder")
         else model.layers[0].mlp.up_proj).weight[0, 0] = float("nan")  # fmt: skip
    with pytest.raises(NotFiniteError):
        model.decode(ids, mask, DecodeSettings(max_new_tokens=3))
