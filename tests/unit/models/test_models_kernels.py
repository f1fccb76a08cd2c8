"""Packed linear layers against the plain ones."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from eexit_cli.models.decoding import kernels
from eexit_cli.models.decoding.kernels import PackedLinear, for_inference, packing_helps


class Small(nn.Module):
    def __init__(self, dtype: torch.dtype = torch.float32) -> None:
        super().__init__()
        self.embedding = nn.Embedding(7, 48, dtype=dtype)
        self.stack = nn.Sequential(
            nn.Linear(48, 96, dtype=dtype), nn.GELU(), nn.Linear(96, 48, bias=False, dtype=dtype)
        )
        self.head = nn.Linear(48, 3, dtype=dtype)

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        return self.head(self.stack(self.embedding(ids)))


packed_only = pytest.mark.skipif(
    not kernels.packing_is_available(), reason="this PyTorch has no packed linear operator"
)


@packed_only
@pytest.mark.parametrize("rows", [1, 5, 400])
@pytest.mark.parametrize("bias", [True, False])
def test_packed_is_plain_up_to_rounding(rows: int, bias: bool) -> None:
    linear = nn.Linear(48, 96, bias=bias).requires_grad_(False)
    packed = PackedLinear(linear, least_work=0)
    inputs = torch.randn(2, rows, 48)
    with torch.inference_mode():
        assert torch.allclose(packed(inputs), linear(inputs), atol=1e-5)
        # Rows apart in memory, as after dropping samples from a batch
        turned = inputs.transpose(0, 1)
        assert torch.allclose(packed(turned), linear(turned), atol=1e-5)


@packed_only
def test_tiny_products_and_gradients_take_the_plain_path(monkeypatch: pytest.MonkeyPatch) -> None:
    packed = PackedLinear(nn.Linear(48, 96), least_work=10**9)
    monkeypatch.setattr(packed, "_packed", None)  # the packed path would fail
    with torch.inference_mode():
        assert packed(torch.randn(3, 48)).shape == (3, 96)
    packed.least_work = 0
    inputs = torch.randn(3, 48, requires_grad=True)
    packed(inputs).sum().backward()
    assert inputs.grad is not None


@packed_only
def test_copy_agrees_shares_its_weights_and_leaves_the_model_alone() -> None:
    model = Small().eval().requires_grad_(False)
    twin = for_inference(model, pack=True)
    assert twin is not model
    assert [type(module) for module in model.stack] == [nn.Linear, nn.GELU, nn.Linear]
    assert type(twin.head) is PackedLinear
    for module in twin.modules():
        if isinstance(module, PackedLinear):
            module.least_work = 0
    theirs = {tensor.data_ptr() for tensor in model.parameters()}
    assert {tensor.data_ptr() for tensor in twin.parameters()} == theirs
    ids = torch.randint(0, 7, (6, 20))
    with torch.inference_mode():
        assert torch.allclose(twin(ids), model(ids), atol=1e-5)


def test_other_dtypes_are_never_packed() -> None:
    model = Small(torch.float64)
    assert for_inference(model, pack=True) is model
    assert not packing_helps(torch.float64, torch.device("cpu"))
    assert not packing_helps(torch.float32, torch.device("cuda"))


def test_the_processor_decides(monkeypatch: pytest.MonkeyPatch) -> None:
    cpu = torch.device("cpu")
    monkeypatch.setattr(kernels, "packing_is_available", lambda: True)
    for capability, helps in (("AVX512", True), ("AVX2", False), ("DEFAULT", False)):
        monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda c=capability: c)
        assert packing_helps(torch.float32, cpu) is helps
    model = Small()
    monkeypatch.setattr(kernels, "packing_helps", lambda dtype, device: False)
    assert for_inference(model) is model
