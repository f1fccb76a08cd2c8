"""SAME's token mutation: the word swaps that lower the loss most, to first order."""

from __future__ import annotations

import torch
from textattack.shared import AttackedText
from textattack.transformations import WordSwap
from torch import Tensor

from eexit_cli.attacks.encoder_victim import EncoderVictim
from eexit_cli.attacks.saliency import WordGradients, word_gradients
from eexit_cli.attacks.victim import Loss
from eexit_cli.attacks.vocabulary import (
    MIXED,
    WordTable,
    apply_capitalisation,
    capitalisation,
)
from eexit_cli.attacks.words import swap_word

ESTIMATE = "estimated_change"
"""``attack_attrs`` key: first-order estimate of how much the loss changes."""


class TokenMutation(WordSwap):
    """Replace a word by a whole-word vocabulary entry v with small (E_v - E_word) . gradient.

    All (position, entry) pairs of a text are ranked together and the best ``top_n`` are kept, with
    one matrix product and a partial selection. A word of several pieces counts with the mean of
    their embeddings and the sum of their gradients. Capitals are kept: with an uncased vocabulary
    in how the replacement is written, with a cased one by choosing entries written alike.

    Args:
        victim: gives the gradients.
        loss: to be lowered.
        top_n: candidates per text.
    """

    def __init__(self, victim: EncoderVictim, loss: Loss, *, top_n: int) -> None:
        super().__init__()
        self.victim = victim
        self.loss = loss
        self.top_n = top_n
        self.is_black_box = False
        embedding = victim.embedding
        self.table = WordTable.of(victim.tokenizer, size=len(embedding))
        # Shape: [entries, embedding]
        self._spaced = embedding[self.table.spaced_ids.to(embedding.device)]
        self._has_bare = (self.table.bare_ids >= 0).to(embedding.device)
        marked = self.table.mark is not None
        self._bare = (
            embedding[self.table.bare_ids.clamp_min(0).to(embedding.device)]
            if marked
            else self._spaced
        )
        self._entry_of: dict[str, list[int]] = {}
        for entry, word in enumerate(self.table.folded):
            self._entry_of.setdefault(word, []).append(entry)

    def _get_transformations(
        self, current_text: AttackedText, indices_to_modify: set[int]
    ) -> list[AttackedText]:
        words = word_gradients(self.victim, self.loss, current_text, indices_to_modify)
        if words is None or not len(self.table):
            return []
        changes, rows, entries = self.best_pairs(words, current_text.words)
        candidates = []
        for change, row, entry in zip(changes, rows, entries, strict=True):
            index = words.indices[row]
            old = current_text.words[index]
            new = self.table.words[entry]
            if not self.table.cased:
                new = apply_capitalisation(new, capitalisation(old))
            candidates.append(
                swap_word(current_text, words.spans[index], index, new, **{ESTIMATE: change})
            )
        return candidates

    def best_pairs(
        self, words: WordGradients, texts: list[str]
    ) -> tuple[list[float], list[int], list[int]]:
        """The ``top_n`` pairs with the lowest estimated change, lowest first.

        Args:
            words: rows = the words that may change.
            texts: all words of the text.

        Returns:
            Estimated change, row and vocabulary entry of each pair.
        """
        # Shape: [rows, entries]
        changes = self._estimated_changes(words)
        self._forbid(changes, [texts[index] for index in words.indices])
        flat = changes.flatten()
        count = min(self.top_n, int((flat < float("inf")).sum()))
        values, places = flat.topk(count, largest=False)
        rows = places.div(changes.shape[1], rounding_mode="floor")
        return values.tolist(), rows.tolist(), (places % changes.shape[1]).tolist()

    def _estimated_changes(self, words: WordGradients) -> Tensor:
        own = (words.gradients * words.embeddings).sum(dim=1, keepdim=True)
        if self.table.mark is None:
            return words.gradients @ self._spaced.T - own
        spaced = torch.tensor(self._are_spaced(words), device=own.device)[:, None]
        bare = words.gradients @ self._bare.T
        bare = bare.masked_fill(~self._has_bare, float("inf"))
        return torch.where(spaced, words.gradients @ self._spaced.T, bare) - own

    def _are_spaced(self, words: WordGradients) -> list[bool]:
        # Sentencepiece marks the first word of a text too, byte BPE only what follows a space.
        mark = self.table.mark or ""
        pieces = self.victim.tokenizer.convert_ids_to_tokens(words.first_ids)
        return [
            words.spans[index].spaced or piece.startswith(mark)
            for index, piece in zip(words.indices, pieces, strict=True)
        ]

    def _forbid(self, changes: Tensor, words: list[str]) -> None:
        """Never the word itself; with a cased vocabulary nothing that is written otherwise."""
        for row, word in enumerate(words):
            same = self._entry_of.get(word.casefold())
            if same:
                changes[row, same] = float("inf")
            pattern = capitalisation(word)
            if self.table.cased and pattern != MIXED:
                other = (self.table.patterns != pattern).to(changes.device)
                changes[row].masked_fill_(other, float("inf"))

    def extra_repr_keys(self) -> list[str]:
        return ["top_n"]
