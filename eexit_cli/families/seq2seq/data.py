"""Which text pairs a decoder is run on, and with which prefix."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

from eexit_cli.core.errors import UsageError
from eexit_cli.core.progress import SilentProgress
from eexit_cli.core.types import Examples
from eexit_cli.data import TASKS, load_examples, task_info
from eexit_cli.families.data import own_samples
from eexit_cli.families.seen_rows import leaving_out
from eexit_cli.metrics.generation import References

if TYPE_CHECKING:
    from eexit_cli.core.protocols import Progress
    from eexit_cli.families.seq2seq.model import LoadedDecoder


def own_task(config: Any, loaded: LoadedDecoder, progress: Progress | None = None) -> Any:
    """The configuration with the model's task, or held-out data, and prefix where nobody says.

    Args:
        config: with the attributes of ``config.common.DataConfig``, and ``seed``.
        progress: told when data are held-out ones.

    Raises:
        UsageError, MissingArtifactError: as :func:`eexit_cli.families.data.own_samples`.
    """
    config = own_samples(
        config,
        loaded.model.config.training,
        loaded.task,
        loaded.ref.name,
        progress or SilentProgress(),
    )
    if config.source_prefix is None and loaded.source_prefix is not None:
        config = dataclasses.replace(config, source_prefix=loaded.source_prefix)
    return config


def load_pairs(
    config: Any,
    loaded: LoadedDecoder,
    *,
    default_split: str,
    progress: Progress | None = None,
) -> Examples:
    """Sources and targets for a decoder, without those that it was trained on.

    Args:
        config: as :func:`own_task` returns it, with ``seed`` and ``include_training_rows``.

    Raises:
        UsageError: a task of another kind, no task at all, or data that do not fit.
        MissingArtifactError: data that are not there.
    """
    if config.task is None and config.data_file is None:
        known = [name for name in TASKS if task_info(name).kind == "generation"]
        raise UsageError(
            f"Model '{loaded.ref.name}' names no task of its own",
            hint=f"Use --task with one of {', '.join(known)}, or --data-file",
        )
    return load_examples(
        config,
        default_split=default_split,
        generates=True,
        progress=progress,
        leave_out=leaving_out(config, loaded, progress or SilentProgress()),
    )


def references_of(examples: Examples) -> list[References]:
    """The accepted answers of each sample."""
    if "references" in examples.dataset.column_names:
        return [list(answers) for answers in examples.dataset["references"]]
    return [[target] for target in examples.dataset["target"]]


def prefix_in(examples: Examples) -> str:
    """What stands before each source of loaded samples."""
    return str(examples.info.extra.get("source_prefix") or "")


def prefix_of(loaded: LoadedDecoder) -> str:
    """What stands before a text that is typed in: the model's prefix, or its task's."""
    if loaded.source_prefix is not None:
        return loaded.source_prefix
    return "" if loaded.task is None else str(task_info(loaded.task).extra["source_prefix"])
