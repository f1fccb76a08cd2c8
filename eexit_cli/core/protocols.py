"""The shapes that rooms agree on, so that none of them imports another."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

if TYPE_CHECKING:
    from torch import Tensor

RowState = dict[str, "Tensor"]
"""What a criterion remembers between layers: tensors whose first dimension is the rows that are
still running. Rows that leave are dropped from every entry by the cursor that drives it."""


@runtime_checkable
class ExitCriterion(Protocol):
    """The rule that decides at which layer a sample leaves.

    A criterion is written once, as a step. Driving the steps over a recorded trace (replay) gives
    what driving them inside a model (live) gives, because both go through
    ``eexit_cli.core.stepping.ExitCursor``.
    """

    def step(self, layer: int, logits: Tensor, state: RowState) -> Tensor:
        """Which rows leave after this layer?

        Args:
            layer: layers executed so far, 1..L.
            logits: this exit's logits of the rows still running. Shape: [rows, classes].
            state: read and updated in place; empty at layer 1. A criterion whose answer is not
                the logits of the exit that fires (voting) puts it under ``"answer"``,
                Shape: [rows, classes].

        Returns:
            True where the row leaves. Shape: [rows], bool.
        """
        ...

    def describe(self) -> dict[str, Any]:
        """Name and settings, as they are written to ``all_results.json``."""
        ...


class Crew(Protocol):
    """Other processes that hold the same model, and do parts of its passes."""

    @property
    def size(self) -> int:
        """How many they are."""
        ...

    @property
    def side_by_side(self) -> str:
        """The same, for a person."""
        ...

    def do(self, shares: Sequence[Any], sizes: Sequence[int]) -> Iterator[tuple[int, Any]]:
        """What ``share`` of the model says to each of these, in the order in which it is done.

        Args:
            shares: parts of a pass, as the family cuts it.
            sizes: samples of each.

        Returns:
            Pairs of a place in ``shares`` and what was said there.

        Raises:
            EexitError: a part that costs every process its life, or takes too long.
        """
        ...


@runtime_checkable
class Measure(Protocol):
    """A confidence measure over an exit's logits, with its direction.

    ``rises`` is True when larger values mean more certainty; entropy falls.
    """

    name: str
    rises: bool

    def __call__(self, logits: Tensor) -> Tensor:
        """Shape: [..., classes] -> [...]."""
        ...

    def bounds(self, classes: int) -> tuple[float, float]:
        """Smallest and largest value for this number of classes."""
        ...


class Progress(Protocol):
    """What a pipeline tells the display. The rich, plain and silent displays implement it."""

    def task(
        self, title: str, total: int | None = None, done: int = 0
    ) -> AbstractContextManager[Ticker]:
        """A bar for one piece of work; nested tasks are drawn below the outer one.

        Args:
            title: of the work.
            total: its steps; None is unknown.
            done: those that were done before, which say nothing about the speed.
        """
        ...

    def message(self, text: str) -> None:
        """One line for the user: what was skipped, what is a sample, where a file went."""
        ...


class Ticker(Protocol):
    """One running bar."""

    def advance(self, steps: int = 1, note: str | None = None) -> None: ...

    def update(self, *, total: int | None = None, note: str | None = None) -> None: ...


class RecordSink(Protocol):
    """Where a pipeline appends per-sample records as they are made."""

    def append(self, record: dict[str, Any]) -> None: ...

    def records(self) -> Iterable[dict[str, Any]]: ...


Tokenize = Callable[[list[str]], Any]
