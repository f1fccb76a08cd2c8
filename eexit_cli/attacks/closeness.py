"""How near an input was to going on past the exit where it left.

The exit layer alone leaves most candidates tied. Between two that leave at the same layer, the
one whose executed exits were nearer to letting it through is the better start for the next word.
Only exits that were executed are read, so the live path pays nothing for it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from eexit_cli.core.errors import UsageError
from eexit_cli.core.protocols import ExitCriterion

# Below 1, so that the best of one layer never reaches the next layer's worst.
MOST = 0.999

Closeness = Callable[[Tensor, Tensor], Tensor]
"""(logits [batch, exits, classes], exit layers [batch]) -> [batch], 0 = sure, 1 = went on."""


def closeness_for(criterion: ExitCriterion) -> Closeness:
    """The secondary score that fits a criterion.

    Raises:
        UsageError: the criterion does not look at its input, so no input can slow it down.
    """
    name = str(criterion.describe()["criterion"])
    if name == "static":
        raise UsageError(
            "A static exit layer cannot be slowed down: it does not depend on the input",
            hint="Give --threshold or --patience",
        )
    return _SPECIFIC.get(name, _by_uncertainty)(criterion)


def _by_threshold(criterion: Any) -> Closeness:
    """How far the exit that fired was beyond the threshold, as a share of the way to certainty."""
    measure, threshold = criterion.measure, float(criterion.threshold)

    def closeness(logits: Tensor, exit_layers: Tensor) -> Tensor:
        # Shape: [batch, classes]
        fired = logits[torch.arange(len(logits)), exit_layers - 1]
        certain = measure.bounds(logits.shape[-1])[1 if measure.rises else 0]
        span = threshold - certain
        if span == 0:
            return fired.new_zeros(len(fired))
        return ((measure(fired) - certain) / span).clamp(0, MOST)

    return closeness


def _by_patience(criterion: Any) -> Closeness:
    """How small the surest-needed margin was among the exits whose agreement let it leave."""
    patience = int(criterion.patience)

    def closeness(logits: Tensor, exit_layers: Tensor) -> Tensor:
        top = torch.softmax(logits, dim=-1).topk(2, dim=-1).values
        # Shape: [batch, exits]
        margin = top[..., 0] - top[..., 1]
        layers = torch.arange(1, logits.shape[1] + 1)[None, :]
        agreeing = (layers <= exit_layers[:, None]) & (layers >= exit_layers[:, None] - patience)
        # One of them changing its mind is enough, so the least sure one counts.
        return (1 - margin.masked_fill(~agreeing, 1.0).amin(dim=-1)).clamp(0, MOST)

    return closeness


def _by_uncertainty(criterion: Any) -> Closeness:
    """Mean of 1 - top-2 margin over the executed exits: what voting and any new criterion get."""

    def closeness(logits: Tensor, exit_layers: Tensor) -> Tensor:
        top = torch.softmax(logits, dim=-1).topk(2, dim=-1).values
        layers = torch.arange(1, logits.shape[1] + 1)[None, :]
        executed = (layers <= exit_layers[:, None]).to(logits.dtype)
        unsure = (1 - (top[..., 0] - top[..., 1])) * executed
        return (unsure.sum(dim=-1) / exit_layers.to(logits.dtype)).clamp(0, MOST)

    return closeness


_SPECIFIC: Mapping[str, Callable[[Any], Closeness]] = {
    "threshold": _by_threshold,
    "patience": _by_patience,
}
