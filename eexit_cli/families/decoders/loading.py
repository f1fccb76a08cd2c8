"""What every family of models that write text asks of a folder: greedy settings, lengths."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from eexit_cli.confidence.decoder import build_classifier
from eexit_cli.core.errors import UsageError
from eexit_cli.core.protocols import Progress
from eexit_cli.families.loading import (
    LoadingConfig,
    check_vocabulary,
    folder_of,
    resolve_device,
    resolve_dtype,
    tell_unwrapped,
)
from eexit_cli.models.decoding.decoder import ExitDecoder
from eexit_cli.models.decoding.generation import not_greedy
from eexit_cli.models.decoding.int8 import FLOAT, INT8, largest_weight
from eexit_cli.store.models import resolve

NEW_TOKENS = 128
"""Longest output where neither the model nor the user says."""

NO_LIMIT = 10**6
"""Tokenizers without a limit carry a number beyond this."""


def opened(
    config: LoadingConfig,
    *,
    check: Callable[[Path, str], None],
    load: Callable[..., Any],
    tokenizer_of: Callable[[Path, bool | None], Any],
    progress: Progress | None,
) -> dict[str, Any]:
    """What every loaded model holds but its lengths: ``ref``, ``folder``, ``model``,
    ``tokenizer``, ``device`` and ``dtype``.

    Args:
        config: with a ``greedy`` that allows a model that asks for another decoding, if it has one.
        check: called with the folder and the model's name; raises where it is no such model.
        load: the model of a folder.
        tokenizer_of: the tokenizer of a folder, lower-cased or not.

    Raises:
        UsageError, MissingArtifactError, EexitError: as ``families.opening.open_model``.
    """
    weights = getattr(config, "weights", FLOAT)
    device = resolve_device(config.device)
    dtype = resolve_dtype(config.dtype, device)
    check_weights(weights, device, dtype)
    ref = resolve(config.model)
    folder = folder_of(ref)
    check(folder, ref.name)
    model = load(folder, build_classifier=build_classifier, device=device, dtype=dtype)
    model.weights = weights
    left_out = only_greedy(model, ref.name, agreed=bool(getattr(config, "greedy", False)))
    tokenizer = tokenizer_of(folder, config.lower_case)
    check_vocabulary(tokenizer, model.config.vocab_size, folder)
    tell_unwrapped(model, ref.name, progress)
    if progress is not None and left_out:
        progress.message(f"{ref.name}: decoded greedily; its settings {left_out} are left out")
    return {
        "ref": ref,
        "folder": folder,
        "model": model,
        "tokenizer": tokenizer,
        "device": device,
        "dtype": dtype,
    }


def check_weights(weights: str, device: torch.device, dtype: torch.dtype) -> None:
    """Can the device compute with these weights?

    Raises:
        UsageError: an unknown name, or int8 elsewhere than on the CPU, beside another precision
            than float32, or on a processor that has no exact products.
    """
    if weights not in (FLOAT, INT8):
        raise UsageError(f"Unknown weights '{weights}'", hint=f"Available: {FLOAT}, {INT8}")
    if weights == FLOAT:
        return
    if device.type != "cpu":
        raise UsageError(
            f"--weights {INT8} is computed on the CPU alone, not on {device.type}",
            hint=f"Add --device cpu, or leave --weights {INT8} out",
        )
    if dtype != torch.float32:
        raise UsageError(
            f"--weights {INT8} computes in float32 beside its products, not in "
            f"{str(dtype).removeprefix('torch.')}",
            hint=f"Leave --dtype or --weights {INT8} out",
        )
    largest_weight()


def settings_left_out(model: ExitDecoder) -> str:
    """What the model's generation settings ask for beyond greedy decoding; empty for nothing."""
    return ", ".join(
        f"{name} {value}" for name, value in not_greedy(model.generation_config).items()
    )


def only_greedy(model: ExitDecoder, name: str, *, agreed: bool) -> str:
    """:func:`settings_left_out`, where the user agrees."""
    left_out = settings_left_out(model)
    if left_out and not agreed:
        raise UsageError(
            f"Model '{name}' asks for {left_out} (generation_config.json); exits of tokens are "
            "defined for greedy decoding alone",
            hint="Add --greedy to leave that out, or remove it from the file",
        )
    return left_out


def new_tokens(asked: int | None, model: ExitDecoder, default: int = NEW_TOKENS) -> int:
    if asked is not None:
        if asked < 1:
            raise UsageError(f"--max-new-tokens {asked} is too few", hint="Give at least 1")
        return asked
    trained = model.config.max_target_length or model.generation_config.max_new_tokens
    return default if trained is None else int(trained)
