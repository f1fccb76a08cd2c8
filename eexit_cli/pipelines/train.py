"""``eexit train``: data, a model with new exits, the stages of its training, a finished folder."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

from accelerate import PartialState
from accelerate.utils import broadcast_object_list

from eexit_cli.config.resume import resumed
from eexit_cli.config.train import OF_BACKBONE, TrainConfig
from eexit_cli.core.errors import MissingArtifactError, NotFiniteError, UsageError
from eexit_cli.core.progress import SilentProgress
from eexit_cli.core.protocols import Progress
from eexit_cli.core.types import RunResult
from eexit_cli.families.data import task_of_export
from eexit_cli.families.loading import resolve_device
from eexit_cli.families.training import Shared, plan, training_settings
from eexit_cli.families.training_source import settled, told
from eexit_cli.store.results import ResultStore, Run
from eexit_cli.training.checkpoints import Workspace, storage_errors

# What may differ between an unfinished training and the command that resumes it.
_FREE_ON_RESUME = ("resume", "results_dir", "output", "device", "licence")


def run_training(
    config: TrainConfig, *, progress: Progress | None = None, explicit: Collection[str] = ()
) -> RunResult:
    """Train a multi-exit model and write it to ``config.output``.

    The default exit is chosen on the validation data; test data are not read. Until the model is
    finished everything is in ``<output>.training``, from which ``config.resume`` goes on; a
    resumed training ends with the weights of an unbroken one.

    Args:
        config: see :class:`TrainConfig`.
        progress: where to show it; None is silent.
        explicit: options that were given, even where they say what is the default; with
            ``resume`` they must agree with those of the unfinished training.

    Returns:
        The run: validation metrics per exit and at the default exit, one record per validation
        during training, a row per exit.

    Raises:
        UsageError: options or data that cannot be, an output folder that is taken.
        MissingArtifactError: no backbone or no data.
        NotFiniteError: the training diverged; nothing of it is kept.
        OSError: a folder that cannot be written, a full disk.
    """
    completed = config.completed()
    assert completed.output is not None
    workspace = Workspace(completed.output.expanduser().absolute())
    stored = workspace.check(resume=config.resume)
    if stored is None:
        config = task_of_export(settled(completed))
    else:
        config = _resumed(config, stored.settings, explicit)
    device = resolve_device(config.device)
    if device.index:
        raise UsageError(
            f"Training cannot choose the device '{config.device}'",
            hint=f"Choose the GPU outside: CUDA_VISIBLE_DEVICES={device.index} eexit train ...",
        )
    planned = plan(config)
    settings = training_settings(config, planned.defaults, device.type)
    processes = PartialState(cpu=device.type == "cpu")
    progress = (progress if processes.is_main_process else None) or SilentProgress()
    if planned.origin:
        progress.message(planned.origin)
    if stored is None:
        for line in told(completed, config):
            progress.message(line)
    notes = {} if stored is None else stored.notes
    finished = _finished_run(config, notes)
    # Nothing is written before data and backbone have turned out to be there.
    processes.wait_for_everyone()
    if finished is not None:
        if processes.is_main_process:
            workspace.remove()
        return finished
    job = planned.start(Shared(config, settings, workspace, processes, progress))
    if not processes.is_main_process:
        processes.wait_for_everyone()
        job.train(None)
        return RunResult(*broadcast_object_list([None, None]))
    workspace.claim(config.as_dict())
    processes.wait_for_everyone()
    with storage_errors(workspace.path), _run(config, workspace, notes) as run:
        try:
            document = job.finish(run, job.train(run))
        except NotFiniteError:
            # Resumed, it would diverge again; the same output is free for another attempt.
            workspace.remove()
            raise
    workspace.remove()
    return RunResult(*broadcast_object_list([document, run.path]))


def _resumed(config: TrainConfig, stored: dict[str, Any], explicit: Collection[str]) -> TrainConfig:
    """The unfinished training's configuration; options left at their defaults need no repeating.

    Raises:
        UsageError: an option contradicts the unfinished training.
    """
    if config.model == OF_BACKBONE:
        # That was settled when the training began.
        explicit = set(explicit) - {"model"}
    began = resumed(
        config,
        stored,
        what="unfinished training",
        repair="go on as it began",
        explicit=explicit,
        free=_FREE_ON_RESUME,
    )
    return replace(began, resume=True, output=config.completed().output)


def _finished_run(config: TrainConfig, notes: dict[str, Any]) -> RunResult | None:
    """The run of a training that was killed in its very last moment, after it had ended."""
    if "run" not in notes:
        return None
    try:
        run = ResultStore(config.results_dir).open(notes["run"])
    except MissingArtifactError:
        return None
    document = run.document()
    return None if document is None else RunResult(document, run.path)


@contextmanager
def _run(config: TrainConfig, workspace: Workspace, notes: dict[str, Any]) -> Iterator[Run]:
    """The run that this training writes to: a new one, or the unfinished one of a resumption."""
    store = ResultStore(config.results_dir)
    run: Run | None = None
    if "run" in notes:
        try:
            run = store.resume(notes["run"])
        except MissingArtifactError:
            run = None
    if run is None:
        run = store.create("train", config.as_dict())
        workspace.remember(run=run.id)
    with run:
        yield run
