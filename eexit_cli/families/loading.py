"""What every family of models needs to be opened: files, device, number format, tokenizer."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import torch

from eexit_cli.core.catalog import nearest
from eexit_cli.core.errors import EexitError, MissingArtifactError, UsageError
from eexit_cli.core.protocols import Progress
from eexit_cli.core.utf8_path import utf8_path
from eexit_cli.models.checkpoints import find_folder
from eexit_cli.models.encoder.conversion import as_dtype
from eexit_cli.store.models import ModelRef

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
    from transformers import AutoTokenizer, PreTrainedTokenizerFast

    try:
        with utf8_path(folder) as named:
            if _of_newer_transformers(folder):
                tokenizer = PreTrainedTokenizerFast.from_pretrained(named, local_files_only=True)
            else:
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


def _of_newer_transformers(folder: Path) -> bool:
    """Did transformers 5 write this tokenizer, under a name that 4 does not know?

    What 5 calls by that name is whatever ``tokenizer.json`` says, which is 4's
    ``PreTrainedTokenizerFast``.
    """
    import transformers

    if hasattr(transformers, _BY_JSON) or not (folder / "tokenizer.json").is_file():
        return False
    try:
        stated = json.loads((folder / "tokenizer_config.json").read_text("utf-8"))
    except (OSError, ValueError):
        return False
    return isinstance(stated, dict) and stated.get("tokenizer_class") == _BY_JSON


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


_BY_JSON = "TokenizersBackend"
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

    # What is saved is read again by this.
    tokenizer.init_kwargs["do_lower_case"] = lower_case
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
