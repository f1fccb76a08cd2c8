"""Linear maps with 8-bit weights: a scale per output, inputs rounded row by row, exact sums.

Weights are w ~ scale * q with whole q, one scale per output; each row of inputs gets a scale of
its own in the same way when the map is computed (LLM.int8(), arXiv:2208.07339, but without its
outliers). The products of whole numbers are summed exactly, so that a row's result depends neither
on the rows beside it nor on which of several outputs are computed together.

Rounding a row takes about ten small operations, which a small map does not win back. So maps with
fewer than :data:`ROUND_FROM` weights have 8-bit weights too, but compute with them in float32. The
choice depends on the shape of the weights alone: all numbers of rows round alike.

Processors without VNNI (AVX2 alone) add pairs of products in 16 bits, where 8-bit weights overflow:
there weights have 7 bits, which cannot.
"""

from __future__ import annotations

from functools import cache

import torch
from torch import Tensor

from eexit_cli.core.errors import UsageError
from eexit_cli.models.decoding.products import Product

FLOAT, INT8 = "float", "int8"

ROUND_FROM = 1 << 17
"""Weights from which a map rounds its inputs: 256 x 512."""

LARGEST = 127
"""Of whole inputs, and of whole weights where sums are wide enough."""
LARGEST_NARROW = 63


@cache
def largest_weight() -> int:
    """The largest whole weight whose products this processor sums exactly: 127 or 63.

    Raises:
        UsageError: it sums neither.
    """
    for largest in (LARGEST, LARGEST_NARROW):
        if all(sums_exactly(rows, largest) for rows in (1, 2, 32)):
            return largest
    raise UsageError(
        "This processor's products of 8-bit numbers are not exact", hint="Use --weights float"
    )


def sums_exactly(rows: int, largest: int) -> bool:
    """Are the largest sums right, of either sign, and some between them?"""
    generator = torch.Generator().manual_seed(0)
    weights = torch.randint(-largest, largest + 1, (256, 512), generator=generator)
    weights[0], weights[1] = largest, -largest
    x = torch.randint(-LARGEST, LARGEST + 1, (rows, 512), generator=generator)
    x[0], x[-1] = -LARGEST, LARGEST
    exact = (x.double() @ weights.double().t()).long()
    return torch.equal(_summed(x.to(torch.int8), weights.to(torch.int8)).long(), exact)


def _summed(x: Tensor, weights: Tensor) -> Tensor:
    """Shapes: [rows, inputs], [outputs, inputs], int8 -> [rows, outputs], int32."""
    return torch._int_mm(x, weights.t())


def rounded(weight: Tensor) -> tuple[Tensor, Tensor]:
    """Whole weights and the scale of each output.

    Args:
        weight: float32. Shape: [outputs, inputs].

    Returns:
        Shapes: [outputs, inputs], int8; [outputs], float32.
    """
    largest = largest_weight()
    most = weight.abs().amax(dim=1)
    # Of zeros any scale is right; what is not finite must stay so.
    scale = torch.where(most == 0, 1.0, most / largest)
    whole = (weight / scale.unsqueeze(1)).round_().clamp_(-largest, largest)
    return whole.to(torch.int8), scale


class Int8Product:
    """x -> x @ weight.T + bias; see :class:`~eexit_cli.models.decoding.products.Product`.

    Args:
        weights: whole ones. Shape: [outputs, inputs], int8.
        scale: of each output. Shape: [outputs].
        bias: None for none. Shape: [outputs].
    """

    __slots__ = ("_least", "bias", "scale", "weights")

    dtype = torch.float32

    def __init__(self, weights: Tensor, scale: Tensor, bias: Tensor | None = None) -> None:
        self.weights, self.scale, self.bias = weights, scale, bias
        # A row of zeros is divided by this.
        self._least = scale.new_full((1, 1), torch.finfo(torch.float32).tiny)

    def _scaled(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """The product but for the rows' own scales, and those.

        NaN and infinity make the row's scale, and so its outputs, no finite numbers.
        Shapes: [rows, outputs], [rows, 1].
        """
        step = torch.add(self._least, x.abs().amax(dim=1, keepdim=True), alpha=1 / LARGEST)
        whole = (x / step).round_().to(torch.int8)
        return _summed(whole, self.weights) * self.scale, step

    def __call__(self, x: Tensor) -> Tensor:
        """Shape: [rows, inputs] -> [rows, outputs]."""
        made, step = self._scaled(x)
        return made.mul_(step) if self.bias is None else torch.addcmul(self.bias, made, step)

    def add(self, x: Tensor, residual: Tensor) -> Tensor:
        """residual + x @ weight.T + bias. Shape: [rows, outputs]."""
        made, step = self._scaled(x)
        total = torch.addcmul(residual, made, step)
        return total if self.bias is None else total.add_(self.bias)

    def relu(self, x: Tensor) -> Tensor:
        """max(0, x @ weight.T + bias). Shape: [rows, outputs]."""
        return self(x).relu_()

    def into(self, x: Tensor, out: Tensor) -> None:
        """Write x @ weight.T + bias to ``out``. Shape: [rows, outputs], contiguous."""
        out.copy_(self(x))

    def rows(self, which: Tensor) -> Int8Product:
        """Of some outputs alone: what it computes are the whole map's numbers. Shape: [outputs]."""
        bias = None if self.bias is None else self.bias[which]
        return Int8Product(self.weights.index_select(0, which), self.scale[which], bias)


class Maker:
    """Makes a stack's products of its weights.

    Args:
        weights: ``float`` or ``int8``.
        pack: of float products; False keeps the plain path.
    """

    def __init__(self, weights: str, *, pack: bool = True) -> None:
        self.int8, self.pack = weights == INT8, pack

    def __call__(self, weight: Tensor, bias: Tensor | None = None) -> Product | Int8Product:
        """Of a map. Shapes: [outputs, inputs], [outputs]."""
        if not self.int8:
            return Product(weight, bias, pack=self.pack)
        whole, scale = rounded(weight)
        if weight.numel() >= ROUND_FROM:
            return Int8Product(whole, scale, bias)
        return Product(whole * scale.unsqueeze(1), bias, pack=self.pack)

    def head(
        self, weight: Tensor, bias: Tensor | None = None
    ) -> tuple[Product | Int8Product, Tensor | Int8Product]:
        """An LM head, and what single rows of it are taken from."""
        made = self(weight, bias)
        if isinstance(made, Int8Product):
            return made, made
        return made, made.matrix.t() if self.int8 else weight
