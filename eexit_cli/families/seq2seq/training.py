"""Training a decoder whose tokens may leave early (CALM, FREE), or classifiers of when they may."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

import torch

from eexit_cli.confidence import CLASSIFIERS
from eexit_cli.confidence.decoder import build_classifier
from eexit_cli.config.field import SEQ2SEQ, refuse_unread
from eexit_cli.config.train import (
    CLASSIFIER_DEFAULTS,
    DECODER_DEFAULTS,
    DECODER_TASK,
    FREE_OPTIONS,
    SCRATCH_DEFAULTS,
    SHAPE_OPTIONS,
    SOURCE_TOKENS,
    TARGET_TOKENS,
    TrainConfig,
)
from eexit_cli.core.errors import MissingArtifactError, UsageError
from eexit_cli.core.option import flag
from eexit_cli.core.protocols import Progress
from eexit_cli.core.seed import derive_seed, seed_everything
from eexit_cli.core.types import Examples, TaskInfo
from eexit_cli.data.pronunciation import pronunciation_tokenizer
from eexit_cli.families.data import held_out
from eexit_cli.families.loading import check_vocabulary, tell_unwrapped
from eexit_cli.families.seq2seq.model import load_decoder_tokenizer, settings_left_out
from eexit_cli.families.seq2seq.training_report import finish_decoder_training
from eexit_cli.families.training import Plan, Shared, recorder, splits
from eexit_cli.families.training_source import Source, refuse_kind, source_of
from eexit_cli.families.training_vocabulary import able_to_write, tell_unwritable
from eexit_cli.models.t5.config import MultiExitT5Config
from eexit_cli.models.t5.layouts import load_seq2seq
from eexit_cli.models.t5.model import MultiExitT5
from eexit_cli.store.models import BUNDLED
from eexit_cli.store.results import Run
from eexit_cli.store.training_rows import TrainingRows, read_training_rows
from eexit_cli.training import DECODER_STRATEGIES
from eexit_cli.training.checkpoints import Workspace
from eexit_cli.training.decoder_batches import TokenizedPairs
from eexit_cli.training.decoder_strategies import DecoderStrategy, ShallowDeep
from eexit_cli.training.decoder_trainer import (
    ClassifiersObjective,
    LayersObjective,
    Objective,
    run_decoder_stage,
)
from eexit_cli.training.processes import Processes
from eexit_cli.training.settings import TrainingSettings

BUNDLED_DECODER = "calm"
NEW_SHAPE = {"num_layers": 6, "num_decoder_layers": 6, "d_model": 128, "d_ff": 512, "num_heads": 4}
"""Of a T5 that is trained from scratch, where nobody says."""
NEW_DROPOUT = 0.1
ALL_CLASSIFIERS = "all"


@dataclass(frozen=True)
class Purpose:
    """What a training is for.

    Attributes:
        strategy: of the layers; None where classifiers train.
        free: settings of FREE's loss.
        classifiers: canonical names; empty where the layers train.
    """

    strategy: DecoderStrategy | None
    free: ShallowDeep | None
    classifiers: tuple[str, ...]

    def objective(self) -> Objective:
        if self.strategy is None:
            return ClassifiersObjective(self.classifiers)
        return LayersObjective(self.strategy.name, self.strategy.build(self.free))


@dataclass
class DecoderJob:
    """Everything that a decoder's training needs."""

    config: TrainConfig
    settings: TrainingSettings
    purpose: Purpose
    backbone: str | None
    held_out: dict[str, Any] | None
    seen_before: TrainingRows | None
    model: MultiExitT5
    tokenizer: Any
    training: Examples
    validation: Examples
    max_source: int
    max_target: int
    workspace: Workspace
    processes: Processes
    progress: Progress

    @property
    def info(self) -> TaskInfo:
        return self.training.info

    def train(self, run: Run | None) -> dict[str, float]:
        return _train(self, run)

    def finish(self, run: Run, timings: dict[str, float]) -> dict[str, Any]:
        return finish_decoder_training(self, run, timings)


def plan_decoder(config: TrainConfig) -> Plan:
    """Check the options of a decoder's training.

    Raises:
        UsageError: an unknown strategy or classifier, or options that exclude each other.
        MissingArtifactError: nothing to start from.
    """
    refuse_unread(config, SEQ2SEQ, model=config.model)
    purpose = _purpose(config)
    backbone, origin = _start_from(config, purpose)
    if backbone is not None:
        shape = [name for name in SHAPE_OPTIONS if getattr(config, name) is not None]
        if shape:
            option = flag(shape[0])
            raise UsageError(
                f"{option} shapes a new T5, and this training starts from {backbone}",
                hint=f"Drop {option}, or --backbone",
            )
    source = None if backbone is None else source_of(backbone)
    if source is not None:
        refuse_kind(source, decoder=True)
    defaults = DECODER_DEFAULTS if backbone is not None else SCRATCH_DEFAULTS
    return Plan(
        defaults=CLASSIFIER_DEFAULTS if purpose.classifiers else defaults,
        start=lambda shared: _job(shared, purpose, source),
        origin=origin,
    )


def _purpose(config: TrainConfig) -> Purpose:
    if config.confidence is not None:
        for name in ("strategy", "dropout", *FREE_OPTIONS):
            if getattr(config, name) is not None:
                option = flag(name)
                raise UsageError(
                    f"{option} trains the decoder, --confidence keeps it as it is",
                    hint=f"Drop {option}, or train the decoder first and its classifiers after",
                )
        return Purpose(None, None, classifier_names(config.confidence))
    strategy: DecoderStrategy = DECODER_STRATEGIES.load(config.strategy or "weighted-ce")
    free = _free(config)
    strategy.build(free)  # refuses settings that do not belong to it
    return Purpose(strategy, free, ())


def classifier_names(asked: str) -> tuple[str, ...]:
    """Canonical names from ``linear,mlp`` or ``all``.

    Raises:
        UsageError: an unknown name.
    """
    if asked.strip() == ALL_CLASSIFIERS:
        return tuple(CLASSIFIERS)
    names = [name.strip() for name in asked.split(",") if name.strip()]
    if not names:
        raise UsageError("--confidence names no classifier", hint="Add --confidence linear,mlp")
    return tuple(dict.fromkeys(CLASSIFIERS.canonical(name) for name in names))


def _free(config: TrainConfig) -> ShallowDeep | None:
    if config.shallow_layer is None:
        given = [name for name in FREE_OPTIONS if getattr(config, name) is not None]
        if given:
            raise UsageError(
                f"{flag(given[0])} goes with FREE",
                hint="Add --strategy free --shallow-layer K",
            )
        return None
    values: dict[str, Any] = {"shallow_layer": config.shallow_layer}
    if config.distillation is not None:
        values["distillation"] = config.distillation
    if config.distillation_weight is not None:
        values["weight"] = config.distillation_weight
    return ShallowDeep(**values)


def _start_from(config: TrainConfig, purpose: Purpose) -> tuple[str | None, str | None]:
    """The folder or hub id to start from, and what to tell the user about eexit's choice."""
    if config.backbone is not None:
        return config.backbone, None
    if purpose.classifiers:
        bundled = BUNDLED / BUNDLED_DECODER
        if not (bundled / "config.json").is_file():
            raise MissingArtifactError(
                "No decoder is given", hint="Add --backbone with a folder or a hub id"
            )
        return str(bundled), f"Decoder: the bundled model {BUNDLED_DECODER}, kept as it is"
    if config.task != DECODER_TASK:
        raise MissingArtifactError(
            "No backbone is given",
            hint="Add --backbone google-t5/t5-small (a hub id) or a T5's folder; without one "
            f"only --task {DECODER_TASK} can be trained, from scratch",
        )
    return None, "No backbone is given: a new T5 is trained from scratch"


def _job(shared: Shared, purpose: Purpose, source: Source | None) -> DecoderJob:
    config, progress = shared.config, shared.progress
    seed_everything(config.seed)
    before = None if source is None else read_training_rows(source.folder)
    training, validation = splits(config, progress, generates=True, before=before)
    memory = held_out(config, progress)
    if source is None:
        tokenizer = pronunciation_tokenizer()
        model = new_t5(config, tokenizer)
    else:
        model = load_seq2seq(source.folder, build_classifier=build_classifier)
        tokenizer = load_decoder_tokenizer(source.folder, config.lower_case)
        check_vocabulary(tokenizer, model.config.vocab_size, source.folder)
        tell_unwrapped(model, source.name, progress)
        if left_out := settings_left_out(model):
            progress.message(
                f"{source.name} asks for {left_out}, and so will the trained model; its exits are "
                "measured on greedy outputs, as with --greedy"
            )
        if source.family is not None and purpose.strategy is not None:
            progress.message(f"Goes on from {source.name}: the weights of all its layers")
    if purpose.strategy is not None and (dropped := model.drop_classifiers()):
        progress.message(
            f"Left out: the classifiers {', '.join(dropped)}, which learned from other layers; "
            "train them anew on the finished model with --confidence"
        )
    if purpose.strategy is not None:
        tokenizer = able_to_write(model, tokenizer, training, config.seed, progress)
    tell_unwritable(tokenizer, training, progress)
    _prepare(model, config, purpose)
    longest = int(min(tokenizer.model_max_length, SOURCE_TOKENS))
    max_source = longest if config.max_length is None else config.max_length
    max_target = config.max_target_length or int(min(tokenizer.model_max_length, TARGET_TOKENS))
    if purpose.classifiers:
        # They judge the model as it is run: on inputs and outputs of its own lengths.
        max_source = config.max_length or model.config.max_source_length or max_source
        max_target = config.max_target_length or model.config.max_target_length or max_target
    for name, value in (("max-length", max_source), ("max-target-length", max_target)):
        if value < 2:
            raise UsageError(f"--{name} {value} is too short", hint="Give at least 2")
    return DecoderJob(
        config=config,
        settings=shared.settings,
        purpose=purpose,
        backbone=None if source is None else source.name,
        held_out=memory,
        seen_before=before,
        model=model,
        tokenizer=tokenizer,
        training=training,
        validation=validation,
        max_source=max_source,
        max_target=max_target,
        workspace=shared.workspace,
        processes=shared.processes,
        progress=progress,
    )


def new_t5(config: TrainConfig, tokenizer: Any) -> MultiExitT5:
    """A T5 with random weights for this tokenizer.

    Raises:
        UsageError: a shape that cannot be.
    """
    shape: dict[str, Any] = {
        name: getattr(config, name) or NEW_SHAPE[name] for name in SHAPE_OPTIONS
    }
    if shape["d_model"] % shape["num_heads"]:
        raise UsageError(
            f"--d-model {shape['d_model']} is no multiple of --num-heads {shape['num_heads']}",
            hint="Choose a width that the heads can share",
        )
    return MultiExitT5(
        MultiExitT5Config(
            vocab_size=len(tokenizer),
            d_kv=shape["d_model"] // shape["num_heads"],
            dropout_rate=NEW_DROPOUT,
            pad_token_id=tokenizer.pad_token_id,
            eos_token_id=tokenizer.eos_token_id,
            decoder_start_token_id=tokenizer.pad_token_id,
            **shape,
        )
    )


def _prepare(model: MultiExitT5, config: TrainConfig, purpose: Purpose) -> None:
    """Options that change the model before it trains; new classifiers."""
    if purpose.free is not None:
        purpose.free.check(model.depth)
    if config.dropout is not None:
        if not 0 <= config.dropout < 1:
            raise UsageError(
                f"--dropout {config.dropout} is outside its range", hint="Give 0 to below 1"
            )
        model.config.dropout_rate = config.dropout
        for module in model.modules():
            if isinstance(module, torch.nn.Dropout):
                module.p = config.dropout
            elif hasattr(module, "dropout") and isinstance(module.dropout, float):
                module.dropout = config.dropout
    for name in purpose.classifiers:
        # What one classifier starts from does not depend on its company.
        seed_everything(derive_seed(config.seed, "classifier", name))
        model.add_classifier(name, build_classifier(name, model.config.d_model))


def _train(job: DecoderJob, run: Run | None) -> dict[str, float]:
    """The one stage, where it is not finished yet; its seconds."""
    progress, model = job.progress, job.model
    training, validation = _tokenized(job, job.training), _tokenized(job, job.validation)
    for name, split in (("training", training), ("validation", validation)):
        cut = (("sources", split.sources_cut, job.max_source),)
        for what, number, limit in (*cut, ("targets", split.targets_cut, job.max_target)):
            if number:
                progress.message(
                    f"{number} of {len(split)} {name} {what} were cut at {limit} tokens"
                )
    objective = job.purpose.objective()
    strategy = job.purpose.strategy
    what = strategy.description if strategy else f"classifiers {', '.join(job.purpose.classifiers)}"
    weights = sum(weight.numel() for weight in model.parameters())
    progress.message(
        f"{job.config.model}: {what}; {model.depth} decoder layers, {weights / 1e6:.1f} M weights, "
        f"{len(training)} training and {len(validation)} validation samples of {job.info.name}"
    )
    done = job.workspace.load_finished(objective.name, model)
    job.processes.wait()
    if done:
        progress.message(f"Stage 1, {objective.name}: finished before")
        return {}
    started = time.perf_counter()
    run_decoder_stage(
        model,
        objective,
        training,
        validation,
        job.settings,
        pad=int(job.tokenizer.pad_token_id),
        folder=job.workspace.stage(objective.name),
        title=f"Stage 1 of 1: {objective.name}",
        progress=progress,
        evaluated=recorder(run, objective.name, progress),
    )
    seconds = time.perf_counter() - started
    if job.processes.is_main:
        job.workspace.finish_stage(objective.name, model)
    job.processes.wait()
    return {f"{objective.name}_seconds": seconds}


def _tokenized(job: DecoderJob, examples: Examples) -> TokenizedPairs:
    return TokenizedPairs(
        job.tokenizer,
        list(examples.dataset["source"]),
        list(examples.dataset["target"]),
        max_source=job.max_source,
        max_target=job.max_target,
    )
