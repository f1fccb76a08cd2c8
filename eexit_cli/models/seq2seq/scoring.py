"""The LM head at every layer: whole, or on the K tokens kept by top-k propagation.

Top-k propagation (the seed): the first layer that computes the LM head keeps the K most probable
tokens, deeper layers score only those rows of the head, and the softmax runs over K tokens from
the first layer on. If nothing left early, the last layer scores the full vocabulary.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Protocol

import torch
from torch import Tensor

from eexit_cli.core.errors import UsageError
from eexit_cli.models.seq2seq.results import DecodeCounts
from eexit_cli.models.seq2seq.weights import T5Weights

SAMPLED_COST, GATHER_COST = 2, 3
"""Of one row of the head, against a row of the full product: scattered reads are slower, and a
gathered row is read, written and read again."""

def check_top_k(top_k: int, vocabulary: int) -> None:
    """K must leave a second token to compare with, and no more than there are.

    Raises:
        UsageError: K is below 2 or above the vocabulary.
    """
    if not 2 <= top_k <= vocabulary:
        raise UsageError(
            f"Top-k propagation with K = {top_k} is outside 2..{vocabulary}",
            hint=f"Give a K between 2 and the vocabulary's size, {vocabulary}",
        )


class FullScorer:
    """The whole LM head at every layer."""

    def __init__(self, weights: T5Weights, counts: DecodeCounts) -> None:
        self._weights = weights
        self._counts = counts
        self._logits: Tensor | None = None

    def begin(self) -> None:
        """A new token."""

    def logits(self, unit: Tensor) -> Tensor:
        """Shape: [rows, d] -> [rows, vocabulary]."""
        self._counts.head_rows += unit.shape[0]
        self._logits = self._weights.logits(unit)
        return self._logits

    def choose(self, places: Sequence[int] | None) -> list[int]:
        """Tokens of these rows of the last logits; None is all rows."""
        assert self._logits is not None
        logits = self._logits if places is None else self._logits[list(places)]
        return logits.argmax(dim=-1).tolist()

    def keep(self, places: Sequence[int]) -> None:
        """Only these rows go on."""


class KeptRows(Protocol):
    """Scores on the K rows of the head that each running token has kept."""

    cost: int

    def start(self, tokens: Tensor) -> None:
        """Keep these. Shape: [rows, K], int64."""
        ...

    def scores(self, scaled: Tensor) -> Tensor:
        """Shape: [rows, d] -> [rows, K]."""
        ...

    def keep(self, places: Sequence[int]) -> None:
        """Only these rows go on."""
        ...


class SampledRows:
    """A product that computes the wanted entries alone and copies nothing (CPU).

    Args:
        head: Shape: [vocabulary, d].
    """

    cost = SAMPLED_COST

    def __init__(self, head: Tensor) -> None:
        self._head = head
        self._tokens: Tensor | None = None
        self._pattern: Tensor | None = None

    def start(self, tokens: Tensor) -> None:
        self._tokens = tokens
        self._pattern = None

    def scores(self, scaled: Tensor) -> Tensor:
        assert self._tokens is not None
        rows, top_k = self._tokens.shape
        if self._pattern is None:
            self._pattern = _pattern(self._tokens, self._head.shape[0], scaled.dtype)
        # Shape: [rows, vocabulary], sparse with K entries a row
        product = torch.sparse.sampled_addmm(self._pattern, scaled, self._head.t(), beta=0.0)
        return product.values().view(rows, top_k)

    def keep(self, places: Sequence[int]) -> None:
        assert self._tokens is not None
        self.start(self._tokens[list(places)])


def _pattern(tokens: Tensor, vocabulary: int, dtype: torch.dtype) -> Tensor:
    rows, top_k = tokens.shape
    ends = torch.arange(0, rows * top_k + 1, top_k)
    with warnings.catch_warnings():
        # The format is called a beta once per process.
        warnings.filterwarnings("ignore", "Sparse CSR tensor support", UserWarning)
        return torch.sparse_csr_tensor(
            ends,
            tokens.flatten(),
            torch.zeros(rows * top_k, dtype=dtype),
            (rows, vocabulary),
            check_invariants=False,
        )


class GatheredRows:
    """The K rows of each running token, copied together once; for devices without the other.

    Args:
        head: Shape: [vocabulary, d].
        most: rows at most.
        top_k: K.
    """

    cost = GATHER_COST

    def __init__(self, head: Tensor, most: int, top_k: int) -> None:
        self._head = head
        # One buffer for all steps: fresh memory of this size costs more than the copy.
        self._buffer = head.new_empty(most, top_k, head.shape[1])
        # Shape: rows x [K, d]
        self._kept: list[Tensor] = []

    def start(self, tokens: Tensor) -> None:
        self._kept = []
        for row in range(tokens.shape[0]):
            torch.index_select(self._head, 0, tokens[row], out=self._buffer[row])
            self._kept.append(self._buffer[row])

    def scores(self, scaled: Tensor) -> Tensor:
        # Shape: rows x ([1, d] @ [d, K]) -> [rows, K]
        return torch.cat(
            [torch.mm(scaled[row : row + 1], kept.t()) for row, kept in enumerate(self._kept)]
        )

    def keep(self, places: Sequence[int]) -> None:
        self._kept = [self._kept[place] for place in places]


class TopKScorer:
    """Top-k propagation.

    Deeper layers either score the K kept rows of the head for each token, or compute the full
    product and pick K logits of it. The full product reads the whole head once for all tokens;
    the cheaper one by that count is taken at each layer, so a batch starts with the full product
    and changes over when few rows are left.
    """

    def __init__(self, weights: T5Weights, counts: DecodeCounts, top_k: int) -> None:
        head = weights.head_rows
        check_top_k(top_k, head.shape[0])
        self._weights = weights
        self._counts = counts
        self._top_k = top_k
        sampled = head.device.type == "cpu" and head.dtype in (torch.float32, torch.float64)
        cost = SAMPLED_COST if sampled else GATHER_COST
        self.most_kept = max(1, head.shape[0] // (cost * top_k))
        self._rows: KeptRows = (
            SampledRows(head) if sampled else GatheredRows(head, self.most_kept, top_k)
        )
        # Shape: [rows, K]
        self._tokens: Tensor | None = None
        self._started = False
        self._logits: Tensor | None = None

    def begin(self) -> None:
        """A new token."""
        self._tokens = None
        self._started = False

    def logits(self, unit: Tensor) -> Tensor:
        """Shape: [rows, d] -> [rows, K]."""
        if self._tokens is None:
            self._counts.head_rows += unit.shape[0]
            top = self._weights.logits(unit).topk(self._top_k, dim=-1, sorted=False)
            self._tokens, self._logits = top.indices, top.values
            return self._logits
        rows = unit.shape[0]
        if not self._started and rows <= self.most_kept:
            # In the head's order, which reads its memory faster than the order of probability.
            self._tokens = self._tokens.sort(dim=-1).values
            self._rows.start(self._tokens)
            self._started = True
        if self._started:
            self._counts.kept_rows += rows
            self._logits = self._rows.scores(unit * self._weights.head_scale)
        else:
            self._counts.head_rows += rows
            self._logits = self._weights.logits(unit).gather(1, self._tokens)
        return self._logits

    def choose(self, places: Sequence[int] | None) -> list[int]:
        """Tokens, in the vocabulary's numbering, of these rows of the last logits; None is all."""
        assert self._logits is not None
        assert self._tokens is not None
        logits, tokens = self._logits, self._tokens
        if places is not None:
            logits, tokens = logits[list(places)], tokens[list(places)]
        return tokens.gather(1, logits.argmax(dim=-1, keepdim=True)).squeeze(1).tolist()

    def keep(self, places: Sequence[int]) -> None:
        """Only these rows go on."""
        assert self._tokens is not None
        self._tokens = self._tokens[list(places)]
        if self._started:
            self._rows.keep(places)


Scorer = FullScorer | TopKScorer
