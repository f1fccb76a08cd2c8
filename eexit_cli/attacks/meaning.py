"""A floor under how much of a text's meaning a change may take away."""

from __future__ import annotations

import torch
from textattack.constraints import Constraint
from textattack.shared import AttackedText
from torch import Tensor

from eexit_cli.attacks.encoder_victim import EncoderVictim
from eexit_cli.attacks.words import columns_of

SIMILARITY = "similarity_score"
"""``attack_attrs`` key, TextAttack's own name for it."""


class SentenceSimilarity(Constraint):
    """Cosine to the original of the mean of the victim's word embeddings, at least ``floor``.

    The originals ask a sentence encoder (USE, or a BERT trained on STS) that comes by download
    only. The mean of static embeddings sees which words stand in a text and not their order, which
    is enough where one word stands for one word. Columns of a pair are taken together.

    Args:
        victim: whose embeddings are used.
        floor: in [-1, 1].
    """

    def __init__(self, victim: EncoderVictim, floor: float) -> None:
        super().__init__(compare_against_original=True)
        self.victim = victim
        self.floor = floor

    def _check_constraint_many(
        self, transformed_texts: list[AttackedText], reference_text: AttackedText
    ) -> list[AttackedText]:
        if not transformed_texts:
            return []
        means = self.means([reference_text, *transformed_texts])
        cosines = torch.nn.functional.cosine_similarity(means[1:], means[:1]).tolist()
        kept = []
        for text, cosine in zip(transformed_texts, cosines, strict=True):
            text.attack_attrs[SIMILARITY] = cosine
            if cosine >= self.floor:
                kept.append(text)
        return kept

    def _check_constraint(
        self, transformed_text: AttackedText, reference_text: AttackedText
    ) -> bool:
        return bool(self._check_constraint_many([transformed_text], reference_text))

    def means(self, texts: list[AttackedText]) -> Tensor:
        """Mean embedding of each text's tokens, special ones apart. Shape: [texts, embedding]."""
        table = self.victim.embedding
        spellings = self.victim.tokenizer(
            [" ".join(columns_of(text)) for text in texts],
            add_special_tokens=False,
            truncation=True,
            max_length=len(columns_of(texts[0])) * self.victim.batcher.max_length,
        )["input_ids"]
        # Shape: [all tokens of all texts]
        ids = torch.tensor([token for text in spellings for token in text], device=table.device)
        starts = torch.tensor([0, *map(len, spellings)], device=table.device).cumsum(0)[:-1]
        return torch.nn.functional.embedding_bag(
            ids.to(torch.int64), table.float(), starts, mode="mean"
        )
