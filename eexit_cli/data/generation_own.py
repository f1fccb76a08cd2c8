"""A user's own table of sources and targets as samples."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from eexit_cli.core.types import TaskInfo
from eexit_cli.data.generation import OWN_METRICS
from eexit_cli.data.own import check_split, read_texts, split_positions
from eexit_cli.data.samples import Samples
from eexit_cli.data.tables import read_table


def read_own_pairs(
    path: Path,
    *,
    split: str,
    seed: int,
    source_column: str,
    target_column: str,
    task: TaskInfo | None,
) -> tuple[TaskInfo, str, Samples]:
    """Read a file of text pairs and take the part that the split means.

    Args:
        path: CSV, TSV, JSONL or Parquet.
        split: ``train`` (90 %), ``validation`` (10 %, equal sources on one side) or ``test`` (all).
        seed: decides which tenth of the sources is ``validation``.
        source_column, target_column: names of columns.
        task: whose prefix and metrics apply, when the user said so.

    Returns:
        The task, the name of the split ("train", "validation", or the file's name) and samples.

    Raises:
        UsageError: anything about the file that does not fit; an empty source or target names its
            row.
    """
    check_split(split)
    table = read_table(path)
    samples = Samples(
        ids=[f"{path.stem}-{number}" for number in table.numbers],
        texts=read_texts(table, source_column, "--source-column"),
        pairs=None,
        labels=None,
        targets=read_texts(table, target_column, "--target-column"),
    )
    info = task or TaskInfo(path.stem, "generation", metrics=OWN_METRICS)
    info = replace(info, extra={"source_prefix": "", **info.extra})
    if split == "test":
        return info, path.name, samples
    return info, split, samples.take(split_positions(samples, split, seed, path))
