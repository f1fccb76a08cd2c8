"""Training losses over exits, as pure functions.

A classifier's take its exits' logits; with one output per exit (regression) the cross-entropy
becomes the squared error, as in the public code of every method here. A decoder's take the states
that the LM head reads, one tensor per layer, and the head itself as a function, so that it runs on
the layers that the loss needs and on no other.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

ExitLoss = Callable[[Tensor, Tensor], Tensor]
"""(logits [batch, exits, classes], labels [batch]) -> a scalar."""

Head = Callable[[Tensor], Tensor]
"""LM head: Shape: [..., d] -> [..., vocabulary]."""

LayerLoss = Callable[[Sequence[Tensor], Head, Tensor], Tensor]
"""(states of each layer, LM head, labels) -> a scalar."""

Distillation = Literal["dynamic", "uniform", "last", "none"]

IGNORED = -100
"""Label of padding."""


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
    """PABEE's loss (arXiv:2006.04152): :func:`later_weigh_more` of the exits' cross-entropies."""
    return later_weigh_more(exit_losses(logits, labels))


def later_weigh_more(losses: Tensor) -> Tensor:
    """sum_j j * loss_j / sum_j j, j counted from 1, of losses Shape: [exits]."""
    weights = torch.arange(1, len(losses) + 1, dtype=losses.dtype, device=losses.device)
    return (weights * losses).sum() / weights.sum()


def token_cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    """Mean over the target tokens, in nats.

    Args:
        logits: Shape: [batch, tokens, vocabulary].
        labels: -100 where padded. Shape: [batch, tokens].
    """
    return F.cross_entropy(logits.flatten(0, 1), labels.flatten(), ignore_index=IGNORED)


def last_cross_entropy(states: Sequence[Tensor], head: Head, labels: Tensor) -> Tensor:
    """The last layer's alone: ordinary fine-tuning.

    Args:
        states: Shape: layers x [batch, tokens, d].
        head: the LM head.
        labels: Shape: [batch, tokens].
    """
    return token_cross_entropy(head(states[-1]), labels)


def weighted_cross_entropy(states: Sequence[Tensor], head: Head, labels: Tensor) -> Tensor:
    """CALM's loss (arXiv:2207.07061): its layers weigh as PABEE's exits do.

    Arguments as :func:`last_cross_entropy`.
    """
    losses = [token_cross_entropy(head(state), labels) for state in states]
    return later_weigh_more(torch.stack(losses))


def shallow_deep_cross_entropy(
    states: Sequence[Tensor], head: Head, labels: Tensor, *, shallow: int
) -> Tensor:
    """FREE's two exits (arXiv:2310.05424): (k * CE_k + L * CE_L) / (k + L).

    Args:
        shallow: k, 1..L-1.
    """
    deep = len(states)
    total = shallow * token_cross_entropy(head(states[shallow - 1]), labels)
    return (total + deep * token_cross_entropy(head(states[-1]), labels)) / (shallow + deep)


def layer_distillation(
    states: Sequence[Tensor], labels: Tensor, *, shallow: int, mapping: Distillation
) -> Tensor:
    """FREE's layer-wise distillation of the deep decoder into the shallow one.

    Mean squared error between layers 1..k and k layers of the whole decoder, whose states are
    constants here. FREE lists those teachers for the depths of its models; spread evenly over any
    depth they are the layers round(j * L / k), j = 1..k, which gives its list wherever k divides L.

    - ``last``: layer k from layer L.
    - ``uniform``: layer j from the j-th teacher.
    - ``dynamic``: each teacher, from the deepest on, is followed by the closest of the layers
      below the one that follows the teacher above it; where none is left, by that one again.

    Unlike the public code, positions of padding do not count.

    Args:
        states: Shape: layers x [batch, tokens, d].
        labels: -100 where padded. Shape: [batch, tokens].
        shallow: k, 1..L-1.
        mapping: ``none`` gives 0.
    """
    kept = labels != IGNORED
    if mapping == "none":
        return states[0].new_zeros(())
    if mapping == "last":
        return F.mse_loss(states[shallow - 1][kept], states[-1][kept].detach())
    teachers = [states[layer - 1][kept].detach() for layer in teacher_layers(len(states), shallow)]
    students = [state[kept] for state in states[:shallow]]
    if mapping == "uniform":
        pairs = list(zip(students, teachers, strict=True))
        return torch.stack([F.mse_loss(student, teacher) for student, teacher in pairs]).mean()
    # Shape: [teachers, students]
    distances = torch.stack(
        [
            torch.stack([F.mse_loss(student, teacher) for student in students])
            for teacher in teachers
        ]
    )
    followers = _followers(distances.detach())
    return torch.stack([row[index] for row, index in zip(distances, followers, strict=True)]).mean()


def teacher_layers(depth: int, shallow: int) -> list[int]:
    """``shallow`` layers of 1..``depth``, evenly spread, the last among them."""
    return [round(step * depth / shallow) for step in range(1, shallow + 1)]


def _followers(distances: Tensor) -> list[int]:
    """The student of each teacher, for rows from shallow to deep; never deeper for a shallower."""
    chosen: list[int] = []
    bound = distances.shape[1]
    for row in reversed(distances):
        if bound > 0:
            bound = int(row[:bound].argmin())
        chosen.append(bound)
        # bound 0 leaves no layer below: the next teachers share layer 1.
    return chosen[::-1]


def agreement_loss(logits: Sequence[Tensor], agreement: Tensor, mask: Tensor) -> Tensor:
    """Balanced cross-entropy of a confidence classifier against "this layer says what L says".

    The log of each class's share in the batch is added to the logits (Menon et al., 2021,
    arXiv:2007.07314), as DL2-CALM and FREE do; the answer is then unaffected by how rare
    disagreement is. A class that is absent gets -inf. Layer L agrees with itself and is no target.

    Args:
        logits: of "differs" and "agrees", for layers 1..L-1.
            Shape: L-1 x [batch, tokens, 2].
        agreement: Shape: [batch, tokens, layers] with at least L-1 layers, bool.
        mask: True where there is a target token. Shape: [batch, tokens], bool.
    """
    # Shape: [tokens of the batch * (L-1), 2] and [the same]
    given = torch.cat([layer[mask] for layer in logits]).float()
    wanted = torch.cat([agreement[..., index][mask] for index in range(len(logits))])
    share = wanted.float().mean()
    prior = torch.stack([1 - share, share]).log()
    return F.cross_entropy(given + prior, wanted.long())
