"""Training a multi-exit classifier: a backbone with new exits, or exits that go on."""

from __future__ import annotations

from importlib import import_module
from typing import Any

import torch

from eexit_cli.config.field import ENCODER, refuse_unread
from eexit_cli.config.train import ENCODER_DEFAULTS, ENCODER_TOKENS, TrainConfig
from eexit_cli.core.errors import MissingArtifactError, UsageError
from eexit_cli.core.types import Examples
from eexit_cli.data.labels import are_generic, match_classes
from eexit_cli.families import training_source
from eexit_cli.families.batches import labels_of, texts_of
from eexit_cli.families.class_names import script_names, task_of_data
from eexit_cli.families.encoder.training_report import MINILM, card_facts, measure
from eexit_cli.families.loading import check_vocabulary, load_tokenizer, tell_unwrapped
from eexit_cli.families.training import Job, Metrics, Plan, Rows, Shared
from eexit_cli.families.training_source import (
    INSTALL_BACKBONE,
    Source,
    in_order_of,
    installed_backbone,
    refuse_kind,
    source_of,
    why_other_classes,
)
from eexit_cli.families.training_vocabulary import tell_unknown
from eexit_cli.models.encoder.continued import continue_from, why_new_exits
from eexit_cli.models.encoder.conversion import load_classifier
from eexit_cli.models.encoder.model import MultiExitClassifier
from eexit_cli.models.encoder.pretrained import initialise_from_backbone
from eexit_cli.store.results import Run
from eexit_cli.training import FAMILY_STRATEGIES, STRATEGIES
from eexit_cli.training.batches import Tokenized
from eexit_cli.training.strategies import ExitsObjective, Strategy
from eexit_cli.training.vocabulary import prune, prune_embeddings


def plan(config: TrainConfig) -> Plan:
    """Check the options of a classifier's training.

    Raises:
        UsageError: an unknown strategy, or options that only decoders have.
        MissingArtifactError: no backbone is named and none is installed.
    """
    refuse_unread(config, ENCODER, model=config.model)
    strategy: Strategy = STRATEGIES.load(config.strategy or FAMILY_STRATEGIES[config.model])
    source, origin = _source(config)
    refuse_kind(source, ENCODER)
    return Plan(
        defaults=ENCODER_DEFAULTS,
        start=lambda shared: EncoderJob(shared, source, strategy),
        origin=origin,
    )


class EncoderJob(Job):
    """A classifier's training.

    Attributes:
        start: of a model whose exits go on, what it was and whether its exits fitted.
        max_length: tokens per sample.
    """

    model: MultiExitClassifier
    source: Source

    def __init__(self, shared: Shared, source: Source, strategy: Strategy) -> None:
        self.strategy = strategy
        self.start: dict[str, Any] | None = None
        super().__init__(shared, source)

    def load(self) -> None:
        config, source, progress = self.config, self.source, self.progress
        if source.family is None:
            self.model = initialise_from_backbone(
                str(source.folder),
                num_labels=self.info.num_labels,
                label_names=self.info.label_names,
                **_exits_asked(config),
            )
        else:
            self._continue()
        model = self.model
        model.config.task = self.info.name
        self.tokenizer = load_tokenizer(
            source.folder, backbone=model.config.backbone_config(), lower_case=config.lower_case
        )
        check_vocabulary(self.tokenizer, model.word_embeddings.num_embeddings, source.folder)
        tell_unwrapped(model, source.name, progress)
        if config.vocabulary is not None:
            texts, pairs = texts_of(self.training)
            pruning = prune(
                self.tokenizer,
                [*texts, *(pairs or ())],
                config.vocabulary,
                keep=config.vocabulary_keep,
            )
            prune_embeddings(model, pruning.kept)
            self.tokenizer = pruning.tokenizer
            progress.message(
                f"Vocabulary: {pruning.before} -> {len(pruning.kept)} word pieces, among them the "
                f"{pruning.most_frequent} most frequent"
            )
        tell_unknown(self.tokenizer, self.training, progress)
        limit = model.max_tokens
        asked = ENCODER_TOKENS if config.max_length is None else config.max_length
        if asked < 3:
            raise UsageError(f"--max-length {asked} is too short", hint=f"Give 3 to {limit}")
        if asked > limit and config.max_length is not None:
            progress.message(f"Inputs are cut at {limit} tokens, the backbone's limit")
        self.max_length = min(asked, limit)

    def _continue(self) -> None:
        """The given model, ready to go on; the data in its classes' order; what to remember."""
        config, source, progress = self.config, self.source, self.progress
        assert config.pooling is not None
        given = load_classifier(source.folder)
        tell_unwrapped(given, source.name, progress)
        outputs, asked = self.info.num_labels, self.info.label_names
        why = why_new_exits(given, family=config.model, pooling=config.pooling, num_labels=outputs)
        if given.num_classes == outputs > 1:
            names = tuple(str(given.config.id2label[index]) for index in range(outputs))
            found = script_names(given.config, task_of_data(config))
            names = names if found is None else found[0]
            if config.label_names is None:
                why = why or why_other_classes(asked, names)
            if config.label_names is None or are_generic(asked):
                self.training = in_order_of(self.training, names)
                self.validation = in_order_of(self.validation, names)
            if why is None and match_classes(asked, names) is None:
                progress.message(
                    f"Its classes ({', '.join(names)}) are taken, in this order, as the data's "
                    f"({', '.join(asked)})"
                )
        self.model = continue_from(
            given,
            num_labels=outputs,
            label_names=self.info.label_names,
            new_exits=why is not None,
            **_exits_asked(config),
        )
        progress.message(
            f"Goes on from {source.name}: its weights and its {self.depth} exits"
            if why is None
            else f"Goes on from {source.name}: the weights of its layers; the exits are new, as "
            f"{why}"
        )
        self.start = {
            "name": source.name,
            "family": source.family,
            "exits": "kept" if why is None else "new",
            "backbone": given.config.training.get("backbone"),
            "command": given.config.training.get("command"),
        }

    @property
    def depth(self) -> int:
        return self.model.num_exits

    @property
    def backbone(self) -> str:
        """The hub's name of the encoder that comes as a package, where nobody names another."""
        return self.config.backbone or MINILM

    def describe(self) -> str:
        return f", {self.strategy.name}: {self.depth} layers"

    def tokenized(self, examples: Examples) -> Tokenized:
        texts, pairs = texts_of(examples)
        labels = labels_of(examples)
        if labels is None:
            raise UsageError(
                f"The {examples.split} data of '{examples.info.name}' have no labels",
                hint="Name the column with --label-column",
            )
        return Tokenized.of_texts(self.tokenizer, texts, pairs, labels, max_length=self.max_length)

    def objectives(self) -> list[ExitsObjective]:
        model = self.model
        frozen = tuple(model.word_embeddings.parameters()) if self.config.freeze_embeddings else ()
        shared = model.config.shared_pooler
        return [
            ExitsObjective(stage, model, shared_pooler=shared, freeze=frozen)
            for stage in self.strategy.stages
        ]

    def measure(self, run: Run, dtype: torch.dtype) -> tuple[Metrics, Rows]:
        return measure(self, dtype)

    def remember(self, metrics: Metrics) -> None:
        self.model.config.training = self.history(
            metrics,
            self.options(),
            backbone=self.backbone,
            strategy=self.strategy.name,
            max_length=self.max_length,
            **({} if self.start is None else {"started_from": self.start}),
        )

    def facts(self, metrics: Metrics, dtype: str) -> dict[str, Any]:
        return card_facts(self, metrics, dtype)


def _exits_asked(config: TrainConfig) -> dict[str, Any]:
    return {
        "family": config.model,
        "pooling": config.pooling,
        "head_dropout": config.head_dropout,
        "seed": config.seed,
    }


def _source(config: TrainConfig) -> tuple[Source, str | None]:
    """What to start from, and what to tell the user when eexit chose it."""
    if config.backbone is not None:
        return source_of(config.backbone), None
    if not installed_backbone():
        raise MissingArtifactError(
            "No backbone is given",
            hint=f"Add --backbone bert-base-uncased (a hub id) or a folder, or {INSTALL_BACKBONE}",
        )
    folder = str(import_module(training_source.BACKBONE_PACKAGE).get_model_path())
    name = training_source.BACKBONE_PACKAGE.replace("_", "-")
    return source_of(folder), f"Backbone: all-MiniLM-L6-v2 of the installed package {name}"
