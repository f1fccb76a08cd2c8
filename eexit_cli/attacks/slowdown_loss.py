"""What a slowdown minimises: SAME's loss (Chen et al., ACL 2023), of a classifier and a decoder.

It makes every exit unsure and neighbouring exits disagree. A decoder's token (CALM,
arXiv:2207.07061) leaves by the confidence of one exit alone, whatever its neighbours say, so the
token to flip to is the runner-up of the same exit: that is what takes the margin p1 - p2 away.
Exits that no token is asked at (before ``min_layer``, and the last layer) are left out. The loss of
an output is the sum over its tokens.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from eexit_cli.attacks.recipe import UPSTREAM

EARLIER_WEIGHT = 0.1
"""Weight of exits before the current one: they let the input through already."""
GROWTH = 1.2
"""Weight of exit i from the current one, e, on: GROWTH ** (i - e)."""
LEAST_DOUBT = 1e-6
"""Bound on 1 - c: a confidence of exactly 1 costs a finite loss."""


def exit_weights(exit_layers: Tensor, num_layers: int) -> Tensor:
    """Weight of each exit: 0.1 before the current one, 1.2^(i - e) from it on.

    Args:
        exit_layers: e, 1..L. Shape: [...], int64.
        num_layers: L.

    Returns:
        Shape: [..., exits], float64.
    """
    layers = torch.arange(1, num_layers + 1, device=exit_layers.device)
    beyond = (layers - exit_layers.unsqueeze(-1)).to(torch.float64)
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
    weights = exit_weights(exit_layers, logits.shape[1])
    divisor = logits.shape[-1] if compat == UPSTREAM else 1
    return _weighted(logits, flip_targets(logits.detach()), weights, lam, divisor)


def exits_loss(
    values: Tensor,
    exit_layers: Tensor,
    *,
    asked: Sequence[int],
    num_layers: int,
    lam: float | None,
) -> Tensor:
    """The loss of a decoder's tokens, by what was read off the exits.

    Of logits it is :func:`slowdown_loss` with the runner-up of each exit to flip to. Where the
    confidence is no function of the logits (saturation, trained classifiers) it is read off that
    confidence itself: -log(1 - c), the negative log-likelihood of "go on". Its gradient does not
    vanish where a classifier is nearly certain, only within :data:`LEAST_DOUBT` of 1.

    Args:
        values: logits, Shape: [batch, tokens, exits, vocabulary], or confidences in [0, 1],
            Shape: [batch, tokens, exits].
        exit_layers: where each token leaves now, 1..L. Shape: [batch, tokens].
        asked: layers that ``values`` are of: those after which the confidence is compared with
            the threshold.
        num_layers: L.
        lam: weight of the term that flips, in [0, 1]; None for confidences.

    Returns:
        Loss of each token. Shape: [batch, tokens].
    """
    columns = torch.tensor(asked, dtype=torch.int64, device=exit_layers.device) - 1
    weights = exit_weights(exit_layers, num_layers)[..., columns]
    if lam is None:
        doubt = (1 - values).clamp_min(LEAST_DOUBT)
        return (weights.to(values.dtype) * -doubt.log()).mean(dim=-1)
    return _weighted(values, values.detach().topk(2, dim=-1).indices[..., 1], weights, lam)


def drafts_loss(values: Tensor, exit_layers: Tensor) -> Tensor:
    """The loss of self-speculation's drafts: CE(z_E, runner-up of z_E) where layers E and L agree.

    What they disagree about is rejected already.

    Args:
        values: logits of layer E and of the last. Shape: [batch, tokens, 2, vocabulary].
        exit_layers: not read: all layers make every token. Shape: [batch, tokens].

    Returns:
        Loss of each token. Shape: [batch, tokens].
    """
    early, last = values.unbind(dim=2)
    # Shape: [batch, tokens, 2]
    best = early.detach().topk(2, dim=-1).indices
    agree = best[..., 0] == last.detach().argmax(dim=-1)
    flip = -torch.log_softmax(early, dim=-1).gather(-1, best[..., 1:]).squeeze(-1)
    return flip * agree


def end_loss(values: Tensor, exit_layers: Tensor, *, ends: Sequence[int]) -> Tensor:
    """The loss of an output's length: log p(end) of each token, so that outputs go on.

    Args:
        values: logits of the last layer. Shape: [batch, tokens, 1, vocabulary].
        exit_layers: not read.
        ends: tokens that end an output.

    Returns:
        Loss of each token. Shape: [batch, tokens].
    """
    logs = torch.log_softmax(values[:, :, 0], dim=-1)
    return torch.logsumexp(logs[..., list(ends)], dim=-1)


def _weighted(
    logits: Tensor, targets: Tensor, weights: Tensor, lam: float, divisor: int = 1
) -> Tensor:
    """lam * CE(z, target) + (1 - lam) * CE(z, uniform) / divisor. Shape: [..., exits, classes]."""
    log_p = torch.log_softmax(logits, dim=-1)
    # Shape: [..., exits] each
    flip = -log_p.gather(-1, targets.unsqueeze(-1)).squeeze(-1)
    unsure = -log_p.mean(dim=-1) / divisor
    return (weights.to(logits.dtype) * (lam * flip + (1 - lam) * unsure)).mean(dim=-1)
