"""Where the texts of an attack's export came from, told by the texts themselves."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from eexit_cli.core.progress import SilentProgress
from eexit_cli.data import TASKS
from eexit_cli.data.bundled import BundledTask
from eexit_cli.data.tables import read_table

EXPORTED = {"kind", "original_text", "recipe"}
"""Columns that ``eexit results export`` writes beside a user's own."""


@dataclass(frozen=True)
class Origin:
    """The bundled task that an export's inputs were taken from.

    Attributes:
        task: its name.
        splits: those that hold at least one of the inputs.
    """

    task: str
    splits: tuple[str, ...]

    @property
    def spares_test(self) -> bool:
        """None of the inputs is a test sample: the task can still say how good a model is."""
        return "test" not in self.splits


def origin_of(path: Path) -> Origin | None:
    """The bundled task whose texts an exported file holds; None for any other file.

    Hub data would have to be there to be compared, so only the bundled sets are looked through.

    Raises:
        UsageError: the file cannot be read.
    """
    if path.suffix.lower() != ".parquet":
        return None
    columns = read_table(path).columns
    if not columns.keys() >= EXPORTED:
        return None
    texts = set(columns["original_text"])
    for name, task in TASKS.working():
        if not isinstance(task, BundledTask):
            continue
        found: set[str] = set()
        splits = []
        for split in task.splits:
            samples = task.read(split, data_dir=None, progress=SilentProgress())
            here = texts.intersection(samples.texts)
            if here:
                splits.append(split)
                found |= here
        if found == texts:
            return Origin(name, tuple(splits))
    return None
