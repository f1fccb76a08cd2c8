"""Data sets: the task catalog, GLUE from the hub or from TSV folders, own files, bundled sets.

To add a task, write an object with the attributes of :class:`eexit_cli.data.samples.Task` (a GLUE
task is one row of ``glue.py``, a bundled set one row of ``bundled.py``) and add its line to
:data:`TASKS`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from eexit_cli.core.catalog import Catalog

if TYPE_CHECKING:
    from eexit_cli.core.protocols import Progress
    from eexit_cli.core.types import Examples, TaskInfo

TASKS = Catalog(
    "task",
    {
        "movie-reviews": "eexit_cli.data.bundled:MOVIE_REVIEWS",
        "amazon-reviews": "eexit_cli.data.bundled:AMAZON_REVIEWS",
        "tweets": "eexit_cli.data.bundled:TWEETS",
        "editorials": "eexit_cli.data.bundled:EDITORIALS",
        "cola": "eexit_cli.data.glue:COLA",
        "sst2": "eexit_cli.data.glue:SST2",
        "mrpc": "eexit_cli.data.glue:MRPC",
        "qqp": "eexit_cli.data.glue:QQP",
        "stsb": "eexit_cli.data.glue:STSB",
        "mnli": "eexit_cli.data.glue:MNLI",
        "qnli": "eexit_cli.data.glue:QNLI",
        "rte": "eexit_cli.data.glue:RTE",
        "wnli": "eexit_cli.data.glue:WNLI",
    },
    aliases={
        "CoLA": "cola",
        "COLA": "cola",
        "SST-2": "sst2",
        "sst-2": "sst2",
        "SST2": "sst2",
        "MRPC": "mrpc",
        "QQP": "qqp",
        "STS-B": "stsb",
        "sts-b": "stsb",
        "STSB": "stsb",
        "MNLI": "mnli",
        "QNLI": "qnli",
        "RTE": "rte",
        "WNLI": "wnli",
    },
)


def task_info(name: str) -> TaskInfo:
    """What a task is, without reading its data.

    Raises:
        UsageError: the name is unknown; the hint lists the nearest and the available ones.
    """
    info: TaskInfo = TASKS.load(name).info
    return info


def load_examples(
    config: Any,
    *,
    default_split: str,
    label_names: Sequence[str] | None = None,
    progress: Progress | None = None,
) -> Examples:
    """Read the samples that a configuration names.

    Args:
        config: has the attributes of :class:`eexit_cli.config.common.DataConfig` and ``seed``.
        default_split: used when ``config.split`` is None.
        label_names: the model's own classes, index = class id; labels are brought into their
            order. One name or none at all means regression; None means that no model is known.
        progress: told what was chosen for the user (a hidden test split, a short data set).

    Returns:
        The samples. With a positive limit of N, the first N of a seeded permutation, so that a
        smaller limit is a subset of a larger one; with a limit of 0 or None all, in their order.
        Own files (``data_file``) are split by the seed for ``train`` (90 %) and ``validation``
        (10 %), equal texts together; every other split name is the whole file.

    Raises:
        UsageError: unknown task or split, a bad limit, a file whose content does not fit.
        MissingArtifactError: a file, folder or hub data set that is not there.
    """
    from eexit_cli.data.loading import load

    return load(config, default_split=default_split, label_names=label_names, progress=progress)


__all__ = ["TASKS", "load_examples", "task_info"]
