"""Training a decoder whose tokens may leave early (CALM, FREE), or classifiers of when they may."""

from __future__ import annotations

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
from eexit_cli.core.seed import derive_seed, seed_everything
from eexit_cli.core.types import Examples
from eexit_cli.data.pronunciation import pronunciation_tokenizer
from eexit_cli.families.loading import check_vocabulary, tell_unwrapped
from eexit_cli.families.seq2seq.model import load_decoder_tokenizer, settings_left_out
from eexit_cli.families.seq2seq.training_report import card_facts, measure, remember
from eexit_cli.families.training import Job, Metrics, Plan, Rows, Shared
from eexit_cli.families.training_source import Source, refuse_kind, source_of
from eexit_cli.families.training_vocabulary import able_to_write, tell_unwritable
from eexit_cli.models.t5.config import MultiExitT5Config
from eexit_cli.models.t5.layouts import load_seq2seq
from eexit_cli.models.t5.model import MultiExitT5
from eexit_cli.store.models import BUNDLED
from eexit_cli.store.results import Run
from eexit_cli.training import DECODER_STRATEGIES
from eexit_cli.training.batches import Tokenized
from eexit_cli.training.decoder_strategies import (
    ClassifiersObjective,
    DecoderStrategy,
    LayersObjective,
    ShallowDeep,
)
from eexit_cli.training.trainer import Objective

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

    @property
    def description(self) -> str:
        if self.strategy is None:
            return f"classifiers {', '.join(self.classifiers)}"
        return self.strategy.description

    def objective(self, model: MultiExitT5) -> Objective:
        if self.strategy is None:
            return ClassifiersObjective(model, self.classifiers)
        return LayersObjective(model, self.strategy.name, self.strategy.build(self.free))


def plan(config: TrainConfig) -> Plan:
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
        start=lambda shared: DecoderJob(shared, source, purpose),
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


class DecoderJob(Job):
    """A decoder's training, or that of classifiers on it.

    Attributes:
        purpose: which of the two.
        max_source, max_target: tokens per sample.
    """

    generates = True
    model: MultiExitT5

    def __init__(self, shared: Shared, source: Source | None, purpose: Purpose) -> None:
        self.purpose = purpose
        super().__init__(shared, source)

    def load(self) -> None:
        config, source, progress, purpose = self.config, self.source, self.progress, self.purpose
        if source is None:
            self.tokenizer = pronunciation_tokenizer()
            self.model = new_t5(config, self.tokenizer)
        else:
            self._load_given(source)
        model = self.model
        if purpose.strategy is not None:
            if dropped := model.drop_classifiers():
                progress.message(
                    f"Left out: the classifiers {', '.join(dropped)}, which learned from other "
                    "layers; train them anew on the finished model with --confidence"
                )
            self.tokenizer = able_to_write(
                model, self.tokenizer, self.training, config.seed, progress
            )
        tell_unwritable(self.tokenizer, self.training, progress)
        _prepare(model, config, purpose)
        longest = int(self.tokenizer.model_max_length)
        source_tokens, target_tokens = min(longest, SOURCE_TOKENS), min(longest, TARGET_TOKENS)
        if purpose.classifiers:
            # They judge the model as it is run: on inputs and outputs of its own lengths.
            source_tokens = model.config.max_source_length or source_tokens
            target_tokens = model.config.max_target_length or target_tokens
        self.max_source = source_tokens if config.max_length is None else config.max_length
        self.max_target = config.max_target_length or target_tokens
        for name, value in (
            ("max-length", self.max_source),
            ("max-target-length", self.max_target),
        ):
            if value < 2:
                raise UsageError(f"--{name} {value} is too short", hint="Give at least 2")

    def _load_given(self, source: Source) -> None:
        self.model = load_seq2seq(source.folder, build_classifier=build_classifier)
        self.tokenizer = load_decoder_tokenizer(source.folder, self.config.lower_case)
        check_vocabulary(self.tokenizer, self.model.config.vocab_size, source.folder)
        tell_unwrapped(self.model, source.name, self.progress)
        if left_out := settings_left_out(self.model):
            self.progress.message(
                f"{source.name} asks for {left_out}, and so will the trained model; its exits are "
                "measured on greedy outputs, as with --greedy"
            )
        if source.family is not None and self.purpose.strategy is not None:
            self.progress.message(f"Goes on from {source.name}: the weights of all its layers")

    @property
    def depth(self) -> int:
        return self.model.depth

    def describe(self) -> str:
        return f": {self.purpose.description}; {self.depth} decoder layers"

    def tokenized(self, examples: Examples) -> Tokenized:
        return Tokenized.of_pairs(
            self.tokenizer,
            list(examples.dataset["source"]),
            list(examples.dataset["target"]),
            max_source=self.max_source,
            max_target=self.max_target,
        )

    def objectives(self) -> list[Objective]:
        return [self.purpose.objective(self.model)]

    def measure(self, run: Run, dtype: torch.dtype) -> tuple[Metrics, Rows]:
        return measure(self, run, dtype)

    def remember(self, metrics: Metrics) -> None:
        remember(self, metrics)

    def facts(self, metrics: Metrics, dtype: str) -> dict[str, Any]:
        return card_facts(self, dtype)


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
