"""Outputs that are NaN or infinite answer nothing: they are an error, never a class or a token."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from eexit_cli.core.errors import NotFiniteError

if TYPE_CHECKING:
    from transformers import PreTrainedModel

LOOK_AT = 256
"""Tensors that are kept before they are looked at together."""


class Finite:
    """Were all numbers of a batch finite? Asked once at its end, so that no step waits for it."""

    def __init__(self) -> None:
        self._seen: list[Tensor] = []
        self._so_far: Tensor | None = None

    def see(self, values: Tensor) -> None:
        """Shape: [numbers]."""
        self._seen.append(values)
        if len(self._seen) == LOOK_AT:
            self._look()

    def _look(self) -> None:
        finite = torch.cat([one.float() for one in self._seen]).isfinite().all()
        self._so_far = finite if self._so_far is None else self._so_far & finite
        self._seen.clear()

    def all(self) -> bool:
        """Was every number so far?"""
        if self._seen:
            self._look()
        return self._so_far is None or bool(self._so_far)


def not_finite(model: PreTrainedModel) -> NotFiniteError:
    """What to tell the user about this model."""
    dtype = model.dtype
    name = getattr(model.config, "name_or_path", "") or "the model"
    hint = "Its weights are damaged, or its training diverged: train it anew with a lower "
    hint += "--learning-rate"
    if dtype in (torch.float16, torch.bfloat16):
        hint = f"Use --dtype float32: {str(dtype).removeprefix('torch.')} may be too narrow for it"
    return NotFiniteError(f"The outputs of {name} are not finite (NaN or infinity)", hint=hint)
