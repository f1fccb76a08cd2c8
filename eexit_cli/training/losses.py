"""Training losses over all exits, as pure functions of logits and labels.

With one output per exit (regression) the cross-entropy becomes the squared error, as in the
public code of every method here.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

ExitLoss = Callable[[Tensor, Tensor], Tensor]
"""(logits [batch, exits, classes], labels [batch]) -> a scalar."""


def exit_losses(logits: Tensor, labels: Tensor) -> Tensor:
    """Each exit's own loss, averaged over the batch.

    Args:
        logits: Shape: [batch, exits, classes].
        labels: class ids (int64), or values (float) when there is one output. Shape: [batch].

    Returns:
        Cross-entropies in nats, or squared errors for one output. Shape: [exits].
    """
    batch, exits, classes = logits.shape
    if classes == 1:
        # Shape: [batch, exits] against [batch, 1]
        errors = logits.squeeze(-1) - labels.to(logits.dtype).unsqueeze(-1)
        return errors.square().mean(dim=0)
    # Shape: [batch * exits, classes] against [batch * exits]
    repeated = labels.unsqueeze(-1).expand(batch, exits).reshape(-1)
    losses = F.cross_entropy(logits.reshape(-1, classes), repeated, reduction="none")
    return losses.reshape(batch, exits).mean(dim=0)


def final_loss(logits: Tensor, labels: Tensor) -> Tensor:
    """The last exit's loss alone: ordinary fine-tuning. Arguments as :func:`exit_losses`."""
    return exit_losses(logits[:, -1:], labels)[0]


def ramps_loss(logits: Tensor, labels: Tensor) -> Tensor:
    """DeeBERT's second stage (arXiv:2004.12993): the sum over the ramps 1..L-1."""
    return exit_losses(logits[:, :-1], labels).sum()


def joint_loss(logits: Tensor, labels: Tensor) -> Tensor:
    """The sum over all exits (BERxiT's "joint", EACL 2021)."""
    return exit_losses(logits, labels).sum()


def weighted_loss(logits: Tensor, labels: Tensor) -> Tensor:
    """PABEE's loss (arXiv:2006.04152): sum_j j * CE_j / sum_j j, j counted from 1."""
    losses = exit_losses(logits, labels)
    weights = torch.arange(1, len(losses) + 1, dtype=losses.dtype, device=losses.device)
    return (weights * losses).sum() / weights.sum()
