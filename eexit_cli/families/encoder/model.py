"""From ``--model`` to a classifier with exits that can run, its tokenizer and its device."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from eexit_cli.core.errors import UsageError
from eexit_cli.core.protocols import Progress
from eexit_cli.families.loading import (
    LoadingConfig,
    check_vocabulary,
    folder_of,
    load_tokenizer,
    resolve_device,
    resolve_dtype,
    tell_unwrapped,
)
from eexit_cli.models.batching import TextBatcher
from eexit_cli.models.encoder.conversion import load_classifier
from eexit_cli.models.encoder.model import MultiExitClassifier
from eexit_cli.store.models import ModelRef, is_decoder, resolve

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


@dataclass(frozen=True)
class LoadedModel:
    """A model ready to run.

    Attributes:
        ref: what ``--model`` meant.
        folder: where its files lie.
        model: in eval mode, on the device.
        tokenizer: a fast tokenizer.
        device, dtype: of the weights and activations.
        max_length: tokens per input, special tokens included.
    """

    ref: ModelRef
    folder: Path
    model: MultiExitClassifier
    tokenizer: PreTrainedTokenizerBase
    device: torch.device
    dtype: torch.dtype
    max_length: int

    @property
    def num_layers(self) -> int:
        """L: exit layers count from 1 to this."""
        return self.model.num_exits

    @property
    def num_classes(self) -> int:
        """K; 1 for regression."""
        return self.model.num_classes

    @property
    def label_names(self) -> tuple[str, ...]:
        """One per class, as in the model's configuration; empty for regression."""
        if self.num_classes == 1:
            return ()
        names = self.model.config.id2label
        return tuple(str(names[index]) for index in range(self.num_classes))

    @property
    def exit_defaults(self) -> dict[str, Any]:
        """The exit used when the user gives none."""
        return dict(self.model.config.exit_defaults)

    def batcher(self) -> TextBatcher:
        """A new tokenising batcher, whose count of cut inputs starts at 0."""
        return TextBatcher(self.tokenizer, self.max_length)


def load_model(config: LoadingConfig, *, progress: Progress | None = None) -> LoadedModel:
    """Load what ``config.model`` names: a bundled model, a local folder or a hub repository.

    Args:
        config: ``config.common.CommonConfig`` or anything with its attributes.
        progress: told how an upstream checkpoint was converted.

    Raises:
        UsageError: an unknown name, device or dtype, or a ``max_length`` beyond the model's limit.
        MissingArtifactError: a folder or repository that is not there, or has no tokenizer.
        EexitError: the folder is no model or is damaged.
    """
    device = resolve_device(config.device)
    dtype = resolve_dtype(config.dtype, device)
    ref = resolve(config.model)
    folder = folder_of(ref)
    if is_decoder(folder):
        raise UsageError(
            f"Model '{ref.name}' writes text (an encoder-decoder); this needs a classifier",
            hint="Use an encoder with exits such as deebert, or evaluate this one: "
            f"eexit evaluate --model {ref.name}",
        )
    model = load_classifier(folder, device=device, dtype=dtype)
    loaded = LoadedModel(
        ref=ref,
        folder=folder,
        model=model,
        tokenizer=load_tokenizer(
            folder, backbone=model.config.backbone_config(), lower_case=config.lower_case
        ),
        device=device,
        dtype=dtype,
        max_length=_max_length(config.max_length, model.max_tokens),
    )
    check_vocabulary(loaded.tokenizer, model.word_embeddings.num_embeddings, folder)
    tell_unwrapped(model, ref.name, progress)
    if progress is not None and (layout := model.config.training.get("converted_from")):
        progress.message(_conversion_note(ref.name, layout, loaded.exit_defaults))
    return loaded


def _max_length(asked: int | None, limit: int) -> int:
    if asked is None:
        return limit
    if not 3 <= asked <= limit:
        raise UsageError(
            f"--max-length {asked} is outside the model's range",
            hint=f"Give a number from 3 to {limit}, or leave it out",
        )
    return asked


def _conversion_note(name: str, layout: str, defaults: dict[str, Any]) -> str:
    titles = {"deebert": "DeeBERT", "pabee": "PABEE"}
    settings = ", ".join(f"{key} {value}" for key, value in defaults.items())
    exit_note = (
        f"default exit is the published one: {settings}"
        if settings
        else "no default exit for a regression model: give --static-layer, or the full model runs"
    )
    return f"{name}: converted from {titles.get(layout, layout)}'s layout; {exit_note}"
