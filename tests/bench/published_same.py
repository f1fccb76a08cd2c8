"""SAME's published procedure, taken literally: the yardstick of ``bench_attack.py``.

Written from the paper and the observed behaviour of the authors' program. Everything that makes
it slow is meant: the gradient of the whole embedding matrix, a full sort over positions x
vocabulary, every exit computed for every candidate, exits decided by a Python loop, every round
run to the end. As published, the best of the last round is the answer, only single-piece words are
replaced, and equal exit layers go to the first in alphabetical order. ``upstream`` adds where the
program leaves the paper: its gradient is never zeroed, the uniform term of the loss is divided by K
once more, and DeeBERT's last exit is an untrained ramp.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, field
from typing import Any

import torch
from textattack.constraints.pre_transformation import RepeatModification, StopwordModification
from textattack.shared import AttackedText
from textattack.shared.utils import words_from_text

BATCH_SIZE = 128


@dataclass
class PublishedSame:
    """Token mutation at the published settings.

    Attributes:
        model: a multi-exit classifier; all of its exits are computed for every text.
        tokenizer: WordPiece.
        exit_rule: ("entropy", threshold) or ("patience", patience).
        upstream: the program rather than the paper.
        ramp: with ``upstream``, the untrained ramp L: pooled states to logits; None where the last
            exit is a trained one.
    """

    model: Any
    tokenizer: Any
    exit_rule: tuple[str, float]
    max_length: int = 128
    lam: float = 0.8
    top_n: int = 100
    beam_width: int = 5
    per_size: int = 10
    change_rate: float = 0.1
    upstream: bool = False
    ramp: Any = None
    queries: int = field(default=0, init=False)
    gradient_passes: int = field(default=0, init=False)

    def __post_init__(self) -> None:
        self._known: dict[str, int] = {}
        self.embedding = self.model.word_embeddings.weight
        self.embedding.requires_grad_(True)
        self._may_change = [RepeatModification(), StopwordModification()]

    def attack(self, text: str) -> tuple[int, int, str]:
        """Exit layer before, exit layer after, and the text chosen."""
        self.queries = self.gradient_passes = 0
        self._known.clear()
        original = AttackedText(text)
        before = self.exit_layers([original])[0]
        if before == self.model.num_exits:
            return before, before, text
        beam, answer = [original], (before, text)
        for _ in range(self.per_size):
            candidates = []
            for member in beam:
                candidates += self.candidates(member, original)
            if not candidates:
                break
            layers = self.exit_layers(candidates)
            order = sorted(range(len(layers)), key=lambda index: -layers[index])
            answer = layers[order[0]], candidates[order[0]].text
            beam = [candidates[index] for index in order[: self.beam_width]]
        return before, answer[0], answer[1]

    def candidates(self, text: AttackedText, original: AttackedText) -> list[AttackedText]:
        """The best ``top_n`` swaps that the constraints allow, in alphabetical order."""
        indices = set(range(len(text.words)))
        for constraint in self._may_change:
            indices &= constraint._get_modifiable_indices(text)
        if not indices and not self.upstream:
            return []
        swapped = [
            text.replace_words_at_indices([index], [word])
            for word, index in self.replacements(text, sorted(indices))
        ]
        limit = max(3, math.ceil(len(original.words) * self.change_rate))
        kept = [
            candidate
            for candidate in swapped
            if candidate.text != text.text and len(candidate.all_words_diff(original)) <= limit
        ]
        return sorted(kept, key=lambda candidate: candidate.text)

    def replacements(self, text: AttackedText, indices: list[int]) -> list[tuple[str, int]]:
        """(word, position) pairs from a full sort of positions x vocabulary."""
        gradient, input_ids = self.embedding_gradient(text)
        table = self.embedding.detach()
        changes = torch.zeros(len(indices), len(table))
        for row, index in enumerate(indices):
            own = self.tokenizer.convert_tokens_to_ids(text.words[index])
            if own not in input_ids:
                continue
            along = table.mv(gradient[own])
            changes[row] = along - along[own]
        for special in self.tokenizer.all_special_ids:
            if special != self.tokenizer.unk_token_id:
                changes[:, special] = float("inf")
        found: list[tuple[str, int]] = []
        for place in changes.flatten().argsort(stable=True).tolist():
            row, entry = divmod(place, len(table))
            word = self.tokenizer.convert_ids_to_tokens(entry)
            if word.startswith("##") or not re.search("[A-Za-z]+", word):
                continue
            if len(words_from_text(word)) != 1:
                continue
            found.append((word, indices[row]))
            if len(found) == self.top_n:
                break
        return found

    def embedding_gradient(self, text: AttackedText) -> tuple[torch.Tensor, list[int]]:
        """Gradient of the whole embedding matrix. Shape: [vocabulary, embedding]."""
        self.gradient_passes += 1
        batch = self._encode([text])
        pooled: list[torch.Tensor] = []
        hook = self.model.poolers[-1].register_forward_pre_hook(
            lambda _, given: pooled.append(given[0])
        )
        logits = self.model(**batch).logits
        hook.remove()
        layer = self._decide(logits[0].detach())
        if self.upstream and self.ramp is not None:
            logits = torch.cat([logits[:, :-1], self.ramp(pooled[-1]).unsqueeze(1)], dim=1)
        if not self.upstream:
            self.embedding.grad = None
        self.loss(logits[0], layer).backward()
        gradient = self.embedding.grad
        assert gradient is not None
        return gradient.clone(), batch["input_ids"][0].tolist()

    def loss(self, logits: torch.Tensor, layer: int) -> torch.Tensor:
        """The paper's loss, exit by exit. Shape of ``logits``: [exits, classes]."""
        total = logits.new_zeros(())
        previous = None
        for index in range(len(logits)):
            weight = 0.1 if index + 1 < layer else 1.2 ** (index + 1 - layer)
            ranked = logits[index].argsort(descending=True)
            target = ranked[0] if previous is None or ranked[0] != previous else ranked[1]
            previous = ranked[0]
            log_p = logits[index].log_softmax(-1)
            uniform = log_p.mean() / len(log_p) if self.upstream else log_p.mean()
            total = total - weight * (self.lam * log_p[target] + (1 - self.lam) * uniform)
        return total / len(logits)

    def exit_layers(self, texts: list[AttackedText]) -> list[int]:
        """Where each text leaves; the same text is not run twice."""
        new = [text for text in texts if text.text not in self._known]
        self.queries += len(new)
        for start in range(0, len(new), BATCH_SIZE):
            part = new[start : start + BATCH_SIZE]
            with torch.no_grad():
                logits = self.model(**self._encode(part)).logits
            for row, text in enumerate(part):
                self._known[text.text] = self._decide(logits[row])
        return [self._known[text.text] for text in texts]

    def _decide(self, logits: torch.Tensor) -> int:
        """The exit of one input, from all of its exits. Shape of ``logits``: [exits, classes]."""
        kind, setting = self.exit_rule
        agreements, previous = 0, None
        for index in range(len(logits)):
            if kind == "entropy":
                p = logits[index].softmax(-1)
                if float(-(p * p.log()).sum()) < setting:
                    return index + 1
                continue
            prediction = int(logits[index].argmax())
            agreements = agreements + 1 if prediction == previous else 0
            previous = prediction
            if agreements == int(setting):
                return index + 1
        return len(logits)

    def _encode(self, texts: list[AttackedText]) -> dict[str, torch.Tensor]:
        return dict(
            self.tokenizer(
                [text.text for text in texts],
                padding=True,
                truncation=True,
                max_length=self.max_length,
                return_tensors="pt",
            )
        )
