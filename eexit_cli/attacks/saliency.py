"""From token gradients to words: what each word's embedding is and which way it should move."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import torch
from textattack.shared import AttackedText
from torch import Tensor

from eexit_cli.attacks.victim import Loss, Victim
from eexit_cli.attacks.words import WordSpan, tokens_of_words, word_spans


@dataclass(frozen=True)
class WordGradients:
    """The words of a text that may change and that the model saw.

    Attributes:
        indices: their places among ``text.words``, ascending.
        spans: of all words of the text.
        embeddings: mean of each word's pieces. Shape: [words, embedding].
        gradients: sum over each word's pieces: the first-order change of the loss when all of them
            move together. Shape: [words, embedding].
        first_ids: id of each word's first piece. Shape: [words].
        pieces: how many pieces each word has. Shape: [words].
    """

    indices: list[int]
    spans: list[WordSpan]
    embeddings: Tensor
    gradients: Tensor
    first_ids: list[int]
    pieces: list[int]

    def select(self, rows: list[int]) -> WordGradients:
        """Only these rows."""
        return replace(
            self,
            indices=[self.indices[row] for row in rows],
            embeddings=self.embeddings[rows],
            gradients=self.gradients[rows],
            first_ids=[self.first_ids[row] for row in rows],
            pieces=[self.pieces[row] for row in rows],
        )


def word_gradients(
    victim: Victim[Any], loss: Loss, text: AttackedText, indices: set[int]
) -> WordGradients | None:
    """Gradients of the loss at the words that may change.

    Returns:
        None where the budget does not reach for a gradient pass or no word can change.
    """
    if not indices:
        return None
    found = victim.gradients([text.tokenizer_input], loss)
    if not found:
        return None
    token = found[0]
    spans = word_spans(text)
    owners = tokens_of_words(spans, token.offsets, token.columns)
    kept = [index for index in sorted(indices) if owners[index]]
    if not kept:
        return None
    table = victim.embedding
    return WordGradients(
        indices=kept,
        spans=spans,
        embeddings=torch.stack([table[token.input_ids[owners[i]]].mean(dim=0) for i in kept]),
        gradients=torch.stack([token.gradient[owners[i]].sum(dim=0) for i in kept]),
        first_ids=[int(token.input_ids[owners[i][0]]) for i in kept],
        pieces=[len(owners[i]) for i in kept],
    )
