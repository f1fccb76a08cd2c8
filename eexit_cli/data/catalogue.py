"""What the tasks of the catalog are, without fetching anything."""

from __future__ import annotations

from typing import Any

from eexit_cli.core.progress import SilentProgress
from eexit_cli.data import TASKS


def describe_tasks() -> list[dict[str, Any]]:
    """A row per task that loads, in the catalog's order.

    Returns:
        ``task``, ``kind``, ``classes`` (None where it has none), ``pair``, ``metrics`` (the first
        leads), ``source`` (bundled, a repository of the hub, or None where nothing says) and
        ``splits``: name -> number of samples, None where they are not on this machine for certain.
    """
    rows = []
    for name, task in TASKS.working():
        info = task.info
        bundled = getattr(task, "folder", None) is not None
        rows.append(
            {
                "task": name,
                "kind": info.kind,
                "classes": list(info.label_names) or None,
                "pair": info.pair,
                "metrics": list(info.metrics),
                "source": "bundled" if bundled else getattr(task, "repository", None),
                "splits": {split: _size(task, split) if bundled else None for split in task.splits},
            }
        )
    return rows


def _size(task: Any, split: str) -> int:
    return len(task.read(split, data_dir=None, progress=SilentProgress()))
