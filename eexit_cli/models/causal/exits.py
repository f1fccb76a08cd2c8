"""Exits with parts of their own: modules, what decoding makes of them, and which settings fit.

EE-LLM (arXiv:2312.04916) gives an exit a head, and a norm or a decoder layer where asked; Balcony
(arXiv:2503.05005) a decoder layer and a norm. Layers without such an exit were not trained to
answer, so in a model that has any of them tokens leave at these alone, or end at the last layer.
"""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from eexit_cli.core.errors import UsageError
from eexit_cli.models.causal.config import ExitParts, exit_parts
from eexit_cli.models.causal.maps import norm_of
from eexit_cli.models.decoding.int8 import Maker
from eexit_cli.models.decoding.settings import DecodeSettings

if TYPE_CHECKING:
    from eexit_cli.models.causal.model import MultiExitCausal
    from eexit_cli.models.causal.stack import CausalStack


class ExitModule(nn.Module):
    """The parts of one exit; None for what it does not have.

    Args:
        model: a model whose own modules are there.
        parts: which there are.
        after: the layer that the exit follows, 1..L-1.
        index: of its decoder layer in transformers' caches, from L on.
    """

    def __init__(self, model: MultiExitCausal, parts: ExitParts, after: int, index: int) -> None:
        super().__init__()
        head = model.head
        # Copies, so that they are whatever this architecture has there.
        self.layer = copy.deepcopy(model.layers[after - 1]) if parts.layer else None
        self.norm = (
            copy.deepcopy(getattr(model.body, model.parts.norm, None)) if parts.norm else None
        )
        self.head = (
            nn.Linear(head.in_features, head.out_features, bias=False) if parts.head else None
        )
        if self.layer is not None:
            for module in self.layer.modules():
                if hasattr(module, "layer_idx"):
                    setattr(module, "layer_idx", index)  # noqa: B010 - no attribute of a Module


def exit_modules(model: MultiExitCausal) -> nn.ModuleDict:
    """The exits of ``config.exit_modules``, by layer; their values are of what they copy."""
    own = exit_parts(model.config)
    return nn.ModuleDict(
        {
            str(layer): ExitModule(model, parts, layer, model.config.depth + number)
            for number, (layer, parts) in enumerate(own.items())
        }
    )


class StackExit:
    """See :class:`eexit_cli.models.decoding.stack.Exit`.

    Attributes:
        own_layer: number of its decoder layer among the stack's layers, from L on; None for none.
    """

    def __init__(
        self, stack: CausalStack, module: Any, row: Any, own_layer: int | None, make: Maker
    ) -> None:
        self._stack = stack
        self._norm = norm_of(module.norm, row)
        self.own_layer = own_layer
        self._head, self.head_rows = stack.head, stack.head_rows
        if module.head is not None:
            self._head, self.head_rows = make.head(module.head.weight.detach())

    def state(self, unit: Tensor) -> Tensor:
        return self._stack.projected(unit if self._norm is None else self._norm(unit))

    def head_input(self, unit: Tensor) -> Tensor:
        return self.state(unit)

    def logits(self, unit: Tensor) -> Tensor:
        return self._stack.capped(self._head(self.state(unit)))


def check_exits(settings: DecodeSettings, config: Any) -> None:
    """Do these settings leave at layers that have exits?

    Raises:
        UsageError: a static or a draft layer without an exit, or top-k propagation between heads
            that have no rows in common.
    """
    layers = config.exit_layers
    for what, layer, option in (
        ("Static layer", settings.static_layer, "--static-layer"),
        ("Exit layer", settings.draft_layer, "--exit-layer"),
    ):
        if layer is not None and layer not in layers:
            usable = layers if layer == settings.static_layer else layers[:-1]
            raise UsageError(
                f"{what} {layer} has no exit in this model",
                hint=f"Give {option} {' or '.join(map(str, usable))}",
            )
    if settings.top_k is not None and any(own.head for own in exit_parts(config).values()):
        raise UsageError(
            "Top-k propagation keeps rows of one LM head, and this model's exits have their own",
            hint="Leave --top-k-propagation out",
        )


@torch.no_grad()
def finite_heads(exits: nn.ModuleDict) -> bool:
    """Has no head of these exits a NaN or an infinity?"""
    modules: list[Any] = list(exits.values())
    heads = [module.head for module in modules]
    return all(bool(head.weight.isfinite().all()) for head in heads if head is not None)
