"""A user's own table of sources and targets as samples."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from eexit_cli.core.protocols import Progress
from eexit_cli.core.types import TaskInfo
from eexit_cli.data.generation import OWN_METRICS
from eexit_cli.data.own import check_split, read_told, split_positions, text_faults
from eexit_cli.data.reading import Reading
from eexit_cli.data.samples import Samples


def read_own_pairs(
    path: Path,
    *,
    split: str,
    seed: int,
    source_column: str,
    target_column: str,
    task: TaskInfo | None,
    reading: Reading,
    progress: Progress,
) -> tuple[TaskInfo, str, Samples]:
    """Read a file of text pairs and take the part that the split means.

    Args:
        path: CSV, TSV, JSONL or Parquet.
        split: ``train`` (90 %), ``validation`` (10 %, equal sources on one side) or ``test`` (all).
        seed: decides which tenth of the sources is ``validation``.
        source_column, target_column: names of columns.
        task: whose prefix and metrics apply, when the user said so.
        reading: what the user says of the file.
        progress: told what was left out.

    Returns:
        The task, the name of the split ("train", "validation", or the file's name) and samples.

    Raises:
        UsageError: anything about the file that does not fit; an empty source or target names its
            row.
    """
    check_split(split)
    table = read_told(path, reading, progress)
    faults = text_faults(table, source_column, "--source-column")
    faults += text_faults(table, target_column, "--target-column")
    table = table.without(faults, reading, progress)
    samples = Samples(
        ids=[f"{path.stem}-{number}" for number in table.numbers],
        texts=table.columns[source_column],
        pairs=None,
        labels=None,
        targets=table.columns[target_column],
    )
    info = task or TaskInfo(path.stem, "generation", metrics=OWN_METRICS)
    info = replace(info, extra={"source_prefix": "", **info.extra})
    if split == "test":
        return info, path.name, samples
    return info, split, samples.take(split_positions(samples, split, seed, path))
