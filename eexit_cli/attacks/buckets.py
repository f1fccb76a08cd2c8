"""Running inputs of different lengths in batches that hold little padding."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import TypeVar

from torch import Tensor

Result = TypeVar("Result")

MOST_PADDING = 1.1
"""A batch may compute this many times the tokens that it holds; then the next one starts."""


class Buckets:
    """Batches of similar length, and the count of what padding cost.

    Args:
        batch_size: most inputs per batch.

    Attributes:
        tokens_held, tokens_computed: over all batches so far, tokens that inputs have, and tokens
            computed with padding.
    """

    def __init__(self, batch_size: int) -> None:
        self.batch_size = batch_size
        self.tokens_held = 0
        self.tokens_computed = 0

    def run(
        self,
        batch: Mapping[str, Tensor],
        run: Callable[[list[dict[str, Tensor]]], Iterable[list[Result]]],
    ) -> list[Result]:
        """One result per input, in their order.

        Args:
            batch: padded on the right, with ``attention_mask``. Shape: [inputs, tokens] each.
            run: gives the results of each part of the inputs.
        """
        lengths = batch["attention_mask"].sum(dim=1).tolist()
        places, parts = list(self._rows(lengths)), []
        for rows in places:
            longest = max(lengths[row] for row in rows)
            self.tokens_held += sum(lengths[row] for row in rows)
            self.tokens_computed += longest * len(rows)
            parts.append({name: value[rows, :longest] for name, value in batch.items()})
        results: dict[int, Result] = {}
        for rows, found in zip(places, run(parts), strict=True):
            results.update(zip(rows, found, strict=True))
        return [results[row] for row in range(len(lengths))]

    def _rows(self, lengths: list[int]) -> Iterator[list[int]]:
        rows: list[int] = []
        held = 0
        for row in sorted(range(len(lengths)), key=lambda index: lengths[index]):
            held += lengths[row]
            padded = lengths[row] * (len(rows) + 1)
            if rows and (len(rows) == self.batch_size or padded > MOST_PADDING * held):
                yield rows
                rows, held = [], lengths[row]
            rows.append(row)
        yield rows
