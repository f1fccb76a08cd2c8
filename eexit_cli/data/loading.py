"""From a configuration to samples: which source, which split, whose label order, how many."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from eexit_cli.core.errors import UsageError
from eexit_cli.core.progress import SilentProgress
from eexit_cli.core.protocols import Progress
from eexit_cli.core.seed import stream
from eexit_cli.core.types import Examples, TaskInfo
from eexit_cli.data import TASKS
from eexit_cli.data.labels import align
from eexit_cli.data.own import read_own
from eexit_cli.data.samples import SPLIT_ALIASES, Samples, Task
from eexit_cli.data.suggestions import suggest


def load(
    config: Any,
    *,
    default_split: str,
    label_names: Sequence[str] | None,
    progress: Progress | None,
) -> Examples:
    """See :func:`eexit_cli.data.load_examples`."""
    progress = progress or SilentProgress()
    if config.limit is not None and config.limit < 0:
        raise UsageError(
            f"--limit {config.limit} is negative", hint="Use --limit 0, or leave it out, for all"
        )
    if config.data_file is not None and config.data_dir is not None:
        raise UsageError(
            "--data-file and --data-dir exclude each other",
            hint="--data-file takes one table, --data-dir a folder in GLUE's layout",
        )
    if config.data_file is not None:
        info, split, samples = _from_file(config, default_split, label_names)
    else:
        task = _task(config)
        split = _split(task, config, default_split, progress)
        folder = None if config.data_dir is None else Path(config.data_dir)
        samples = task.read(split, data_dir=folder, progress=progress)
        info, samples = align(task.info, samples, label_names, progress)
    total = len(samples)
    if total == 0:
        raise UsageError(
            f"The {split} split of '{info.name}' has no samples",
            hint="Choose another one with --split, or check the data",
        )
    return Examples(
        info=info,
        split=split,
        dataset=_dataset(_limited(samples, config, split, progress)),
        total=total,
    )


def _from_file(
    config: Any, default_split: str, label_names: Sequence[str] | None
) -> tuple[TaskInfo, str, Samples]:
    task: TaskInfo | None = None if config.task is None else TASKS.load(config.task).info
    return read_own(
        Path(config.data_file),
        split=_spelling(config.split or default_split),
        seed=config.seed,
        text_column=config.text_column,
        pair_column=config.text_pair_column,
        label_column=config.label_column,
        task=task,
        label_names=label_names,
    )


def _task(config: Any) -> Task:
    """The catalog's task; a data folder with a task's name ("SST-2") may stand for it."""
    name = config.task
    if name is None and config.data_dir is not None:
        folder = Path(config.data_dir).name
        name = folder if _known(folder) else None
    if name is None:
        raise UsageError(
            "No task is given",
            hint=f"Use --task with one of {', '.join(sorted(TASKS))}, or --data-file",
        )
    task: Task = TASKS.load(name)
    return task


def _known(name: str) -> bool:
    try:
        TASKS.canonical(name)
    except UsageError:
        return False
    return True


def _split(task: Task, config: Any, default_split: str, progress: Progress) -> str:
    asked = _spelling(config.split or default_split)
    if asked in task.hidden and config.split is None:
        progress.message(
            f"The labels of the {asked} split of '{task.info.name}' are not public; "
            "using its validation split"
        )
        asked = "validation"
    split = task.renamed.get(asked, asked)
    if split not in task.splits:
        raise UsageError(
            f"Task '{task.info.name}' has no split '{asked}'",
            hint=suggest(split, task.splits),
        )
    if split in task.hidden:
        progress.message(f"The {split} split of '{task.info.name}' may come without labels")
    return split


def _spelling(split: str) -> str:
    return SPLIT_ALIASES.get(split, split)


def _limited(samples: Samples, config: Any, split: str, progress: Progress) -> Samples:
    if not config.limit:
        return samples
    if config.limit > len(samples):
        progress.message(
            f"--limit {config.limit} exceeds the {split} split; using all {len(samples)} samples"
        )
    order = list(range(len(samples)))
    stream(config.seed, "data.limit").shuffle(order)
    return samples.take(order[: config.limit])


def _dataset(samples: Samples) -> Any:
    """Canonical columns, with the types that they have in every source."""
    from datasets import Dataset, Features, Value

    columns: dict[str, Sequence[Any]] = {"id": samples.ids, "text": samples.texts}
    types = {"id": Value("string"), "text": Value("string")}
    if samples.pairs is not None:
        columns["text_pair"] = samples.pairs
        types["text_pair"] = Value("string")
    if samples.labels is not None:
        columns["label"] = samples.labels
        whole = all(isinstance(label, int) for label in samples.labels)
        types["label"] = Value("int64" if whole else "float64")
    return Dataset.from_dict(columns, features=Features(types))
