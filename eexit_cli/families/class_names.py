"""What the outputs of a classifier are called, and what gives a wrong order away."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from eexit_cli.core.errors import UsageError
from eexit_cli.core.types import TaskInfo
from eexit_cli.data import task_info
from eexit_cli.data.label_values import key
from eexit_cli.data.labels import are_generic
from eexit_cli.models.encoder.layouts import LAYOUTS

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

    from eexit_cli.core.protocols import Progress
    from eexit_cli.models.encoder.model import MultiExitConfig
    from eexit_cli.store.results import Run

_SCRIPTS_ORDER = {"mnli": ("contradiction", "entailment", "neutral")}
"""Where the GLUE scripts that made the published layouts (transformers' ``glue_processors``) number
the classes otherwise than the hub does. In the other tasks they agree."""

_SWAPPED = {"mnli": ("contradiction", "neutral", "entailment")}
"""The same for RoBERTa, whose pretrained heads have MNLI's last two the other way round."""

_SWAPPING = ("roberta", "xlm-roberta", "bart")


def names_in(settings: MultiExitConfig) -> tuple[str, ...]:
    """Names of a model's classes, in the order of its outputs; empty for regression."""
    outputs = int(settings.num_labels)
    return tuple(str(settings.id2label[at]) for at in range(outputs)) if outputs > 1 else ()


def name_classes(settings: MultiExitConfig, name: str, config: Any, progress: Progress) -> None:
    """Settle what a model's outputs are called, in its configuration.

    Names that the user gives come first, then those of its checkpoint; a published layout without
    any has its scripts' order.

    Args:
        settings: the model's configuration, whose names are replaced.
        name: the model's, for messages.
        config: ``label_names`` and, for a checkpoint that does not know its task, ``task`` and
            ``data_dir`` count.
        progress: told what is not the checkpoint's own.

    Raises:
        UsageError: names that are not one for each output, or for a regression.
    """
    own, asked = names_in(settings), config.label_names
    if asked is None:
        found = script_names(settings, task_of_data(config))
        if found is None:
            return
        names, task = found
        title = LAYOUTS.load(str(settings.training["converted_from"])).title
        progress.message(
            f"The classes of '{name}' have no names; taking them in the order of {title} scripts "
            f"for {task}: {', '.join(names)} (--label-names gives another)"
        )
    else:
        names = check_names(asked)
        if not own:
            raise UsageError(
                f"--label-names names classes; model '{name}' gives one number (regression)",
                hint="Leave --label-names out",
            )
        if len(names) != len(own):
            raise UsageError(
                f"--label-names gives {len(names)} names, model '{name}' has {len(own)} outputs",
                hint=f"Give one name for each output, in their order; it has: {', '.join(own)}",
            )
        if not are_generic(own) and names != own:
            progress.message(
                f"--label-names: the classes of '{name}' ({', '.join(own)}) are taken as "
                f"{', '.join(names)}"
            )
    settings.id2label = dict(enumerate(names))
    settings.label2id = {label: index for index, label in enumerate(names)}


def check_names(names: Sequence[str]) -> tuple[str, ...]:
    """The names of ``--label-names``.

    Raises:
        UsageError: fewer than two, or one that stands there twice in whatever spelling.
    """
    if len(names) < 2:
        raise UsageError(
            "--label-names needs a name for each class, at least two",
            hint="Put commas between them: --label-names negative,positive",
        )
    seen: set[str] = set()
    for name in map(str, names):
        if key(name) in seen:
            raise UsageError(
                f"--label-names names '{name}' twice", hint="Give each class a name of its own"
            )
        seen.add(key(name))
    return tuple(map(str, names))


def names_for_training(config: Any) -> tuple[str, ...] | None:
    """The classes that a training was told to have, in their order; None where it was not.

    Raises:
        UsageError: as :func:`check_names`, or a task that has other classes.
    """
    if config.label_names is None:
        return None
    names = check_names(config.label_names)
    task = task_of_data(config)
    if task is not None and task.kind != "classification":
        raise UsageError(
            f"--label-names names classes; task '{task.name}' has none ({task.kind})",
            hint="Leave --label-names out",
        )
    if task is not None and len(names) != task.num_labels:
        raise UsageError(
            f"--label-names gives {len(names)} names, task '{task.name}' has {task.num_labels} "
            f"classes ({', '.join(task.label_names)})",
            hint="Give one name for each class",
        )
    return names


def script_names(
    settings: MultiExitConfig, task: TaskInfo | None
) -> tuple[tuple[str, ...], str] | None:
    """The names, and the task, of a published checkpoint that stores no names.

    Args:
        settings: of the model. The task that it names goes before
        task: that of the data.

    Returns:
        None where the checkpoint has names, is no published one, or is of no known task.
    """
    outputs = int(settings.num_labels)
    own = [str(settings.id2label[index]) for index in range(outputs)]
    if "converted_from" not in settings.training or outputs < 2 or not are_generic(own):
        return None
    info = _known(settings.task) or task
    if info is None or info.num_labels != outputs:
        return None
    swapped = settings.backbone["model_type"] in _SWAPPING
    order = (_SWAPPED if swapped else _SCRIPTS_ORDER).get(info.name, info.label_names)
    return order, info.name


def task_of_data(config: Any) -> TaskInfo | None:
    """The catalog's task that the options name, or that a data folder is called after."""
    name = getattr(config, "task", None)
    folder = getattr(config, "data_dir", None)
    if name is None and folder is not None:
        name = Path(folder).name
    return _known(name)


def _known(name: str | None) -> TaskInfo | None:
    """A task of the catalog; None for a file's or a folder's name."""
    try:
        return None if name is None else task_info(name)
    except UsageError:
        return None


def classes_of(run: Run) -> tuple[str, ...]:
    """The classes that an attack run's labels are ids of; empty where it noted none.

    Runs of before ``--label-names`` noted them under that name.
    """
    return tuple(run.config.get("classes") or run.config.get("label_names") or ())


def warn_below_chance(
    names: Sequence[str], predictions: ArrayLike, labels: ArrayLike, progress: Progress
) -> None:
    """Say so where a classifier is right less often than guessing would be.

    Chance is 1/K: guessing reaches it whatever the shares of the classes, so that falling short of
    it points at classes in a wrong order. The most frequent class's share would be missed by many
    an honest model on uneven data.

    Args:
        names: of the K classes.
        predictions: of the full model. Shape: [samples].
        labels: Shape: [samples].
    """
    right = np.asarray(predictions) == np.asarray(labels)
    if len(names) < 2 or not right.size or right.mean() >= 1 / len(names):
        return
    progress.message(
        f"Below chance: {right.mean():.1%} of {right.size} answers are right, guessing gives "
        f"{1 / len(names):.1%}. Are the model's outputs {', '.join(names)}, in this order? "
        "If not, give it with --label-names"
    )


def trained_on_pairs(settings: MultiExitConfig) -> bool | None:
    """Was the model trained on pairs of texts? None where nothing says."""
    training = settings.training
    if training.get("data_file") is not None:
        return training.get("text_pair_column") is not None
    task = _known(settings.task)
    return None if task is None else task.pair
