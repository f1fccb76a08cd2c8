"""Where losses come from: one threshold at a time, each asked for once.

A family of models provides a :class:`LossSource`. For encoders every column comes from one trace
and costs nothing; for decoders a column is a pass over the data, so the engine asks for as few as
it can, and :class:`Ledger` keeps what it got for every delta, epsilon, p-value and n.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from eexit_cli.calibration.losses import FloatArray, check_losses
from eexit_cli.core.errors import UsageError


@dataclass(frozen=True)
class Column:
    """What one threshold does to every sample.

    Attributes:
        losses: in [0, 1]. Shape: [samples].
        exit_layers: layers executed, a mean over tokens for generation. Shape: [samples]; None
            where nobody knows.
        tokens: tokens behind each sample's exit layer, its weight in the mean over all. Shape:
            [samples]; None where every sample counts once.
        outputs: the generated texts, one per sample; None for classes and where nobody knows.
    """

    losses: FloatArray
    exit_layers: FloatArray | None = None
    tokens: FloatArray | None = None
    outputs: Sequence[str] | None = None

    @property
    def mean_exit_layer(self) -> float | None:
        """Over all tokens where they are known, else over samples."""
        if self.exit_layers is None:
            return None
        return float(np.average(self.exit_layers, weights=self.tokens))


class LossSource(Protocol):
    """Losses of one set of samples under thresholds in order from cautious to eager."""

    @property
    def thresholds(self) -> Sequence[float | str]:
        """Numbers, or names where somebody else's columns have no numbers."""
        ...

    @property
    def samples(self) -> int: ...

    @property
    def full_model(self) -> bool:
        """The first threshold is the full model, whose loss is 0 by definition."""
        ...

    @property
    def cheap(self) -> bool:
        """Further columns cost nothing worth saving."""
        ...

    def column(self, index: int) -> Column:
        """Losses and exit layers of threshold ``index``."""
        ...


@dataclass(frozen=True)
class MatrixSource:
    """Losses that are all there already.

    Attributes:
        thresholds: cautious to eager.
        losses: Shape: [samples, thresholds].
        exit_layers: Shape: [samples, thresholds]; None where nobody knows.
        full_model: the first column is the full model.
        tokens: the weights of ``exit_layers``. Shape: [samples, thresholds]; None weighs all alike.
    """

    thresholds: Sequence[float | str]
    losses: FloatArray
    exit_layers: FloatArray | None = None
    full_model: bool = False
    cheap: bool = True
    tokens: FloatArray | None = None

    @property
    def samples(self) -> int:
        return len(self.losses)

    def column(self, index: int) -> Column:
        layers = None if self.exit_layers is None else self.exit_layers[:, index]
        tokens = None if self.tokens is None else self.tokens[:, index]
        return Column(self.losses[:, index], layers, tokens)

    def rows(self, rows: NDArray[np.integer]) -> MatrixSource:
        """The same thresholds for some of the samples, in this order."""
        layers = None if self.exit_layers is None else self.exit_layers[rows]
        tokens = None if self.tokens is None else self.tokens[rows]
        return MatrixSource(
            self.thresholds, self.losses[rows], layers, self.full_model, self.cheap, tokens
        )


class Ledger:
    """A source, each of whose columns is computed once and checked when it arrives.

    Args:
        source: where the losses come from.
        on_column: told about each new column (a progress bar, a record on disk).
        known: columns from an interrupted run, by index.
    """

    def __init__(
        self,
        source: LossSource,
        *,
        on_column: Callable[[int, Column], None] | None = None,
        known: dict[int, Column] | None = None,
    ) -> None:
        self.source = source
        self._on_column = on_column
        self._columns: dict[int, Column] = dict(known or {})

    def __len__(self) -> int:
        return len(self.source.thresholds)

    @property
    def known(self) -> list[int]:
        """Indices of the thresholds that have been run, in order."""
        return sorted(self._columns)

    def get(self, index: int) -> Column:
        """The column of a threshold, run now if it was not yet.

        Raises:
            UsageError: losses outside [0, 1] or NaN, or a full model that differs from itself.
        """
        if index not in self._columns:
            column = self.source.column(index)
            name = str(self.source.thresholds[index])
            losses = check_losses(column.losses[:, None], [name])[:, 0]
            if self.source.full_model and index == 0 and losses.any():
                raise UsageError(
                    "The full model's losses are not 0",
                    hint="The first threshold must be the full model",
                )
            column = replace(column, losses=losses)
            self._columns[index] = column
            if self._on_column is not None:
                self._on_column(index, column)
        return self._columns[index]

    def matrix(self) -> MatrixSource:
        """All columns, running those that were not run yet."""
        columns = [self.get(index) for index in range(len(self))]
        return MatrixSource(
            thresholds=self.source.thresholds,
            losses=np.stack([column.losses for column in columns], axis=1),
            exit_layers=_side_by_side([column.exit_layers for column in columns]),
            full_model=self.source.full_model,
            tokens=_side_by_side([column.tokens for column in columns]),
        )


def _side_by_side(columns: Sequence[FloatArray | None]) -> FloatArray | None:
    """Shape: [samples, thresholds]; None where any column is unknown."""
    known = [column for column in columns if column is not None]
    return np.stack(known, axis=1) if known and len(known) == len(columns) else None
