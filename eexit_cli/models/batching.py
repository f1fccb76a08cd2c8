"""Texts to tensors: one way to tokenise for training, evaluation and attacks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from eexit_cli.core.errors import UsageError


@dataclass(frozen=True)
class Encoded:
    """One input, token by token.

    Attributes:
        ids: as the model reads them.
        offsets: characters of each token in its text.
        columns: 0, or 1 for the second text of a pair; None for what is of neither: special
            tokens, and what stands around a text.
    """

    ids: list[int]
    offsets: list[tuple[int, int]]
    columns: list[int | None]


class TextBatcher:
    """Tokenises a batch of texts, or pairs of texts, padded on the right to its longest one.

    The models here mask on the right only (dropping rows also trims columns), so the padding side
    is forced, whatever the tokenizer's own setting.

    Args:
        tokenizer: a fast tokenizer.
        max_length: tokens per input, special tokens included; longer inputs are cut and counted.

    Attributes:
        truncated: inputs cut so far.

    Raises:
        UsageError: the tokenizer is not a fast one, or has no padding token.
    """

    def __init__(self, tokenizer: Any, max_length: int) -> None:
        if not getattr(tokenizer, "is_fast", False):
            raise UsageError(
                f"{type(tokenizer).__name__} is not a fast tokenizer",
                hint="Save the fast one beside the model: a tokenizer.json in its folder",
            )
        if tokenizer.pad_token_id is None:
            raise UsageError(
                f"{type(tokenizer).__name__} has no padding token",
                hint="Name one in the folder's tokenizer_config.json: pad_token",
            )
        self.tokenizer = tokenizer
        self.max_length = max_length
        self.truncated = 0

    def encoded(self, texts: Sequence[str], pairs: Sequence[str] | None = None) -> list[Encoded]:
        """The same inputs without padding, with the characters that each token stands for."""
        found = self.tokenizer(
            list(texts),
            None if pairs is None else list(pairs),
            truncation=True,
            max_length=self.max_length,
        ).encodings
        return [Encoded(each.ids, each.offsets, each.sequence_ids) for each in found]

    def __call__(
        self, texts: Sequence[str], pairs: Sequence[str] | None = None
    ) -> dict[str, Tensor]:
        """Tokenise.

        Args:
            texts: one per sample; at least one.
            pairs: the second texts, as many as the first; the longer of the two is cut first.

        Returns:
            ``input_ids``, ``attention_mask`` and, where the tokenizer has segments,
            ``token_type_ids``. Shape of each: [batch, tokens], int64.
        """
        encoded = self.tokenizer(
            list(texts),
            None if pairs is None else list(pairs),
            truncation=True,
            max_length=self.max_length,
            padding=True,
            padding_side="right",
            return_attention_mask=True,
            return_tensors="pt",
        )
        self.truncated += sum(bool(item.overflowing) for item in encoded.encodings)
        names = ("input_ids", "attention_mask", "token_type_ids")
        return {name: encoded[name] for name in names if name in encoded}
