"""From a configuration to samples: which source, which split, whose label order, how many."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from eexit_cli.core.errors import UsageError
from eexit_cli.core.option import flag
from eexit_cli.core.progress import SilentProgress
from eexit_cli.core.protocols import Progress
from eexit_cli.core.seed import stream
from eexit_cli.core.text import made_whole
from eexit_cli.core.types import Examples, TaskInfo
from eexit_cli.data import TASKS
from eexit_cli.data.generation_own import read_own_pairs
from eexit_cli.data.labels import align, refuse_generation
from eexit_cli.data.own import read_own
from eexit_cli.data.raw_text import Cutter, is_raw, read_raw, refuse_raw
from eexit_cli.data.reading import Reading
from eexit_cli.data.samples import SPLIT_ALIASES, LeaveOut, Samples, Task
from eexit_cli.data.suggestions import suggest
from eexit_cli.data.whole import made_valid


def load(
    config: Any,
    *,
    default_split: str,
    label_names: Sequence[str] | None,
    generates: bool,
    progress: Progress | None,
    leave_out: LeaveOut | None = None,
    cutter: Cutter | None = None,
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
        if is_raw(config.data_file):
            info, split, samples = _from_text(config, default_split, cutter, progress)
        else:
            info, split, samples = _from_file(
                config, default_split, label_names, generates, progress
            )
        samples = made_valid(samples, Path(config.data_file).name, progress)
    else:
        task = _task(config)
        _check_kind(task.info, label_names, generates)
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
    _refuse_unused(config, info)
    seen: Mapping[str, int] | str = "unknown"
    if leave_out is not None:
        samples, seen = leave_out(samples, f"the {split} split of '{info.name}'")
        total = len(samples)
    samples = _limited(samples, config, split, progress)
    if info.kind == "generation":
        info, samples = _prefixed(info, samples, config.source_prefix)
        dataset = _pairs(samples)
    else:
        dataset = _dataset(samples)
    return Examples(info=info, split=split, dataset=dataset, total=total, training_rows=seen)


def _from_text(
    config: Any, default_split: str, cutter: Cutter | None, progress: Progress
) -> tuple[TaskInfo, str, Samples]:
    path = Path(config.data_file)
    if config.task is not None:
        refuse_raw(path, "--task says nothing of it")
    if config.skip_faulty_rows:
        refuse_raw(path, "it has no rows, which --skip-faulty-rows is about")
    return read_raw(
        path,
        split=_spelling(config.split or default_split),
        seed=config.seed,
        cutter=cutter,
        reading=Reading.of(config),
        progress=progress,
    )


def _from_file(
    config: Any,
    default_split: str,
    label_names: Sequence[str] | None,
    generates: bool,
    progress: Progress,
) -> tuple[TaskInfo, str, Samples]:
    task: TaskInfo | None = None if config.task is None else TASKS.load(config.task).info
    if task is not None:
        _check_kind(task, label_names, generates)
    if generates or (task is not None and task.kind == "generation"):
        return read_own_pairs(
            Path(config.data_file),
            split=_spelling(config.split or default_split),
            seed=config.seed,
            source_column=config.column("source_column"),
            target_column=config.column("target_column"),
            task=task,
            reading=Reading.of(config),
            progress=progress,
        )
    return read_own(
        Path(config.data_file),
        split=_spelling(config.split or default_split),
        seed=config.seed,
        text_column=config.column("text_column"),
        pair_column=config.column("text_pair_column"),
        label_column=config.column("label_column"),
        task=task,
        label_names=label_names,
        reading=Reading.of(config),
        progress=progress,
        label_kind=getattr(config, "label_kind", None),  # is an option of training alone
    )


_OF_PAIRS = ("source_column", "target_column", "source_prefix")
_OF_LABELS = ("text_column", "text_pair_column", "label_column", "label_names")


def _refuse_unused(config: Any, info: TaskInfo) -> None:
    """An option of the other kind of task is an error, not ignored."""
    unused: tuple[str, ...] = _OF_LABELS if info.kind == "generation" else _OF_PAIRS
    if info.raw_text:
        unused = (*_OF_PAIRS, *_OF_LABELS)
    for name in unused:
        given = getattr(config, name, None)  # label_names is not an option of the data
        # A dataclass keeps its defaults as attributes of the class.
        if given != getattr(type(config), name, given):
            option = flag(name)
            raise UsageError(
                f"{option} does not go with '{info.name}', whose kind is "
                f"{'raw text' if info.raw_text else info.kind}",
                hint=f"Leave {option} out",
            )


def _check_kind(info: TaskInfo, label_names: Sequence[str] | None, generates: bool) -> None:
    """What the model puts out and what the task asks for are of one kind."""
    if label_names is not None:
        refuse_generation(info)
    if generates and info.kind != "generation":
        raise UsageError(
            f"Task '{info.name}' is {info.kind}; the model writes text",
            hint="Choose a task of text pairs such as pronunciation with --task, or --data-file "
            "with a source and a target column",
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
    elif config.split is None and asked == "test" and _lacks_test(task):
        progress.message(f"'{task.info.name}' has no test split; using its validation split")
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


def _lacks_test(task: Task) -> bool:
    """True for SQuAD, whose test set was never published; MNLI's two have names of their own."""
    return "validation" in task.splits and "test" not in {*task.splits, *task.renamed}


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


def _prefixed(info: TaskInfo, samples: Samples, prefix: str | None) -> tuple[TaskInfo, Samples]:
    """The samples with the prefix before every source, and the task with the one that was used."""
    prefix = info.extra["source_prefix"] if prefix is None else made_whole(prefix)
    info = replace(info, extra={**info.extra, "source_prefix": prefix})
    return info, replace(samples, texts=[prefix + text for text in samples.texts])


def _pairs(samples: Samples) -> Any:
    """Canonical columns of text pairs."""
    from datasets import Dataset, Features, Sequence, Value

    assert samples.targets is not None
    columns = {"id": samples.ids, "source": samples.texts, "target": samples.targets}
    types: dict[str, Any] = dict.fromkeys(columns, Value("string"))
    if samples.references is not None:
        columns["references"] = samples.references  # type: ignore[assignment]
        types["references"] = Sequence(Value("string"))
    if samples.tokens is not None:
        columns["tokens"] = samples.tokens  # type: ignore[assignment]
        types["tokens"] = Sequence(Value("int64"))
    return Dataset.from_dict(
        {name: list(column) for name, column in columns.items()}, features=Features(types)
    )


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
