"""One linear map in the memory layouts that suit its shape and the machine.

On the CPU in float32, oneDNN's packed product is up to twice as fast as the plain one on large
maps with two rows or more, and slower on tiny ones; on AVX2 it only wins while the rows are few.
With one row a product is a read of the weights, and a map with more outputs than inputs is read
faster when stored transposed. Everywhere else the plain product runs. The choice depends on shapes
and processor alone, never on a timing, so that a run's rounding is the same every time.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from eexit_cli.models.decoding.kernels import packing_is_available

PACK_FROM = 1 << 18
"""Weights with at least this many elements are packed: 512 x 512."""

MOST_ROWS_AVX2 = 64
"""Without AVX-512, more rows than this reach the same speed unpacked."""

Activation = Callable[[Tensor], Tensor]


def can_pack(weight: Tensor) -> bool:
    """Does oneDNN's packed product pay for this weight on this machine?"""
    return (
        weight.device.type == "cpu"
        and weight.dtype == torch.float32
        and weight.numel() >= PACK_FROM
        and packing_is_available()
    )


def most_packed_rows() -> int:
    """Rows up to which the packed product is worth its call on this processor."""
    wide = torch.backends.cpu.get_cpu_capability().startswith("AVX512")
    return 1 << 62 if wide else MOST_ROWS_AVX2


class Product:
    """x -> x @ weight.T + bias.

    Args:
        weight: Shape: [outputs, inputs].
        bias: None for none. Shape: [outputs].
        pack: False keeps the plain path (for comparisons; kernel gains are not exit gains).
    """

    __slots__ = ("_most", "_packed", "bias", "matrix")

    def __init__(self, weight: Tensor, bias: Tensor | None = None, *, pack: bool = True) -> None:
        self.bias = bias
        outputs, inputs = weight.shape
        # Shape: [inputs, outputs]; the memory order is what differs.
        self.matrix = weight.t().contiguous() if outputs >= inputs else weight.contiguous().t()
        self._packed: Any = None
        # No number of rows lies between 2 and this when nothing is packed.
        self._most = 0
        if pack and can_pack(weight):
            self._packed = torch.ops.mkldnn._reorder_linear_weight(weight.contiguous(), 32)
            self._most = most_packed_rows()

    @property
    def dtype(self) -> torch.dtype:
        """Of the weights."""
        return self.matrix.dtype

    def __call__(self, x: Tensor) -> Tensor:
        """Shape: [rows, inputs] -> [rows, outputs]."""
        if not 2 <= x.shape[0] <= self._most:
            if self.bias is not None:
                return torch.addmm(self.bias, x, self.matrix)
            return torch.mm(x, self.matrix)
        return torch.ops.mkldnn._linear_pointwise(x, self._packed, self.bias, "none", [], "")

    def add(self, x: Tensor, residual: Tensor) -> Tensor:
        """residual + x @ weight.T + bias. Shape: [rows, outputs]."""
        if not 2 <= x.shape[0] <= self._most:
            total = torch.addmm(residual, x, self.matrix)
            return total if self.bias is None else total.add_(self.bias)
        return torch.ops.mkldnn._linear_pointwise.binary(
            x, residual, self._packed, self.bias, "add"
        )

    def relu(self, x: Tensor) -> Tensor:
        """max(0, x @ weight.T + bias). Shape: [rows, outputs]."""
        if not 2 <= x.shape[0] <= self._most:
            return self(x).relu_()
        return torch.ops.mkldnn._linear_pointwise(x, self._packed, self.bias, "relu", [], "")

    def into(self, x: Tensor, out: Tensor) -> None:
        """Write x @ weight.T + bias to ``out``. Shape: [rows, outputs], contiguous."""
        if self.bias is None and not 2 <= x.shape[0] <= self._most:
            torch.mm(x, self.matrix, out=out)
        else:
            out.copy_(self(x))


LARGEST_IN_HALF = torch.finfo(torch.float16).max - 1000
"""What transformers' T5 puts in the place of an infinity."""


class HalfProduct(Product):
    """A map onto the residual stream of a float16 model, as transformers' T5 computes it.

    There the feed-forward's last map is kept in float32, because its outputs pass 65,504 in
    trained T5s, and from the first one on the stream is float32 too. While it is still float16
    (before that map, or where everything was cast to float16), infinities are replaced.
    """

    def add(self, x: Tensor, residual: Tensor) -> Tensor:
        """residual + x @ weight.T, in the wider of their dtypes. Shape: [rows, outputs]."""
        total = residual + self(x.to(self.matrix.dtype))
        if total.dtype == torch.float16:
            total.nan_to_num_(math.nan, LARGEST_IN_HALF, -LARGEST_IN_HALF)
        return total


def gelu_new(x: Tensor) -> Tensor:
    """transformers' ``gelu_new``: the tanh approximation, in one kernel."""
    return F.gelu(x, approximate="tanh")
