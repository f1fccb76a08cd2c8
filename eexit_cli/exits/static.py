"""Leave at one fixed layer, whatever the sample."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from eexit_cli.core.criterion import Criterion, Shape
from eexit_cli.core.errors import UsageError
from eexit_cli.core.option import EXITS, opt
from eexit_cli.core.protocols import RowState

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class StaticOptions:
    static_layer: int | None = opt(
        None,
        "Leave after layer N, always.",
        EXITS,
        least=1,
        grid=" Several (1,2,3) give one row each.",
    )


class StaticExit(Criterion):
    """Every row leaves after layer ``layer``.

    Args:
        layer: 1..L.
        num_layers: L, checked when given.

    Raises:
        UsageError: the layer is outside 1..L.
    """

    name, option, options = "static", "static_layer", StaticOptions
    needs_classes = False
    reads_input = False

    def __init__(self, layer: int, *, num_layers: int | None = None) -> None:
        if layer < 1 or (num_layers is not None and layer > num_layers):
            top = num_layers if num_layers is not None else "L"
            raise UsageError(
                f"Static layer {layer} is outside 1..{top}", hint=f"Give --static-layer 1..{top}"
            )
        self.layer = layer

    def step(self, layer: int, logits: Tensor, state: RowState) -> Tensor:
        import torch

        return torch.full((logits.shape[0],), layer >= self.layer, device=logits.device)

    def describe(self) -> dict[str, Any]:
        return {"criterion": "static", "static_layer": self.layer}

    @classmethod
    def build(cls, settings: Mapping[str, Any], shape: Shape) -> StaticExit:
        return cls(int(settings["static_layer"]), num_layers=shape.num_layers)

    @classmethod
    def grid(cls, shape: Shape) -> list[dict[str, Any]]:
        return [cls.at(layer) for layer in range(shape.num_layers, 0, -1)]

    @classmethod
    def words(cls, settings: Mapping[str, Any]) -> str:
        return f"always after layer {settings['static_layer']}"
