"""What a reader of any source hands to the loader, and what a task of the catalog offers."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, Protocol

from eexit_cli.core.protocols import Progress
from eexit_cli.core.types import TaskInfo

SPLIT_ALIASES = {"dev": "validation", "valid": "validation", "val": "validation"}
"""Other spellings of split names that people type."""


@dataclass(frozen=True)
class Samples:
    """Columns of one split, all of the same length.

    Attributes:
        ids: unique.
        texts: first or only text; for generation what the model reads.
        pairs: second text; None for tasks of one text.
        labels: class ids or values in the task's own order; None where the source has none.
        targets: what the model should write; only for generation.
        references: every accepted answer, the target among them; only for generation, and None
            where each sample has its target alone.
        tokens: ids of each text, only for pieces of raw text.
    """

    ids: Sequence[str]
    texts: Sequence[str]
    pairs: Sequence[str] | None
    labels: Sequence[int | float] | None
    targets: Sequence[str] | None = None
    references: Sequence[Sequence[str]] | None = None
    tokens: Sequence[Sequence[int]] | None = None

    def __len__(self) -> int:
        return len(self.ids)

    def take(self, indices: Sequence[int]) -> Samples:
        """The samples at these positions, in this order."""

        def pick(column: Any) -> Any:
            return None if column is None else [column[index] for index in indices]

        return Samples(**{item.name: pick(getattr(self, item.name)) for item in fields(self)})

    def with_labels(self, labels: Sequence[int | float] | None) -> Samples:
        return replace(self, labels=labels)


LeaveOut = Callable[[Samples, str], tuple[Samples, Mapping[str, int] | str]]
"""(samples, what they are) -> those that a model has not learned, and what is known of the rest;
see ``core.types.Examples.training_rows``."""


class Task(Protocol):
    """A row of the task catalog."""

    @property
    def info(self) -> TaskInfo: ...

    @property
    def splits(self) -> tuple[str, ...]:
        """Names that :meth:`read` accepts."""
        ...

    @property
    def hidden(self) -> tuple[str, ...]:
        """Splits whose labels are not public; used only when the user asks for them."""
        ...

    @property
    def renamed(self) -> Mapping[str, str]:
        """What people say -> a name of :attr:`splits`, where a task has two of a kind."""
        ...

    def read(self, split: str, *, data_dir: Path | None, progress: Progress) -> Samples:
        """The whole split.

        Raises:
            MissingArtifactError: the data are not there.
            UsageError: the files are not in the task's layout.
        """
        ...
