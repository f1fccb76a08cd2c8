"""Batches of inputs as decoding takes them."""

from __future__ import annotations

import torch
from torch import Tensor

from eexit_cli.core.errors import UsageError


def sources_of(input_ids: Tensor, attention_mask: Tensor | None) -> tuple[Tensor, Tensor | None]:
    """A batch without columns that are padding in every row.

    Raises:
        UsageError: no source, or one without tokens.
    """
    lengths = (
        torch.full((input_ids.shape[0],), input_ids.shape[1])
        if attention_mask is None
        else attention_mask.sum(dim=1)
    )
    empty = (lengths == 0).nonzero().flatten().tolist()
    if empty or not input_ids.shape[0]:
        which = f"Source {empty[0] + 1} of the batch has" if empty else "An empty batch has"
        raise UsageError(f"{which} no tokens", hint="Every source needs some text")
    if attention_mask is not None:
        longest = int(attention_mask.any(dim=0).nonzero()[-1]) + 1
        input_ids, attention_mask = input_ids[:, :longest], attention_mask[:, :longest]
    return input_ids, attention_mask
