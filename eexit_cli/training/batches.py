"""From texts to training samples, and the order in which they are learned from."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch.utils.data import Dataset, Sampler

from eexit_cli.core.seed import derive_seed


class Tokenized(Dataset[dict[str, Any]]):
    """Token ids and labels of a whole split, in memory.

    Args:
        columns: what a batch is made of, each with an entry per sample.
        lengths: tokens per sample after cutting.
        cut: what was cut, in how many samples, and after how many tokens.
    """

    def __init__(
        self,
        columns: Mapping[str, Sequence[Any]],
        lengths: Sequence[int],
        cut: Sequence[tuple[str, int, int]],
    ) -> None:
        self.columns = columns
        self.lengths = lengths
        self.cut = cut

    @classmethod
    def of_texts(
        cls,
        tokenizer: Any,
        texts: Sequence[str],
        pairs: Sequence[str] | None,
        labels: Sequence[int] | Sequence[float],
        *,
        max_length: int,
    ) -> Tokenized:
        """Texts with a class or a value each.

        Args:
            tokenizer: a transformers tokenizer.
            texts, pairs: the samples; ``pairs`` is None for single texts.
            labels: class ids, or values for regression.
            max_length: tokens kept per sample, special tokens included.
        """
        columns, cut = _tokenize(tokenizer, texts, pairs, max_length)
        lengths = [len(row) for row in columns["input_ids"]]
        return cls({**columns, "labels": labels}, lengths, [("texts", cut, max_length)])

    @classmethod
    def of_pairs(
        cls,
        tokenizer: Any,
        sources: Sequence[str],
        targets: Sequence[str],
        *,
        max_source: int,
        max_target: int,
    ) -> Tokenized:
        """Sources with the target to write from each; a length is that of both together.

        Args:
            tokenizer: a transformers tokenizer whose sequences end with the end token.
            sources, targets: the samples.
            max_source, max_target: tokens kept, the end token included.
        """
        read, sources_cut = _tokenize(tokenizer, sources, None, max_source)
        written, targets_cut = _tokenize(tokenizer, targets, None, max_target)
        columns = {"input_ids": read["input_ids"], "labels": written["input_ids"]}
        return cls(
            columns,
            [len(one) + len(other) for one, other in zip(*columns.values(), strict=True)],
            [("sources", sources_cut, max_source), ("targets", targets_cut, max_target)],
        )

    @classmethod
    def of_prompts(
        cls,
        prompts: Any,
        tokenizer: Any,
        sources: Sequence[str],
        targets: Sequence[str],
        *,
        max_target: int,
        end: int | None = None,
    ) -> Tokenized:
        """Prompts with the completion to write after each; a length is that of both together.

        Args:
            prompts: a batcher of them, with ``rows``, ``truncated`` and ``max_length``.
            tokenizer: of the completions, which get no special token but the end.
            max_target: tokens kept of a completion, the end token included.
            end: what ends a completion; None is the tokenizer's end token.
        """
        read = prompts.rows(sources)
        written, cut = [], 0
        last = tokenizer.eos_token_id if end is None else end
        rows = tokenizer(list(targets), add_special_tokens=False, verbose=False)["input_ids"]
        for row in rows:
            whole = [*row, last] if last is not None else row
            cut += len(whole) > max_target
            written.append(whole[:max_target])
        return cls(
            {"input_ids": read, "labels": written},
            [len(one) + len(other) for one, other in zip(read, written, strict=True)],
            [("prompts", prompts.truncated, prompts.max_length), ("targets", cut, max_target)],
        )

    @classmethod
    def of_pieces(cls, pieces: Sequence[Sequence[int]], prompt: int) -> Tokenized:
        """Pieces of one text, of which every token is learned but the first ones.

        Args:
            pieces: ids of each.
            prompt: tokens of a piece that are only read.
        """
        columns = {
            "input_ids": [list(piece[:prompt]) for piece in pieces],
            "labels": [list(piece[prompt:]) for piece in pieces],
        }
        return cls(columns, [len(piece) for piece in pieces], [])

    def __len__(self) -> int:
        return len(self.lengths)

    def __getitem__(self, index: int) -> dict[str, Any]:
        return {name: column[index] for name, column in self.columns.items()}


def _tokenize(
    tokenizer: Any, texts: Sequence[str], pairs: Sequence[str] | None, max_length: int
) -> tuple[dict[str, list[list[int]]], int]:
    """Token ids, segments where the tokenizer has any, and how many texts were cut."""

    def ids(places: Sequence[int], **others: Any) -> Any:
        return tokenizer(
            [texts[place] for place in places],
            None if pairs is None else [pairs[place] for place in places],
            padding=False,
            return_attention_mask=False,
            **others,
        )

    encoded = ids(range(len(texts)), truncation=True, max_length=max_length)
    # Only samples that fill the limit can have been cut: the others need no second look.
    full = [place for place, row in enumerate(encoded["input_ids"]) if len(row) >= max_length]
    whole = ids(full, truncation=False, verbose=False)["input_ids"] if full else ()
    columns = {name: encoded[name] for name in ("input_ids", "token_type_ids") if name in encoded}
    return columns, sum(len(row) > max_length for row in whole)


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
