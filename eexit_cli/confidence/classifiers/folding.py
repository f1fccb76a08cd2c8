"""Weights of a confidence classifier rearranged for decoding, made once per training state.

softmax(z)[1] = sigmoid(z1 - z0), so the last map needs one output, not two. Maps that follow each
other without a nonlinearity become one product.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Generic, NamedTuple, TypeVar

import torch
from torch import Tensor, nn

Folded = TypeVar("Folded")


class Affine(NamedTuple):
    """x -> x @ matrix + bias. Shapes: [inputs, outputs], [outputs]."""

    matrix: Tensor
    bias: Tensor

    def __call__(self, x: Tensor) -> Tensor:
        return torch.addmm(self.bias, x, self.matrix)


def affine(layer: nn.Linear) -> Affine:
    return Affine(layer.weight.detach().t().contiguous(), layer.bias.detach().clone())


def difference(layer: nn.Linear) -> Affine:
    """The two-output map as one output, z1 - z0. Shapes: [inputs, 1], [1]."""
    weight, bias = layer.weight.detach(), layer.bias.detach()
    return Affine((weight[1] - weight[0]).unsqueeze(1), (bias[1] - bias[0]).unsqueeze(0))


def chain(first: Affine, second: Affine) -> Affine:
    """second(first(x)) as one map."""
    return Affine(first.matrix @ second.matrix, first.bias @ second.matrix + second.bias)


class FoldedOnce(Generic[Folded]):
    """Folds a module's weights at the first call and again whenever they have changed."""

    def __init__(self, module: nn.Module, fold: Callable[[], Folded]) -> None:
        self._module = module
        self._fold = fold
        self._key: tuple[object, ...] = ()
        self._folded: Folded | None = None

    def __call__(self) -> Folded:
        key = state_key(self._module.parameters())
        if self._folded is None or key != self._key:
            with torch.no_grad():
                self._folded = self._fold()
            self._key = key
        return self._folded


def state_key(parameters: Iterable[Tensor]) -> tuple[object, ...]:
    """Differs whenever a parameter has moved, changed its dtype or been written to."""
    return tuple((p.data_ptr(), p.dtype, 0 if p.is_inference() else p._version) for p in parameters)
