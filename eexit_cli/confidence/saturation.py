"""Hidden-state saturation (CALM, arXiv:2207.07061): cosine of two consecutive layers' states."""

from __future__ import annotations

import torch
from torch import Tensor

from eexit_cli.core.decoding import LayerView, Needs


def saturation(previous: Tensor, current: Tensor) -> Tensor:
    """Cosine similarity, clamped to [0, 1]; 0 where a state is zero.

    Args:
        previous, current: states of layers i - 1 and i. Shape: [..., d].

    Returns:
        Shape: [...].
    """
    dot = torch.linalg.vecdot(previous, current)
    norms = torch.linalg.vector_norm(previous, dim=-1) * torch.linalg.vector_norm(current, dim=-1)
    tiny = torch.finfo(norms.dtype).tiny
    return dot.div_(norms.clamp_min_(tiny)).clamp_(0.0, 1.0)


class Saturation:
    """Saturation as a decoder measure; it remembers nothing, so it is its own session.

    The states are the raw residual stream, not the normed one. The paper defines the measure for
    i > 1, so that the first possible exit is layer 2: the embedding is no layer to agree with.
    The confidence at layer 1 is therefore 0, beyond no threshold.
    """

    name = "saturation"
    needs: Needs = "residuals"

    def session(self, *, slots: int, num_layers: int, max_tokens: int, like: Tensor) -> Saturation:
        return self

    def confidence(self, view: LayerView) -> Tensor:
        if view.layer == 1:
            return view.residual.new_zeros(view.residual.shape[0])
        return saturation(view.previous, view.residual)

    def compact(self, slots: Tensor) -> None:
        return None

    def shift(self, offset: int) -> None:
        return None


def build() -> Saturation:
    return Saturation()
