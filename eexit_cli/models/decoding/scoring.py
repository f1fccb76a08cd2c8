"""The LM head at every layer: whole, or on the K tokens kept by top-k propagation.

Top-k propagation (DL2-CALM): the first layer that computes the LM head keeps the K most probable
tokens, deeper layers score only those rows of the head, and the softmax runs over K tokens from
the first layer on. If nothing left early, the last layer scores the full vocabulary.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
import torch
from torch import Tensor

from eexit_cli.core.errors import UsageError
from eexit_cli.core.vocabulary import best
from eexit_cli.models.decoding.int8 import Int8Product
from eexit_cli.models.decoding.results import DecodeCounts
from eexit_cli.models.decoding.stack import Exit, Stack
from eexit_cli.models.finite import Finite

GATHER_COST = 3
"""A gathered head row is read, written and read again; the full product reads each row once."""


PARALLEL_FROM = 1 << 18
"""Elements of the kept rows from which several threads are worth their start."""


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


def allowed(logits: Tensor, ban: Tensor | None) -> Tensor:
    """Logits with what :class:`~.generation.TokenRules` forbids taken out. Shape: the logits'."""
    return logits if ban is None else logits + ban


class FullScorer:
    """The whole LM head at every layer.

    Args:
        stack: the model's.
        counts: told what was computed.
        finite: told the chosen tokens' logits.
    """

    def __init__(self, stack: Stack, counts: DecodeCounts, finite: Finite) -> None:
        self._stack = stack
        self._counts = counts
        self._finite = finite
        self._logits: Tensor | None = None

    def begin(self) -> None:
        """A new token."""

    def logits(
        self, unit: Tensor, ban: Tensor | None = None, through: Exit | None = None
    ) -> Tensor:
        """Through an exit, by default the stack's. Shape: [rows, d] -> [rows, vocabulary]."""
        self._counts.head_rows += unit.shape[0]
        self._logits = allowed((through or self._stack).logits(unit), ban)
        return self._logits

    def choose(self, places: Sequence[int] | None) -> list[int]:
        """Tokens of these rows of the last logits; None is all rows."""
        largest, where = best(self.last(places))
        self._finite.see(largest)
        return where.tolist()

    def last(self, places: Sequence[int] | None) -> Tensor:
        """The last logits of these rows; None is all rows. Shape: [places, vocabulary]."""
        assert self._logits is not None
        return self._logits if places is None else self._logits[list(places)]

    def keep(self, places: Sequence[int]) -> None:
        """Only these rows go on."""


class TopKScorer:
    """Top-k propagation.

    Deeper layers either gather the K rows of the head once per token and multiply those, or
    compute the full product and pick K logits of it. Gathering reads, writes and reads again
    K rows per token, the full product reads the whole head once for all tokens; the cheaper one
    by that count is taken at each layer, so a batch starts with the full product and changes over
    when few rows are left.
    """

    def __init__(self, stack: Stack, counts: DecodeCounts, finite: Finite, top_k: int) -> None:
        rows = stack.head_rows
        weight = rows.weights if isinstance(rows, Int8Product) else rows
        check_top_k(top_k, weight.shape[0])
        self._stack = stack
        self._counts = counts
        self._finite = finite
        self._top_k = top_k
        self.most_gathered = max(1, weight.shape[0] // (GATHER_COST * top_k))
        self._buffer: Tensor | None = None
        # Shape: [rows, K]
        self._tokens: Tensor | None = None
        # The head's K rows of each running token. Shape: rows x [K, d]
        self._kept: list[Tensor] | list[Int8Product] | None = None
        self._logits: Tensor | None = None

    def begin(self) -> None:
        """A new token."""
        self._tokens = None
        self._kept = None

    def logits(
        self, unit: Tensor, ban: Tensor | None = None, through: Exit | None = None
    ) -> Tensor:
        """Through an exit that has the stack's head, by default the stack's.

        Shape: [rows, d] -> [rows, K].
        """
        through = through or self._stack
        if self._tokens is None:
            self._counts.head_rows += unit.shape[0]
            logits = allowed(through.logits(unit), ban)
            self._tokens = _largest(logits, self._top_k)
            self._logits = logits.gather(1, self._tokens)
            return self._logits
        rows = unit.shape[0]
        if self._kept is None and rows <= self.most_gathered:
            self._kept = self._gather(self._tokens)
        if self._kept is None:
            self._counts.head_rows += rows
            self._logits = through.logits(unit).gather(1, self._tokens)
        else:
            self._counts.kept_rows += rows
            scaled = through.head_input(unit)
            # Shape: rows x ([1, d] @ [d, K]) -> [rows, K]
            each: Iterable[Tensor | Int8Product] = self._kept
            parts = [_one_row(scaled[row : row + 1], kept) for row, kept in enumerate(each)]
            self._logits = parts[0] if rows == 1 else torch.cat(parts)
        if ban is not None:
            self._logits = self._logits + ban.expand(rows, -1).gather(1, self._tokens)
        return self._logits

    def _gather(self, tokens: Tensor) -> list[Tensor] | list[Int8Product]:
        rows = self._stack.head_rows
        if isinstance(rows, Int8Product):
            return [rows.rows(each) for each in tokens]
        # One buffer for all steps: fresh memory of this size costs more than the copy.
        if self._buffer is None:
            self._buffer = rows.new_empty(self.most_gathered, self._top_k, self._stack.width)
        kept = []
        for row in range(tokens.shape[0]):
            torch.index_select(rows, 0, tokens[row], out=self._buffer[row])
            kept.append(self._buffer[row])
        return kept

    def choose(self, places: Sequence[int] | None) -> list[int]:
        """Tokens, in the vocabulary's numbering, of these rows of the last logits; None is all."""
        assert self._logits is not None
        assert self._tokens is not None
        logits, tokens = self._logits, self._tokens
        if places is not None:
            logits, tokens = logits[list(places)], tokens[list(places)]
        largest, where = logits.max(dim=-1, keepdim=True)
        self._finite.see(largest.squeeze(1))
        return tokens.gather(1, where).squeeze(1).tolist()

    def keep(self, places: Sequence[int]) -> None:
        """Only these rows go on."""
        assert self._tokens is not None
        self._tokens = self._tokens[list(places)]
        if self._kept is not None:
            self._kept = [self._kept[place] for place in places]  # type: ignore[assignment]


def _largest(logits: Tensor, count: int) -> Tensor:
    """Places of each row's largest, in their order, so that of equals the first is chosen.

    Shape: [rows, V] -> [rows, count].
    """
    if logits.device.type != "cpu":
        return logits.topk(count, dim=-1, sorted=False).indices.sort(dim=-1).values
    # At a vocabulary of 32,128 NumPy's partition took a sixth of the time of torch's topk, and that
    # of the numbers themselves half of the time of that of their places.
    values = (logits if logits.dtype.itemsize >= 4 else logits.float()).numpy()
    if len(values) == 1:
        places = np.flatnonzero(values[0] >= np.partition(values[0], -count)[-count])
        if len(places) == count:  # none shares the last place, and none is NaN
            return torch.from_numpy(places).unsqueeze(0)
    places = np.argpartition(values, -count, axis=-1)[:, -count:]
    return torch.from_numpy(np.sort(places, axis=-1))


def _one_row(x: Tensor, kept: Tensor | Int8Product) -> Tensor:
    """x @ kept.T. Shapes: [1, d], [K, d] -> [1, K]."""
    if isinstance(kept, Int8Product):
        return kept(x)
    threads = torch.get_num_threads()
    if threads == 1 or kept.numel() < PARALLEL_FROM or kept.shape[0] % threads:
        return torch.mm(x, kept.t())
    # A product with one row runs on one thread; cut into a batch it runs on all of them.
    parts = kept.view(threads, -1, kept.shape[1])
    return torch.bmm(x.expand(threads, 1, -1), parts.transpose(1, 2)).view(1, -1)


Scorer = FullScorer | TopKScorer


def scorer_for(stack: Stack, counts: DecodeCounts, finite: Finite, top_k: int | None) -> Scorer:
    """Of all tokens, or of the K that top-k propagation keeps."""
    if top_k is None:
        return FullScorer(stack, counts, finite)
    return TopKScorer(stack, counts, finite, top_k)
