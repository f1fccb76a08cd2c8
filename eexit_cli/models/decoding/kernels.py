"""Faster inference on the CPU: linear layers through oneDNN with their weights packed once.

On processors with AVX-512, PyTorch's default (MKL) may use half of the machine: there oneDNN with
packed weights doubles fp32 speed on large shapes, and loses on tiny ones. On AVX2 both reach the
same speed, so nothing is replaced. The choice depends on the processor alone, never on a timing,
so that a run's rounding is the same every time. Fusing query, key and value into one product gains
nothing at the shapes met here (three products of 384 x 384 run at the same rate as one).
"""

from __future__ import annotations

import copy
from typing import TypeVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

LEAST_WORK = 4_000_000
"""Multiplications (rows x inputs x outputs) from which the packed product pays for its call."""

Model = TypeVar("Model", bound=nn.Module)


class PackedLinear(nn.Module):
    """A linear layer for inference only; shares weight and bias with the layer that it replaces.

    Args:
        linear: a float32 layer on the CPU.
        least_work: below this many multiplications the plain product runs.
    """

    def __init__(self, linear: nn.Linear, *, least_work: int = LEAST_WORK) -> None:
        super().__init__()
        self.weight = linear.weight
        self.bias = linear.bias
        self.in_features = linear.in_features
        self.out_features = linear.out_features
        self.least_work = least_work
        with torch.no_grad():
            self._packed = torch.ops.mkldnn._reorder_linear_weight(linear.weight.detach(), None)

    def forward(self, inputs: Tensor) -> Tensor:
        """Shape: [..., in_features] -> [..., out_features]."""
        # inputs.numel() is rows x in_features
        if inputs.numel() * self.out_features < self.least_work or torch.is_grad_enabled():
            return F.linear(inputs, self.weight, self.bias)
        product: Tensor = torch.ops.mkldnn._linear_pointwise(
            inputs.contiguous(), self._packed, self.bias, "none", [], ""
        )
        return product

    def extra_repr(self) -> str:
        return f"in_features={self.in_features}, out_features={self.out_features}, packed"


def packing_is_available() -> bool:
    """The two operators are there; they are PyTorch internals and may go."""
    return torch.backends.mkldnn.is_available() and all(
        hasattr(torch.ops.mkldnn, name) for name in ("_reorder_linear_weight", "_linear_pointwise")
    )


def packing_helps(dtype: torch.dtype, device: torch.device) -> bool:
    """float32 on a CPU whose vector width MKL may leave half unused."""
    return (
        dtype == torch.float32
        and device.type == "cpu"
        and torch.backends.cpu.get_cpu_capability().startswith("AVX512")
        and packing_is_available()
    )


def for_inference(model: Model, *, pack: bool | None = None) -> Model:
    """The model with its linear layers packed, or the model itself where that does not help.

    The original is not touched: the copy shares its parameters and adds the packed weights.

    Args:
        model: in eval mode, float32, on the CPU, to be packed.
        pack: None lets the processor decide; True packs wherever it is possible.

    Returns:
        For ``torch.inference_mode`` or ``torch.no_grad`` only; with gradients it runs unpacked.
    """
    weight = next(model.parameters())
    if pack is None:
        pack = packing_helps(weight.dtype, weight.device)
    possible = weight.dtype == torch.float32 and weight.device.type == "cpu"
    if not (pack and possible and packing_is_available()):
        return model
    shared = {id(tensor): tensor for tensor in (*model.parameters(), *model.buffers())}
    twin = copy.deepcopy(model, shared)
    for module in list(twin.modules()):
        for name, child in module.named_children():
            if type(child) is nn.Linear:
                setattr(module, name, PackedLinear(child))
    return twin
