"""From ``--model`` and its companions to something that can run: classifier, tokenizer, device."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import torch

from eexit_cli.core.catalog import nearest
from eexit_cli.core.errors import EexitError, MissingArtifactError, UsageError
from eexit_cli.core.protocols import Progress
from eexit_cli.core.utf8_path import utf8_path
from eexit_cli.models.batching import TextBatcher
from eexit_cli.models.checkpoints import find_folder
from eexit_cli.models.conversion import as_dtype, load_classifier
from eexit_cli.models.encoder import MultiExitClassifier
from eexit_cli.store.models import ModelRef, is_decoder, resolve

if TYPE_CHECKING:
    from transformers import PretrainedConfig, PreTrainedTokenizerBase

DEVICES = ("auto", "cpu", "cuda", "mps")


class LoadingConfig(Protocol):
    """The part of ``config.common.CommonConfig`` that is read here."""

    @property
    def model(self) -> str: ...
    @property
    def device(self) -> str: ...
    @property
    def dtype(self) -> str: ...
    @property
    def max_length(self) -> int | None: ...
    @property
    def lower_case(self) -> bool | None: ...


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


def folder_of(ref: ModelRef) -> Path:
    """Where a model's files lie; a hub repository is fetched when it is not in the cache.

    Raises:
        MissingArtifactError: the repository cannot be reached.
    """
    return ref.path if ref.path is not None else find_folder(ref.repo_id or ref.name)


def resolve_device(name: str) -> torch.device:
    """``auto`` is CUDA where there is one, then MPS, then the CPU.

    Raises:
        UsageError: an unknown name, or a device that this machine does not have.
    """
    if name == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    kind, _, index = name.partition(":")
    if kind not in DEVICES[1:] or not re.fullmatch(r"\w+(:\d+)?", name):
        close = nearest(name, DEVICES)
        meant = f"Did you mean {' or '.join(close)}? " if close else ""
        raise UsageError(
            f"Unknown device '{name}'", hint=f"{meant}Available: auto, cpu, cuda, cuda:1, mps"
        )
    counts = {
        "cpu": 1,
        "cuda": torch.cuda.device_count(),
        "mps": int(torch.backends.mps.is_available()),
    }
    if counts[kind] <= int(index or 0):
        there = f"{counts[kind]} such device(s)" if counts[kind] else "no such device"
        raise UsageError(
            f"Device '{name}' is not available: this machine has {there}",
            hint="Use --device auto or --device cpu",
        )
    return torch.device(name)


def resolve_dtype(name: str, device: torch.device) -> torch.dtype:
    """A dtype that the device can compute in.

    Raises:
        UsageError: an unknown name, or float64 on MPS.
    """
    dtype = as_dtype(name)
    if dtype == torch.float64 and device.type == "mps":
        raise UsageError("MPS has no float64", hint="Use --dtype float32, or --device cpu")
    return dtype


def load_tokenizer(
    folder: Path, *, backbone: PretrainedConfig, lower_case: bool | None = None
) -> PreTrainedTokenizerBase:
    """The folder's fast tokenizer.

    Args:
        backbone: says which kind of tokenizer, where the folder's files do not.
        lower_case: overrides the tokenizer's own setting, for checkpoints that lack it.

    Raises:
        MissingArtifactError: the folder has no tokenizer files.
        EexitError: they cannot be read.
        UsageError: the tokenizer's lower-casing cannot be switched off.
    """
    if not any((folder / name).is_file() for name in _VOCABULARY_FILES):
        raise MissingArtifactError(
            f"{folder} has no tokenizer",
            hint="Copy the tokenizer's files of its backbone into the folder (tokenizer.json, "
            "tokenizer_config.json)",
        )
    from transformers import AutoTokenizer

    try:
        with utf8_path(folder) as named:
            tokenizer = AutoTokenizer.from_pretrained(
                named, config=backbone, use_fast=True, local_files_only=True
            )
    except Exception as error:  # what transformers raises for damaged files has no common class
        reason = next(iter(str(error).strip().splitlines()), type(error).__name__)
        needs = "" if (folder / "tokenizer.json").is_file() else _SENTENCEPIECE_HINT
        raise EexitError(
            f"The tokenizer in {folder} cannot be read: {reason}",
            hint=f"Copy its backbone's tokenizer.json into the folder again{needs}",
        ) from error
    if lower_case is not None:
        _set_lower_case(tokenizer, lower_case)
    return tokenizer


def check_vocabulary(tokenizer: Any, embeddings: int, folder: Path) -> None:
    """A tokenizer may have no more tokens than the model has embeddings.

    Raises:
        EexitError: it has.
    """
    if len(tokenizer) > embeddings:
        raise EexitError(
            f"The tokenizer in {folder} has {len(tokenizer):,} tokens, "
            f"the model only {embeddings:,}",
            hint="Copy the tokenizer's files that belong to the model into its folder",
        )


def tell_unwrapped(model: Any, name: str, progress: Progress | None) -> None:
    """Say that the file's names were a wrapper's, where they were."""
    if progress is not None and model.wrapped is not None:
        progress.message(
            f"{name}: saved from a wrapper (its tensors are named like '{model.wrapped}'); read "
            "as the model within"
        )


_SENTENCEPIECE_HINT = "; for a spiece.model without it: pip install sentencepiece protobuf"
_VOCABULARY_FILES = (
    "tokenizer.json",
    "vocab.txt",
    "vocab.json",
    "spiece.model",
    "sentencepiece.bpe.model",
)


def folds_case(tokenizer: Any) -> bool:
    """Does a fast tokenizer read "A" as "a"?"""
    normalizer = tokenizer.backend_tokenizer.normalizer
    return normalizer is not None and "A" not in normalizer.normalize_str("A")


def _set_lower_case(tokenizer: Any, lower_case: bool) -> None:
    """Make a fast tokenizer fold case, or not, by its normaliser."""
    from tokenizers import normalizers

    if folds_case(tokenizer) == lower_case:
        return
    backend = tokenizer.backend_tokenizer
    current = backend.normalizer
    if isinstance(current, normalizers.BertNormalizer):
        current.lowercase = lower_case
        backend.normalizer = current
    elif lower_case:
        steps = [current] if current is not None else []
        backend.normalizer = normalizers.Sequence([normalizers.Lowercase(), *steps])
    else:
        raise UsageError(
            f"The lower-casing of {type(tokenizer).__name__} cannot be switched off",
            hint="Leave --lower-case out: its vocabulary was made from lower-cased text",
        )


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
