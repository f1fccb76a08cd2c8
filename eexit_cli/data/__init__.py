"""Data sets: the task catalog, GLUE and text pairs from the hub, own files, bundled sets.

To add a task, write an object with the attributes of :class:`eexit_cli.data.samples.Task` (a GLUE
task is one row of ``glue.py``, a set of text pairs one of ``generation.py``, a bundled set one of
``bundled.py``) and add its line to :data:`TASKS`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from eexit_cli.core.catalog import Catalog

if TYPE_CHECKING:
    from eexit_cli.core.protocols import Progress
    from eexit_cli.core.types import Examples, TaskInfo
    from eexit_cli.data.raw_text import Cutter
    from eexit_cli.data.samples import LeaveOut

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
        "pronunciation": "eexit_cli.data.pronunciation:PRONUNCIATION",
        "cnn_dailymail": "eexit_cli.data.generation:CNN_DAILYMAIL",
        "xsum": "eexit_cli.data.generation:XSUM",
        "samsum": "eexit_cli.data.generation:SAMSUM",
        "squad": "eexit_cli.data.generation:SQUAD",
        "gsm8k": "eexit_cli.data.generation:GSM8K",
        "iwslt2017-de-en": "eexit_cli.data.generation:IWSLT2017_DE_EN",
        "iwslt2017-en-de": "eexit_cli.data.generation:IWSLT2017_EN_DE",
        "wmt14-en-fr": "eexit_cli.data.generation:WMT14_EN_FR",
        "wmt16-de-en": "eexit_cli.data.generation:WMT16_DE_EN",
        "wmt16-en-de": "eexit_cli.data.generation:WMT16_EN_DE",
        "wmt16-en-ro": "eexit_cli.data.generation:WMT16_EN_RO",
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
        "GSM8K": "gsm8k",
        "cnn-dailymail": "cnn_dailymail",
        "iwslt2017": "iwslt2017-de-en",
        "wmt16": "wmt16-de-en",
    },
    plugins="eexit.tasks",
    needs=("info",),
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
    generates: bool = False,
    progress: Progress | None = None,
    leave_out: LeaveOut | None = None,
    cutter: Cutter | None = None,
) -> Examples:
    """Read the samples that a configuration names.

    Args:
        config: has the attributes of :class:`eexit_cli.config.common.DataConfig` and ``seed``.
        default_split: used when ``config.split`` is None.
        label_names: the model's own classes, index = class id; labels are brought into their
            order. One name or none at all means regression; None means that no model is known, or
            that it has no classes.
        generates: the model writes text: the task must be one of generation, and own files hold
            pairs of source and target. A generation task is read as such in any case.
        progress: told what was chosen for the user (a hidden test split, a short data set).
        leave_out: takes out, before any limit, the samples that the model has learned.
        cutter: makes pieces of a file of raw text; None refuses one.

    Returns:
        The samples. With a positive limit of N, the first N of a seeded permutation, so that a
        smaller limit is a subset of a larger one; with a limit of 0 or None all, in their order.
        Own files (``data_file``) are split by the seed for ``train`` (90 %) and ``validation``
        (10 %), equal texts together; every other split name is the whole file.

    Raises:
        UsageError: unknown task or split, a bad limit, a file whose content does not fit, a task
            of another kind than the model's.
        MissingArtifactError: a file, folder or hub data set that is not there.
    """
    from eexit_cli.data.loading import load

    return load(
        config,
        default_split=default_split,
        label_names=label_names,
        generates=generates,
        progress=progress,
        leave_out=leave_out,
        cutter=cutter,
    )


__all__ = ["TASKS", "load_examples", "task_info"]
