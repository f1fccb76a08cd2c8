"""What a model that was trained from a data file is evaluated on when nobody says.

On the part of that file that its training held out. A file is parted by a seed, so the same file
and the same seed give the same part: where one of them is another, training samples could get in,
and that is an error. A file that was exported from a bundled task's training data stands for the
task instead, whose test split nobody trained on.
"""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from eexit_cli.config.common import COLUMNS, READING
from eexit_cli.core.errors import MissingArtifactError, UsageError
from eexit_cli.core.option import flag
from eexit_cli.core.progress import SilentProgress
from eexit_cli.data import TASKS, task_info
from eexit_cli.data.origin import Origin, origin_of
from eexit_cli.data.raw_text import is_raw
from eexit_cli.data.reading import Reading
from eexit_cli.data.samples import SPLIT_ALIASES
from eexit_cli.data.tables import read_table

if TYPE_CHECKING:
    from eexit_cli.config.train import TrainConfig
    from eexit_cli.core.protocols import Progress

KEY = "held_out"
"""In ``config.training`` of a model: where its held-out samples are."""

HELD_OUT = "validation"

_REPAIR = "Name the data: --data-file FILE or --task NAME"


def task_of_export(config: TrainConfig) -> TrainConfig:
    """The configuration with the task that a data file was exported from, where nobody says.

    Raises:
        UsageError: a file that cannot be read.
    """
    if config.data_file is None or config.task is not None:
        return config
    origin = origin_of(Path(config.data_file))
    if origin is None or not origin.spares_test:
        return config
    return dataclasses.replace(config, task=origin.task)


def held_out(config: TrainConfig, progress: Progress) -> dict[str, Any] | None:
    """What a model remembers of its data file; None where a task of the catalog stands for it.

    Args:
        config: of a training, with its task.
        progress: told what an exported file was made from.

    Raises:
        UsageError: the file cannot be read.
    """
    if config.data_file is None:
        return None
    path = _absolute(config.data_file)
    origin = origin_of(path)
    if origin is not None:
        progress.message(_of_origin(path, origin, config.task))
        if origin.spares_test and origin.task == config.task:
            return None
    return {
        "data_file": str(path),
        "sha256": _digest(path),
        "split": HELD_OUT,
        "seed": config.seed,
        "task": config.task,
        **{name: config.column(name) for name in COLUMNS},
        **{name: getattr(config, name) for name in READING},
    }


def parted_by_training(training: Mapping[str, Any], path: Path) -> bool:
    """Is this the file that a model held a part of out of?

    Args:
        training: how the model was made, from its configuration.
        path: of a file.
    """
    record = training.get(KEY)
    if not isinstance(record, Mapping) or not Path(path).is_file():
        return False
    return bool(_digest(_absolute(path)) == record["sha256"])


def path_of_data(config: TrainConfig) -> dict[str, str]:
    """``data_file`` as it is found from anywhere; empty where there is none."""
    return {} if config.data_file is None else {"data_file": str(_absolute(config.data_file))}


def _absolute(path: Path) -> Path:
    return Path(path).expanduser().absolute()


def _of_origin(path: Path, origin: Origin, task: str | None) -> str:
    start = f"{path.name} was made from {origin.task} ({', '.join(origin.splits)})"
    if not origin.spares_test:
        return f"{start}: that test split says nothing about this model any more"
    if origin.task == task:
        return f"{start}, whose test split the model is evaluated on by default"
    return start


def own_samples(
    config: Any, training: Mapping[str, Any], task: str | None, model: str, progress: Progress
) -> Any:
    """The configuration with a model's own data, for a user who names none.

    Where he names a file, the columns that he leaves out are those of the model's training, if the
    file has them.

    Args:
        config: with the attributes of ``config.common.DataConfig``, and ``seed``.
        training: how the model was made, from its configuration.
        task: the model's, from its configuration.
        model: its name, for messages.
        progress: told when a file's held-out part is taken.

    Raises:
        UsageError: the training's data are of no task here, or the file, the seed or the split
            do not give the samples that the training held out; a file that cannot be read.
        MissingArtifactError: the file is gone.
    """
    record = training.get(KEY)
    own = record if isinstance(record, Mapping) else None
    if config.data_file is not None:
        return config if own is None else _with_columns(config, own, model, progress)
    if config.task is not None:
        return config
    if config.data_dir is not None or own is None:
        known = task is None or is_task(task)
        if not known and config.data_dir is None:
            raise UsageError(
                f"Model '{model}' was trained on '{task}', which is no task here", hint=_REPAIR
            )
        return dataclasses.replace(config, task=task if known else None)
    path = _own_file(own, config.seed, model)
    split = SPLIT_ALIASES.get(config.split, config.split) or own["split"]
    if split not in ("train", "validation"):
        raise UsageError(
            f"Model '{model}' was trained on {path}, which has no split '{split}' apart from its "
            "training samples",
            hint="Leave --split out for the part that was held out, or name the data: --data-file "
            "FILE or --task NAME",
        )
    if config.split is None:
        progress.message(
            f"Data: the tenth of {path.name} that the training of '{model}' held out (it chose "
            "the default exit)"
        )
    return dataclasses.replace(
        config, data_file=path, split=split, task=own["task"], **_as_read(config, own)
    )


def to_train_on(config: TrainConfig, made: Mapping[str, Any], model: str) -> TrainConfig:
    """A training's configuration with what the model that it goes on from was trained on.

    Its data where nobody names any, its columns and the text before its sources where nobody names
    others: what is added to a model must read what the model reads.

    Args:
        config: of a training that starts from a model with exits.
        made: that model's configuration.
        model: its name, for messages.

    Raises:
        UsageError: the file has changed, or the seed would part it otherwise.
        MissingArtifactError: the file is gone.
    """
    training = made.get("training") or {}
    record = training.get(KEY)
    own = record if isinstance(record, Mapping) else None
    if config.data_file is not None:
        config = config if own is None else _with_columns(config, own, model, SilentProgress())
    elif config.task is None and config.data_dir is None:
        task = made.get("task")
        if own is not None:
            path = _own_file(own, config.seed, model)
            config = dataclasses.replace(
                config, data_file=path, task=own["task"], **_as_read(config, own)
            )
        elif task is not None and is_task(task):
            config = dataclasses.replace(config, task=task)
        elif task is not None:
            raise UsageError(
                f"Model '{model}' was trained on '{task}', which is no task here", hint=_REPAIR
            )
    prefix = made.get("source_prefix")
    if prefix is None or config.source_prefix is not None:
        return config
    of_task = "" if config.task is None else task_info(config.task).extra.get("source_prefix", "")
    # A decoder that learns another task takes that one's prefix; its classifiers keep the model's.
    if prefix == of_task or (config.task is not None and config.confidence is None):
        return config
    return dataclasses.replace(config, source_prefix=prefix)


def _own_file(record: Mapping[str, Any], seed: int, model: str) -> Path:
    """The file that a model was trained on, which parts as it did then.

    Raises:
        UsageError: it has changed, or another seed would part it otherwise.
        MissingArtifactError: it is gone.
    """
    path = Path(str(record["data_file"]))
    if not path.is_file():
        raise MissingArtifactError(
            f"Model '{model}' was trained on {path}, which is not there any more", hint=_REPAIR
        )
    if _digest(path) != record["sha256"]:
        raise UsageError(
            f"Model '{model}' was trained on {path}, which has changed since: what was held out "
            "is not known any more",
            hint=_REPAIR,
        )
    if seed != record["seed"]:
        raise UsageError(
            f"Model '{model}' was trained on {path}, parted by seed {record['seed']}: with "
            f"--seed {seed} its training samples would get in",
            hint=f"Add --seed {record['seed']}, or name the data: --data-file FILE or --task NAME",
        )
    return path


def _as_read(config: Any, record: Mapping[str, Any]) -> dict[str, Any]:
    """How a model's file was read and its columns, where nobody says and it is not the usual."""
    usual = {**COLUMNS, **READING}
    return {
        name: record[name]
        for name, default in usual.items()
        if not getattr(config, name) and record.get(name) not in (None, default)
    }


def _with_columns(config: Any, record: Mapping[str, Any], model: str, progress: Progress) -> Any:
    columns = {name: each for name, each in _as_read(config, record).items() if name in COLUMNS}
    if is_raw(config.data_file):
        columns = {}
    if columns:
        there = read_table(Path(config.data_file), Reading.of(config)).columns
        columns = {name: column for name, column in columns.items() if column in there}
    if not columns:
        return config
    named = " ".join(f"{flag(name)} {value}" for name, value in columns.items())
    progress.message(f"Columns as in the training of '{model}': {named}")
    return dataclasses.replace(config, **columns)


def is_task(task: str) -> bool:
    """Is this the name of a task here, and not of a file that somebody trained on?"""
    try:
        TASKS.canonical(task)
    except UsageError:
        return False
    return True


def _digest(path: Path) -> str:
    with path.open("rb") as stream:
        digest = hashlib.sha256()
        while block := stream.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()
