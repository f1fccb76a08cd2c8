"""What a decoder slowdown minimises: SAME's loss on the exits of every output token.

SAME (Chen et al., ACL 2023) makes a classifier's exits unsure and neighbouring exits disagree. A
decoder's token (CALM, arXiv:2207.07061) leaves by the confidence of one exit alone, whatever its
neighbours say, so the token to flip to is the runner-up of the same exit: that is what takes the
margin p1 - p2 away. Exits that no token is asked at (before ``min_layer``, and the last layer) are
left out. The loss of an output is the sum over its tokens.

Where the confidence is no function of the logits (saturation, trained classifiers) the loss is
read off that confidence itself: -log(1 - c), the negative log-likelihood of "go on". Its gradient
does not vanish where a classifier is nearly certain, only within :data:`LEAST_DOUBT` of 1.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from eexit_cli.attacks.slowdown_loss import exit_weights

LEAST_DOUBT = 1e-6
"""Bound on 1 - c: a confidence of exactly 1 costs a finite loss."""


def asked_weights(exit_layers: Tensor, asked: Sequence[int], num_layers: int) -> Tensor:
    """SAME's weights of the exits that are asked, by token.

    Args:
        exit_layers: where each token leaves now, 1..L. Shape: [batch, tokens].
        asked: layers after which the confidence is compared with the threshold.
        num_layers: L.

    Returns:
        Shape: [batch, tokens, exits], float64.
    """
    weights = exit_weights(exit_layers.reshape(-1), num_layers)
    columns = torch.tensor(asked, dtype=torch.int64, device=weights.device) - 1
    return weights[:, columns].reshape(*exit_layers.shape, -1)


def logits_loss(logits: Tensor, weights: Tensor, *, lam: float) -> Tensor:
    """lam * CE(z_i, runner-up) + (1 - lam) * CE(z_i, uniform), weighted and averaged over exits.

    Args:
        logits: of the vocabulary at the exits that are asked.
            Shape: [batch, tokens, exits, vocabulary].
        weights: of :func:`asked_weights`. Shape: [batch, tokens, exits].
        lam: weight of the first term, in [0, 1].

    Returns:
        Loss of each token. Shape: [batch, tokens].
    """
    log_p = torch.log_softmax(logits, dim=-1)
    runner_up = logits.detach().topk(2, dim=-1).indices[..., 1:]
    # Shape: [batch, tokens, exits] each
    flip = -log_p.gather(-1, runner_up).squeeze(-1)
    unsure = -log_p.mean(dim=-1)
    return (weights.to(logits.dtype) * (lam * flip + (1 - lam) * unsure)).mean(dim=-1)


def confidence_loss(confidences: Tensor, weights: Tensor) -> Tensor:
    """-log(1 - c_i), weighted and averaged over exits.

    Args:
        confidences: in [0, 1], at the exits that are asked. Shape: [batch, tokens, exits].
        weights: of :func:`asked_weights`. Shape: [batch, tokens, exits].

    Returns:
        Loss of each token. Shape: [batch, tokens].
    """
    doubt = (1 - confidences).clamp_min(LEAST_DOUBT)
    return (weights.to(confidences.dtype) * -doubt.log()).mean(dim=-1)


def exits_loss(
    values: Tensor,
    exit_layers: Tensor,
    *,
    asked: Sequence[int],
    num_layers: int,
    lam: float | None,
) -> Tensor:
    """The loss that fits what was read off the exits.

    Args:
        values: logits, Shape: [batch, tokens, exits, vocabulary], or confidences, Shape: [batch,
            tokens, exits].
        exit_layers: where each token leaves now, 1..L. Shape: [batch, tokens].
        asked: layers that ``values`` are of.
        num_layers: L.
        lam: of :func:`logits_loss`; None for confidences.

    Returns:
        Loss of each token. Shape: [batch, tokens].
    """
    weights = asked_weights(exit_layers, asked, num_layers)
    if lam is None:
        return confidence_loss(values, weights)
    return logits_loss(values, weights, lam=lam)
