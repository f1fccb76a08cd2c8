"""One bias-free linear map in the memory layouts that suit its shape and the machine.

On the CPU in float32, oneDNN's packed product halves the time of large maps with two rows or
more and slows the tiny ones; with one row a product is a read of the weights, and a map with more
outputs than inputs is read faster when stored transposed. Everywhere else the plain product runs.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

PACK_FROM = 1 << 18
"""Weights with at least this many elements are packed: 512 x 512."""

Activation = Callable[[Tensor], Tensor]


def can_pack(weight: Tensor) -> bool:
    """Does oneDNN's packed product pay for this weight on this machine?"""
    return (
        weight.device.type == "cpu"
        and weight.dtype == torch.float32
        and weight.numel() >= PACK_FROM
        and torch.backends.mkldnn.is_available()
        and hasattr(torch.ops.mkldnn, "_linear_pointwise")
        and hasattr(torch.ops.mkldnn, "_reorder_linear_weight")
    )


class Product:
    """x -> x @ weight.T.

    Args:
        weight: Shape: [outputs, inputs].
        pack: False keeps the plain path (for comparisons; kernel gains are not exit gains).
    """

    __slots__ = ("_packed", "matrix")

    def __init__(self, weight: Tensor, *, pack: bool = True) -> None:
        outputs, inputs = weight.shape
        # Shape: [inputs, outputs]; the memory order is what differs.
        self.matrix = weight.t().contiguous() if outputs >= inputs else weight.contiguous().t()
        self._packed = (
            torch.ops.mkldnn._reorder_linear_weight(weight.contiguous(), 32)
            if pack and can_pack(weight)
            else None
        )

    def __call__(self, x: Tensor) -> Tensor:
        """Shape: [rows, inputs] -> [rows, outputs]."""
        if self._packed is None or x.shape[0] == 1:
            return torch.mm(x, self.matrix)
        return torch.ops.mkldnn._linear_pointwise(x, self._packed, None, "none", [], "")

    def add(self, x: Tensor, residual: Tensor) -> Tensor:
        """residual + x @ weight.T. Shape: [rows, outputs]."""
        if self._packed is None or x.shape[0] == 1:
            return torch.addmm(residual, x, self.matrix)
        return torch.ops.mkldnn._linear_pointwise.binary(x, residual, self._packed, None, "add")

    def relu(self, x: Tensor) -> Tensor:
        """max(0, x @ weight.T). Shape: [rows, outputs]."""
        if self._packed is None or x.shape[0] == 1:
            return torch.mm(x, self.matrix).relu_()
        return torch.ops.mkldnn._linear_pointwise(x, self._packed, None, "relu", [], "")

    def into(self, x: Tensor, out: Tensor) -> None:
        """Write x @ weight.T to ``out``. Shape: [rows, outputs], contiguous."""
        if self._packed is None or x.shape[0] == 1:
            torch.mm(x, self.matrix, out=out)
        else:
            out.copy_(self(x))


def gelu_new(x: Tensor) -> Tensor:
    """transformers' ``gelu_new``: the tanh approximation, in one kernel."""
    return F.gelu(x, approximate="tanh")
