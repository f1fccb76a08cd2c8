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

import warnings
from functools import cache
from typing import Any

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

ZERO_POINT = 128
"""What FBGEMM adds to whole inputs, which it holds without a sign."""

PER_STEP = float(torch.tensor(1 / LARGEST))
"""A row's largest number by this is its scale, in float32."""
LEAST_STEP = torch.finfo(torch.float32).tiny
"""What a row of zeros is divided by."""

_LINEAR = "linear_with_input_q_dq_qweight_dq_output_fp32"


@cache
def largest_weight() -> int:
    """The largest whole weight whose products this processor sums exactly: 127 or 63.

    Raises:
        UsageError: it sums neither.
    """
    for largest in (LARGEST, LARGEST_NARROW):
        if sums_exactly(largest, pack=False):
            return largest
    raise UsageError(
        "This processor's products of 8-bit numbers are not exact", hint="Use --weights float"
    )


def sums_exactly(largest: int, *, pack: bool) -> bool:
    """Are sums of the largest weights right, of either sign, and some between them?"""
    generator = torch.Generator().manual_seed(0)
    weights = torch.randint(-largest, largest + 1, (256, 512), generator=generator)
    weights[0], weights[1] = largest, -largest
    x = torch.randint(-LARGEST, LARGEST + 1, (32, 512), generator=generator)
    # So that each row's scale is 1.
    x[:, 0] = LARGEST
    x[0], x[1] = LARGEST, -LARGEST
    exact = (x.double() @ weights.double().t()).float()
    product = Int8Product(weights.to(torch.int8), torch.ones(256), pack=pack)
    batches = (slice(rows) for rows in (1, 2, 32))
    return all(torch.equal(product(x[batch].float()), exact[batch]) for batch in batches)


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


def fbgemm_helps() -> bool:
    """Is FBGEMM there, with sums as wide? Torch has announced that it will go."""
    return torch.backends.quantized.engine in ("x86", "fbgemm") and _fbgemm_sums_exactly()


@cache
def _fbgemm_sums_exactly() -> bool:
    needed = (
        (torch.ops.quantized, _LINEAR),
        (torch.ops.quantized, "linear_prepack"),
        (torch, "_make_per_channel_quantized_tensor"),
    )
    if not all(hasattr(where, name) for where, name in needed):
        return False
    try:
        return sums_exactly(largest_weight(), pack=True)
    except RuntimeError:  # built without it
        return False


def _packed(weights: Tensor, scale: Tensor) -> Any:
    """For FBGEMM. Shapes: [outputs, inputs], int8; [outputs]."""
    zeros = torch.zeros(len(scale), dtype=torch.int64)
    with warnings.catch_warnings():
        # That it will go; see fbgemm_helps.
        warnings.simplefilter("ignore", UserWarning)
        made = torch._make_per_channel_quantized_tensor(weights, scale.double(), zeros, 0)
    return torch.ops.quantized.linear_prepack(made, None)


def _linear(x: Tensor, step: float, packed: Any) -> Tensor:
    """By FBGEMM. Shape: [rows, inputs] -> [rows, outputs]."""
    made: Tensor = getattr(torch.ops.quantized, _LINEAR)(x, step, ZERO_POINT, packed)
    return made


def rounded_rows(x: Tensor) -> tuple[Tensor, Tensor]:
    """Whole inputs and the scale of each row, as FBGEMM rounds them.

    It takes fma(x, 1 / scale, 128), of which float64 holds all digits, and rounds that.
    NaN and infinity make a row's scale, and so its outputs, no finite numbers.

    Args:
        x: float32. Shape: [rows, inputs].

    Returns:
        Shapes: [rows, inputs], [rows, 1]; both float32.
    """
    step = x.abs().amax(dim=1, keepdim=True).mul_(PER_STEP).clamp_(min=LEAST_STEP)
    moved = (x * step.reciprocal().double()).add_(ZERO_POINT).float().round_()
    return moved.sub_(ZERO_POINT), step


class Int8Product:
    """x -> x @ weight.T + bias; see :class:`~eexit_cli.models.decoding.products.Product`.

    By FBGEMM (Khudia et al., arXiv:2101.05615), which goes from float32 to float32 in one kernel
    where there is one row, or by ``torch._int_mm``: the bits are the same.

    Args:
        weights: whole ones. Shape: [outputs, inputs], int8.
        scale: of each output. Shape: [outputs].
        bias: None for none. Shape: [outputs].
        pack: for FBGEMM, on the first use; pays from the second.
    """

    __slots__ = ("_alone", "_pack", "_together", "bias", "scale", "weights")

    dtype = torch.float32

    def __init__(
        self, weights: Tensor, scale: Tensor, bias: Tensor | None = None, *, pack: bool = False
    ) -> None:
        self.weights, self.scale, self.bias = weights, scale, bias
        self._pack = pack
        # For one row, with its outputs' scales in it, and for several.
        self._alone: Any = None
        self._together: Any = None

    def _product(self, x: Tensor) -> Tensor:
        """But for the bias. Shape: [rows, inputs] -> [rows, outputs]."""
        if not self._pack:
            whole, steps = rounded_rows(x)
            return _summed(whole.to(torch.int8), self.weights) * (steps * self.scale)
        if x.shape[0] == 1:
            if self._alone is None:
                self._alone = _packed(self.weights, self.scale)
            step = max(x.abs().max().item() * PER_STEP, LEAST_STEP)
            return _linear(x, step, self._alone)
        if self._together is None:
            self._together = _packed(self.weights, torch.ones_like(self.scale))
        whole, steps = rounded_rows(x)
        return _linear(whole, 1.0, self._together).mul_(steps * self.scale)

    def __call__(self, x: Tensor) -> Tensor:
        """Shape: [rows, inputs] -> [rows, outputs]."""
        made = self._product(x)
        return made if self.bias is None else made.add_(self.bias)

    def add(self, x: Tensor, residual: Tensor) -> Tensor:
        """residual + x @ weight.T + bias. Shape: [rows, outputs]."""
        return self(x).add_(residual)

    def relu(self, x: Tensor) -> Tensor:
        """max(0, x @ weight.T + bias). Shape: [rows, outputs]."""
        return self(x).relu_()

    def into(self, x: Tensor, out: Tensor) -> None:
        """Write x @ weight.T + bias to ``out``. Shape: [rows, outputs], contiguous."""
        out.copy_(self(x))

    def rows(self, which: Tensor) -> Int8Product:
        """Of some outputs alone: what it computes are the whole map's numbers. Shape: [outputs]."""
        bias = None if self.bias is None else self.bias[which]
        weights, scale = (each.index_select(0, which) for each in (self.weights, self.scale))
        return Int8Product(weights, scale, bias)


class Maker:
    """Makes a stack's products of its weights.

    Args:
        weights: ``float`` or ``int8``.
        pack: what may be packed; False keeps the plain path.
    """

    def __init__(self, weights: str, *, pack: bool = True) -> None:
        self.int8, self.pack = weights == INT8, pack

    def __call__(self, weight: Tensor, bias: Tensor | None = None) -> Product | Int8Product:
        """Of a map. Shapes: [outputs, inputs], [outputs]."""
        if not self.int8:
            return Product(weight, bias, pack=self.pack)
        whole, scale = rounded(weight)
        if weight.numel() >= ROUND_FROM:
            return Int8Product(whole, scale, bias, pack=self.pack and fbgemm_helps())
        return Product(whole * scale.unsqueeze(1), bias, pack=self.pack)

    def head(
        self, weight: Tensor, bias: Tensor | None = None
    ) -> tuple[Product | Int8Product, Tensor | Int8Product]:
        """An LM head, and what single rows of it are taken from."""
        made = self(weight, bias)
        if isinstance(made, Int8Product):
            return made, made
        return made, made.matrix.t() if self.int8 else weight
