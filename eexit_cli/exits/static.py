"""Leave at one fixed layer, whatever the sample."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from eexit_cli.core.errors import UsageError
from eexit_cli.core.protocols import RowState


class StaticExit:
    """Every row leaves after layer ``layer``.

    Args:
        layer: 1..L.
        num_layers: L, checked when given.

    Raises:
        UsageError: the layer is outside 1..L.
    """

    def __init__(self, layer: int, *, num_layers: int | None = None) -> None:
        if layer < 1 or (num_layers is not None and layer > num_layers):
            top = num_layers if num_layers is not None else "L"
            raise UsageError(
                f"Static layer {layer} is outside 1..{top}", hint=f"Give --static-layer 1..{top}"
            )
        self.layer = layer

    def step(self, layer: int, logits: Tensor, state: RowState) -> Tensor:
        return torch.full((logits.shape[0],), layer >= self.layer, device=logits.device)

    def describe(self) -> dict[str, Any]:
        return {"criterion": "static", "static_layer": self.layer}
