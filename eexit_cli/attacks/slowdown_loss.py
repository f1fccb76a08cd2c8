"""SAME's loss (Chen et al., ACL 2023): make every exit unsure and neighbouring exits disagree."""

from __future__ import annotations

import torch
from torch import Tensor

from eexit_cli.attacks.recipe import UPSTREAM

EARLIER_WEIGHT = 0.1
"""Weight of exits before the current one: they let the input through already."""
GROWTH = 1.2
"""Weight of exit i from the current one, e, on: GROWTH ** (i - e)."""


def exit_weights(exit_layers: Tensor, num_layers: int) -> Tensor:
    """Weight of each exit: 0.1 before the current one, 1.2^(i - e) from it on.

    Args:
        exit_layers: e, 1..L. Shape: [batch], int64.
        num_layers: L.

    Returns:
        Shape: [batch, exits], float64.
    """
    layers = torch.arange(1, num_layers + 1, device=exit_layers.device)
    beyond = (layers[None, :] - exit_layers[:, None]).to(torch.float64)
    return torch.where(beyond < 0, torch.full_like(beyond, EARLIER_WEIGHT), GROWTH**beyond)


def flip_targets(logits: Tensor) -> Tensor:
    """The class that makes each exit disagree with the one before it.

    Exit i's own prediction where it differs from exit i-1's already, else its second-best class.
    Exit 1 has no neighbour before it: its own prediction.

    Args:
        logits: Shape: [batch, exits, classes], at least two classes.

    Returns:
        Class per exit. Shape: [batch, exits], int64.
    """
    # Shape: [batch, exits, 2]
    best = logits.topk(2, dim=-1).indices
    prediction, second = best[..., 0], best[..., 1]
    targets = prediction.clone()
    agrees = prediction[:, 1:] == prediction[:, :-1]
    targets[:, 1:] = torch.where(agrees, second[:, 1:], prediction[:, 1:])
    return targets


def slowdown_loss(
    logits: Tensor, exit_layers: Tensor, *, lam: float, compat: str | None = None
) -> Tensor:
    """lam * CE(z_i, flip_i) + (1 - lam) * CE(z_i, uniform), weighted and averaged over exits.

    The published code divides the uniform term by the number of classes once more; this is the
    paper's formula, and ``compat="upstream"`` the code's.

    Args:
        logits: every exit's logits. Shape: [batch, exits, classes].
        exit_layers: where each input leaves now, 1..L. Shape: [batch], int64.
        lam: weight of the disagreement term, in [0, 1].

    Returns:
        Loss per input, to be minimised. Shape: [batch].
    """
    log_p = torch.log_softmax(logits, dim=-1)
    targets = flip_targets(logits.detach())
    # Shape: [batch, exits] each
    disagree = -log_p.gather(-1, targets.unsqueeze(-1)).squeeze(-1)
    unsure = -log_p.mean(dim=-1)
    if compat == UPSTREAM:
        unsure = unsure / logits.shape[-1]
    weights = exit_weights(exit_layers, logits.shape[1]).to(logits.dtype)
    return (weights * (lam * disagree + (1 - lam) * unsure)).mean(dim=-1)
