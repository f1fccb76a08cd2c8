"""Attention classifiers at decoding time: token by token, with caches of their own.

The keys and values of a state do not depend on the layer, because one classifier serves all
layers. So when a token reaches layer i, its keys and values are written for layer i and every
deeper one at once; a deeper layer overwrites them if the token gets there, and otherwise they are
already those of the copied state.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from eexit_cli.confidence.classifiers.attention import HEADS, AttentionClassifier
from eexit_cli.confidence.classifiers.folding import (
    Affine,
    FoldedOnce,
    affine,
    chain,
    difference,
)
from eexit_cli.core.decoding import LayerView, Needs


class FoldedAttention(NamedTuple):
    """An attention classifier as three products.

    Attributes:
        project: state -> scaled query, key, value. Shapes: [d, 3e], [3e].
        hidden: the head's inner map after the output projection; None for the linear head.
        last: to z1 - z0.
    """

    project: Affine
    hidden: Affine | None
    last: Affine


class AttentionMeasure:
    """softmax(classifier(states so far))[1] of the newest token."""

    needs: Needs = "state"

    def __init__(self, classifier: AttentionClassifier) -> None:
        self.name = classifier.name
        self.width = classifier.width
        self._folded: FoldedOnce[FoldedAttention] = FoldedOnce(classifier, lambda: fold(classifier))

    def session(
        self, *, slots: int, num_layers: int, max_tokens: int, like: Tensor
    ) -> AttentionSession:
        return AttentionSession(self._folded(), self.width, slots, num_layers, max_tokens, like)


def fold(classifier: AttentionClassifier) -> FoldedAttention:
    """The classifier's maps, joined where no nonlinearity lies between them."""
    attention = classifier.multihead_attn
    scale = (classifier.width // HEADS) ** -0.5
    maps = []
    weights = attention.in_proj_weight.detach().chunk(3)
    biases = attention.in_proj_bias.detach().chunk(3)
    outer = (classifier.query_proj, classifier.key_proj, classifier.value_proj)
    for layer, weight, bias, factor in zip(outer, weights, biases, (scale, 1.0, 1.0), strict=True):
        maps.append(chain(affine(layer), Affine(weight.t() * factor, bias * factor)))
    project = Affine(
        torch.cat([item.matrix for item in maps], dim=1).contiguous(),
        torch.cat([item.bias for item in maps]),
    )
    out = affine(attention.out_proj)
    head = classifier.classifier
    if isinstance(head, nn.Linear):
        return FoldedAttention(project, None, chain(out, difference(head)))
    assert isinstance(head, nn.Sequential)
    inner, final = head[0], head[2]
    assert isinstance(inner, nn.Linear)
    assert isinstance(final, nn.Linear)
    return FoldedAttention(project, chain(out, affine(inner)), difference(final))


class AttentionSession:
    """Caches of one batch.

    Keys and values, Shape: [2, layers - 1, slots, heads, positions, e / heads]: the last layer
    decides nothing.
    """

    def __init__(
        self,
        weights: FoldedAttention,
        width: int,
        slots: int,
        num_layers: int,
        max_tokens: int,
        like: Tensor,
    ) -> None:
        self._weights = weights
        self._size = width // HEADS
        self._cache = like.new_zeros(
            2, max(num_layers - 1, 1), slots, HEADS, max_tokens, self._size
        )

    def confidence(self, view: LayerView) -> Tensor:
        assert view.state is not None
        rows = view.state.shape[0]
        length = view.position + 1 - view.first
        # Shape: [rows, 3, heads, size]
        projected = self._weights.project(view.state).view(rows, 3, HEADS, self._size)
        # Shape: [2, rows, heads, size]
        fresh = projected[:, 1:].transpose(0, 1)
        cache = self._cache[:, view.layer - 1 :, :, :, view.position]
        if view.rows is None:
            cache.copy_(fresh.unsqueeze(1))
        else:
            layers = cache.shape[1]
            cache.index_copy_(2, view.rows, fresh.unsqueeze(1).expand(-1, layers, -1, -1, -1))
        # Shape: [2, rows, heads, length, size]
        seen = self._cache[:, view.layer - 1].narrow(3, view.first, length)
        hidden_places = view.hidden
        if view.rows is not None:
            seen = seen.index_select(1, view.rows)
            if hidden_places is not None:
                hidden_places = hidden_places.index_select(0, view.rows)
        keys, values = seen.flatten(1, 2).unbind(0)
        query = projected[:, 0].reshape(rows * HEADS, 1, self._size)
        # Shape: [rows * heads, 1, length]
        scores = torch.bmm(query, keys.transpose(1, 2))
        if hidden_places is not None:
            scores.view(rows, HEADS, length).add_(hidden_places.unsqueeze(1))
        weights = torch.softmax(scores, dim=-1)
        # Shape: [rows * heads, 1, size] -> [rows, width]
        hidden = torch.bmm(weights, values).view(rows, HEADS * self._size)
        if self._weights.hidden is not None:
            hidden = self._weights.hidden(hidden).relu_()
        return torch.sigmoid_(self._weights.last(hidden)).squeeze(-1)

    def compact(self, slots: Tensor) -> None:
        self._cache = self._cache.index_select(2, slots)

    def shift(self, offset: int) -> None:
        kept = self._cache.shape[4] - offset
        self._cache.narrow(4, 0, kept).copy_(self._cache.narrow(4, offset, kept).clone())


def build(classifier: AttentionClassifier) -> AttentionMeasure:
    return AttentionMeasure(classifier)
