"""From texts to training batches: tokenised once, grouped by length, padded per batch."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import Dataset, Sampler

from eexit_cli.core.seed import derive_seed

Features = dict[str, Any]


class TokenizedTexts(Dataset[Features]):
    """Token ids and labels of a whole split, in memory.

    Args:
        tokenizer: a transformers tokenizer.
        texts, pairs: the samples; ``pairs`` is None for single texts.
        labels: class ids, or values for regression.
        max_length: tokens kept per sample, special tokens included.

    Attributes:
        lengths: tokens per sample after cutting.
        truncated: samples that were cut.
    """

    def __init__(
        self,
        tokenizer: Any,
        texts: Sequence[str],
        pairs: Sequence[str] | None,
        labels: Sequence[int] | Sequence[float],
        *,
        max_length: int,
    ) -> None:
        encoded = tokenizer(
            list(texts),
            None if pairs is None else list(pairs),
            truncation=True,
            max_length=max_length,
            padding=False,
            return_attention_mask=False,
        )
        self._input_ids: list[list[int]] = encoded["input_ids"]
        self._segments: list[list[int]] | None = encoded.get("token_type_ids")
        self._labels = list(labels)
        self.lengths = [len(row) for row in self._input_ids]
        self.truncated = count_cut(tokenizer, texts, pairs, self.lengths, max_length)

    def __len__(self) -> int:
        return len(self._input_ids)

    def __getitem__(self, index: int) -> Features:
        features: Features = {"input_ids": self._input_ids[index], "labels": self._labels[index]}
        if self._segments is not None:
            features["token_type_ids"] = self._segments[index]
        return features


def count_cut(
    tokenizer: Any,
    texts: Sequence[str],
    pairs: Sequence[str] | None,
    lengths: Sequence[int],
    max_length: int,
) -> int:
    """How many texts have more tokens than were kept."""
    # Only samples that fill the limit can have been cut: the others need no second look.
    full = [index for index, length in enumerate(lengths) if length >= max_length]
    if not full:
        return 0
    whole = tokenizer(
        [texts[index] for index in full],
        None if pairs is None else [pairs[index] for index in full],
        truncation=False,
        padding=False,
        return_attention_mask=False,
        verbose=False,
    )
    return sum(len(row) > max_length for row in whole["input_ids"])


class PadRight:
    """Collates features into tensors, padded on the right to the longest sample of the batch.

    Args:
        tokenizer: its padding id and segment are used.
    """

    def __init__(self, tokenizer: Any) -> None:
        self.fill = {
            "input_ids": int(tokenizer.pad_token_id),
            "token_type_ids": int(tokenizer.pad_token_type_id),
        }

    def __call__(self, features: list[Features]) -> dict[str, Tensor]:
        """Each entry Shape: [batch, tokens], int64; ``labels`` Shape: [batch]."""
        sizes = [len(row["input_ids"]) for row in features]
        longest = max(sizes)
        batch: dict[str, Tensor] = {}
        for name, fill in self.fill.items():
            if name in features[0]:
                rows = [row[name] + [fill] * (longest - len(row[name])) for row in features]
                batch[name] = torch.tensor(rows, dtype=torch.int64)
        # Shape: [batch, tokens]
        positions = torch.arange(longest).unsqueeze(0)
        batch["attention_mask"] = (positions < torch.tensor(sizes).unsqueeze(1)).to(torch.int64)
        batch["labels"] = torch.tensor([row["labels"] for row in features])
        return batch


class LengthGroupedBatches(Sampler[int]):
    """A random order in which consecutive batches hold samples of similar length.

    The order depends on the seed and the epoch alone, so a run resumed in the middle of an epoch
    sees the samples that the unbroken run would have seen. Within a window of ``window`` batches
    samples are sorted by length; the batches themselves are shuffled, except the last, short one.

    Args:
        lengths: tokens per sample.
        batch_size: of one batch of one process.
        seed: of the order.
        window: batches sorted together; larger pads less and mixes less.
    """

    def __init__(
        self, lengths: Sequence[int], batch_size: int, seed: int, *, window: int = 50
    ) -> None:
        self.lengths = lengths
        self.batch_size = batch_size
        self.seed = seed
        self.window = window
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch whose order the next iteration gives."""
        self.epoch = epoch

    def __len__(self) -> int:
        return len(self.lengths)

    def __iter__(self) -> Iterator[int]:
        generator = torch.Generator()
        generator.manual_seed(derive_seed(self.seed, "order", self.epoch))
        order = torch.randperm(len(self.lengths), generator=generator).tolist()
        size = self.batch_size
        full = len(order) // size * size
        tail = order[full:]
        batches: list[list[int]] = []
        for start in range(0, full, size * self.window):
            group = order[start : min(start + size * self.window, full)]
            group.sort(key=lambda index: self.lengths[index])
            batches += [group[first : first + size] for first in range(0, len(group), size)]
        for position in torch.randperm(len(batches), generator=generator).tolist():
            yield from batches[position]
        yield from tail
