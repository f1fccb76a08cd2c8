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

from eexit_cli.core.errors import MissingArtifactError, UsageError
from eexit_cli.data import TASKS
from eexit_cli.data.origin import Origin, origin_of
from eexit_cli.data.samples import SPLIT_ALIASES

if TYPE_CHECKING:
    from eexit_cli.config.train import TrainConfig
    from eexit_cli.core.protocols import Progress

KEY = "held_out"
"""In ``config.training`` of a model: where its held-out samples are."""

HELD_OUT = "validation"

_COLUMNS = (
    "text_column",
    "text_pair_column",
    "label_column",
    "source_column",
    "target_column",
)
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
        **{name: getattr(config, name) for name in _COLUMNS},
    }


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

    Args:
        config: with the attributes of ``config.common.DataConfig``, and ``seed``.
        training: how the model was made, from its configuration.
        task: the model's, from its configuration.
        model: its name, for messages.
        progress: told when a file's held-out part is taken.

    Raises:
        UsageError: the training's data are of no task here, or the file, the seed or the split
            do not give the samples that the training held out.
        MissingArtifactError: the file is gone.
    """
    if config.task is not None or config.data_file is not None:
        return config
    record = training.get(KEY)
    if config.data_dir is not None or not isinstance(record, Mapping):
        known = task is None or _known(task)
        if not known and config.data_dir is None:
            raise UsageError(
                f"Model '{model}' was trained on '{task}', which is no task here", hint=_REPAIR
            )
        return dataclasses.replace(config, task=task if known else None)
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
    if config.seed != record["seed"]:
        raise UsageError(
            f"Model '{model}' was trained on {path}, parted by seed {record['seed']}: with "
            f"--seed {config.seed} its training samples would get in",
            hint=f"Add --seed {record['seed']}, or name the data: --data-file FILE or --task NAME",
        )
    split = SPLIT_ALIASES.get(config.split, config.split) or record["split"]
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
    given = {name: getattr(config, name) for name in _COLUMNS if hasattr(config, name)}
    standard = {
        item.name: item.default for item in dataclasses.fields(config) if item.name in given
    }
    columns = {name: record[name] for name, value in given.items() if value == standard[name]}
    return dataclasses.replace(config, data_file=path, split=split, task=record["task"], **columns)


def _known(task: str) -> bool:
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
