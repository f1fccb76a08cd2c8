"""Training a model whose tokens may leave early, or classifiers of when they may: what every family
of models that write text shares."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch

from eexit_cli.confidence import CLASSIFIERS
from eexit_cli.confidence.decoder import build_classifier
from eexit_cli.config.field import refuse_unread
from eexit_cli.config.train import (
    CLASSIFIER_DEFAULTS,
    DECODER_DEFAULTS,
    DECODER_TASK,
    SCRATCH_DEFAULTS,
    SHAPE_OPTIONS,
    SOURCE_TOKENS,
    TARGET_TOKENS,
    TrainConfig,
)
from eexit_cli.core.errors import MissingArtifactError, UsageError
from eexit_cli.core.option import flag
from eexit_cli.core.seed import derive_seed, seed_everything
from eexit_cli.families.decoders.loading import settings_left_out
from eexit_cli.families.decoders.training_report import CardWords, card_facts, measure, remember
from eexit_cli.families.loading import check_vocabulary, tell_unwrapped
from eexit_cli.families.training import Job, Metrics, Plan, Rows, Shared
from eexit_cli.families.training_source import Source, refuse_kind, source_of
from eexit_cli.families.training_vocabulary import able_to_write, tell_unknown, tell_unwritable
from eexit_cli.models.decoding.decoder import ExitDecoder
from eexit_cli.store.models import BUNDLED
from eexit_cli.store.results import Run
from eexit_cli.training import DECODER_STRATEGIES
from eexit_cli.training.decoder_strategies import ClassifiersObjective, DecoderStrategy, Recipe
from eexit_cli.training.settings import StepPlan
from eexit_cli.training.trainer import Objective

ALL_CLASSIFIERS = "all"

_DROPOUTS = (
    "dropout_rate", "dropout", "attention_dropout", "hidden_dropout", "resid_pdrop", "attn_pdrop",
    "embd_pdrop", "resid_dropout",
)  # fmt: skip
"""What architectures call the rate in their configurations."""


@dataclass(frozen=True)
class Purpose:
    """What a training is for.

    Attributes:
        strategy: of the layers or exits; None where classifiers train.
        recipe: the strategy with its settings.
        classifiers: canonical names; empty where a strategy trains.
    """

    strategy: DecoderStrategy | None
    recipe: Recipe | None = None
    classifiers: tuple[str, ...] = ()

    @property
    def description(self) -> str:
        if self.strategy is None:
            return f"classifiers {', '.join(self.classifiers)}"
        return self.strategy.description

    def objective(self, model: ExitDecoder, steps: int) -> Objective:
        """Of the one stage.

        Args:
            steps: of the optimizer, in all.
        """
        if self.strategy is None or self.recipe is None:
            return ClassifiersObjective(model, self.classifiers)
        return self.recipe.objective(model, self.strategy.name, steps)


@dataclass(frozen=True)
class Kind:
    """What one family's trainings have of their own.

    Attributes:
        family: of ``core.option.FAMILIES``.
        title: what a new model is called.
        bundled: the model whose layers classifiers judge by default.
        strategy: by default.
        backbone: to name in place of none.
        job: its class.
    """

    family: str
    title: str
    bundled: str
    strategy: str
    backbone: str
    job: Callable[[Shared, Source | None, Purpose], Job]


def plan(config: TrainConfig, kind: Kind) -> Plan:
    """Check the options of a training.

    Raises:
        UsageError: an unknown strategy or classifier, or options that exclude each other.
        MissingArtifactError: nothing to start from.
    """
    refuse_unread(config, kind.family, model=config.model)
    purpose = _purpose(config, kind)
    backbone, origin = _start_from(config, purpose, kind)
    if backbone is not None:
        shape = [name for name in SHAPE_OPTIONS if getattr(config, name) is not None]
        if shape:
            option = flag(shape[0])
            raise UsageError(
                f"{option} shapes {kind.title}, and this training starts from {backbone}",
                hint=f"Drop {option}, or --backbone",
            )
    source = None if backbone is None else source_of(backbone)
    if source is not None:
        refuse_kind(source, kind.family)
    defaults = DECODER_DEFAULTS if backbone is not None else SCRATCH_DEFAULTS
    return Plan(
        defaults=CLASSIFIER_DEFAULTS if purpose.classifiers else defaults,
        start=lambda shared: kind.job(shared, source, purpose),
        origin=origin,
    )


def _purpose(config: TrainConfig, kind: Kind) -> Purpose:
    strategies: list[DecoderStrategy] = [
        DECODER_STRATEGIES.load(name) for name in DECODER_STRATEGIES
    ]
    if config.confidence is not None:
        own = [name for strategy in strategies for name in strategy.options]
        for name in ("strategy", "dropout", *own):
            if _given(config, name):
                option = flag(name)
                raise UsageError(
                    f"{option} trains the decoder, --confidence keeps it as it is",
                    hint=f"Drop {option}, or train the decoder first and its classifiers after",
                )
        return Purpose(None, classifiers=classifier_names(config.confidence))
    strategy: DecoderStrategy = DECODER_STRATEGIES.load(config.strategy or kind.strategy)
    if strategy.families and kind.family not in strategy.families:
        raise UsageError(
            f"--strategy {strategy.name} does not train {kind.title}",
            hint=f"Leave it out for {kind.strategy}, or name another --model",
        )
    for other in strategies:
        for name in other.options:
            if _given(config, name) and name not in strategy.options:
                raise UsageError(
                    f"{flag(name)} goes with {other.method}", hint=f"Add {other.asked}"
                )
    options = {name: getattr(config, name) for name in strategy.options if _given(config, name)}
    recipe = strategy.build(options, from_scratch=config.backbone is None)
    return Purpose(strategy, recipe)


def _given(config: TrainConfig, name: str) -> bool:
    return getattr(config, name) != getattr(TrainConfig, name)


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


def _start_from(config: TrainConfig, purpose: Purpose, kind: Kind) -> tuple[str | None, str | None]:
    """The folder or hub id to start from, and what to tell the user about eexit's choice."""
    if config.backbone is not None:
        return config.backbone, None
    if purpose.classifiers:
        bundled = BUNDLED / kind.bundled
        if not (bundled / "config.json").is_file():
            raise MissingArtifactError(
                "No decoder is given", hint="Add --backbone with a folder or a hub id"
            )
        return str(bundled), f"Decoder: the bundled model {kind.bundled}, kept as it is"
    if config.task != DECODER_TASK:
        raise MissingArtifactError(
            "No backbone is given",
            hint=f"Add --backbone {kind.backbone} (a hub id) or a folder; without one "
            f"only --task {DECODER_TASK} can be trained, from scratch",
        )
    return None, f"No backbone is given: {kind.title} is trained from scratch"


class DecoderJob(Job):
    """A decoder's training, or that of classifiers on it.

    Attributes:
        purpose: which of the two.
        max_source, max_target: tokens per sample.
        words: what its card says of its kind.
    """

    generates = True
    words: ClassVar[CardWords]
    model: Any

    def __init__(self, shared: Shared, source: Source | None, purpose: Purpose) -> None:
        self.purpose = purpose
        super().__init__(shared, source)

    @abstractmethod
    def new(self) -> tuple[Any, Any]:
        """Tokenizer and model with random weights."""

    @abstractmethod
    def given(self, source: Source) -> tuple[Any, Any]:
        """Tokenizer and model of what it starts from."""

    @abstractmethod
    def loaded_model(self, dtype: torch.dtype) -> Any:
        """The model as the use cases know it, for validation."""

    def load(self) -> None:
        config, source, progress, purpose = self.config, self.source, self.progress, self.purpose
        if source is None:
            self.tokenizer, self.model = self.new()
        else:
            self._load_given(source)
        model = self.model
        if purpose.recipe is not None and (dropped := model.drop_classifiers()):
            why = (
                "; exits of their own have none"
                if purpose.recipe.own_exits
                else ", which learned from other layers; train them anew on the finished model "
                "with --confidence"
            )
            progress.message(f"Left out: the classifiers {', '.join(dropped)}{why}")
        if self.info.raw_text:
            tell_unknown(self.tokenizer, self.training, progress)
        else:
            if purpose.strategy is not None:
                self.tokenizer = able_to_write(
                    model, self.tokenizer, self.training, config.seed, progress
                )
            tell_unwritable(self.tokenizer, self.training, progress)
        _prepare(model, config, purpose)
        source_tokens, target_tokens = self.longest()
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

    def longest(self) -> tuple[int, int]:
        """Tokens per source and per target, where nobody says."""
        longest = int(self.tokenizer.model_max_length)
        return min(longest, SOURCE_TOKENS), min(longest, TARGET_TOKENS)

    def _load_given(self, source: Source) -> None:
        self.tokenizer, self.model = self.given(source)
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

    def objectives(self) -> list[Objective]:
        plan = StepPlan.of(
            self.settings, len(self.training), processes=self.processes.num_processes
        )
        return [self.purpose.objective(self.model, plan.total)]

    def measure(self, run: Run, dtype: torch.dtype) -> tuple[Metrics, Rows]:
        return measure(self, run, dtype)

    def remember(self, metrics: Metrics) -> None:
        remember(self, metrics)

    def facts(self, metrics: Metrics, dtype: str) -> dict[str, Any]:
        return card_facts(self, dtype)


def shape_of(config: TrainConfig, defaults: Mapping[str, int]) -> dict[str, Any]:
    """Of a model that is trained from scratch.

    Raises:
        UsageError: a width that the heads cannot share.
    """
    shape = {name: getattr(config, name) or default for name, default in defaults.items()}
    if shape["d_model"] % shape["num_heads"]:
        raise UsageError(
            f"--d-model {shape['d_model']} is no multiple of --num-heads {shape['num_heads']}",
            hint="Choose a width that the heads can share",
        )
    return shape


def _prepare(model: Any, config: TrainConfig, purpose: Purpose) -> None:
    """Options that change the model before it trains; new classifiers."""
    if purpose.recipe is not None:
        purpose.recipe.prepare(model)
    if config.dropout is not None:
        if not 0 <= config.dropout < 1:
            raise UsageError(
                f"--dropout {config.dropout} is outside its range", hint="Give 0 to below 1"
            )
        for name in _DROPOUTS:
            if hasattr(model.config, name):
                setattr(model.config, name, config.dropout)
        for module in model.modules():
            if isinstance(module, torch.nn.Dropout):
                module.p = config.dropout
            for name in ("dropout", "attention_dropout"):
                if isinstance(getattr(module, name, None), float):
                    setattr(module, name, config.dropout)
    for name in purpose.classifiers:
        # What one classifier starts from does not depend on its company.
        seed_everything(derive_seed(config.seed, "classifier", name))
        model.add_classifier(name, build_classifier(name, model.state_width))
