"""From pairs of texts to training batches of a decoder."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import Dataset

from eexit_cli.training.batches import Features, count_cut
from eexit_cli.training.decoder_losses import IGNORED


class TokenizedPairs(Dataset[Features]):
    """Token ids of sources and targets of a whole split, in memory.

    Args:
        tokenizer: a transformers tokenizer whose sequences end with the end token.
        sources, targets: the samples.
        max_source, max_target: tokens kept, the end token included.

    Attributes:
        lengths: tokens per sample after cutting, source and target together.
        sources_cut, targets_cut: samples that were cut.
    """

    def __init__(
        self,
        tokenizer: Any,
        sources: Sequence[str],
        targets: Sequence[str],
        *,
        max_source: int,
        max_target: int,
    ) -> None:
        self._sources, self.sources_cut = _tokenize(tokenizer, sources, max_source)
        self._targets, self.targets_cut = _tokenize(tokenizer, targets, max_target)
        self.lengths = [
            len(source) + len(target)
            for source, target in zip(self._sources, self._targets, strict=True)
        ]

    def __len__(self) -> int:
        return len(self._sources)

    def __getitem__(self, index: int) -> Features:
        return {"input_ids": self._sources[index], "labels": self._targets[index]}


def _tokenize(tokenizer: Any, texts: Sequence[str], longest: int) -> tuple[list[list[int]], int]:
    rows: list[list[int]] = tokenizer(
        list(texts),
        truncation=True,
        max_length=longest,
        padding=False,
        return_attention_mask=False,
    )["input_ids"]
    return rows, count_cut(tokenizer, texts, None, [len(row) for row in rows], longest)


class PadPairs:
    """Collates features into tensors, padded on the right to the longest of the batch.

    Args:
        pad: id that fills sources; targets are filled with -100.
    """

    def __init__(self, pad: int) -> None:
        self.pad = pad

    def __call__(self, features: list[Features]) -> dict[str, Tensor]:
        """``input_ids``, ``attention_mask`` and ``labels``, int64. Shape: [batch, tokens]."""
        sources = [row["input_ids"] for row in features]
        targets = [row["labels"] for row in features]
        input_ids, mask = _padded(sources, self.pad)
        labels, _ = _padded(targets, IGNORED)
        return {"input_ids": input_ids, "attention_mask": mask, "labels": labels}


def _padded(rows: list[list[int]], fill: int) -> tuple[Tensor, Tensor]:
    longest = max(len(row) for row in rows)
    filled = [row + [fill] * (longest - len(row)) for row in rows]
    sizes = torch.tensor([len(row) for row in rows]).unsqueeze(1)
    mask = (torch.arange(longest).unsqueeze(0) < sizes).to(torch.int64)
    return torch.tensor(filled, dtype=torch.int64), mask
