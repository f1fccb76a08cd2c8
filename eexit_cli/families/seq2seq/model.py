"""From ``--model`` to a decoder with exits that can run: CALM's T5, its tokenizer and its task."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from eexit_cli.confidence.decoder import build_classifier
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
from eexit_cli.models.decoding.generation import not_greedy
from eexit_cli.models.t5.layouts import load_seq2seq
from eexit_cli.models.t5.model import MultiExitT5
from eexit_cli.store.models import ModelRef, is_decoder, resolve

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

SOURCE_TOKENS = 512
"""Longest input of a T5 whose folder says nothing: what T5 was trained with."""

NEW_TOKENS = 128
"""Longest output where neither the model nor the user says."""

_NO_LIMIT = 10**6
"""Tokenizers without a limit carry a number beyond this."""


@dataclass(frozen=True)
class LoadedDecoder:
    """An encoder-decoder ready to run.

    Attributes:
        ref: what ``--model`` meant.
        folder: where its files lie.
        model: in eval mode, on the device.
        tokenizer: a fast tokenizer.
        device, dtype: of the weights and activations.
        max_length: tokens per source, the end token included; longer ones are cut.
        max_new_tokens: longest output, the end token included.
    """

    ref: ModelRef
    folder: Path
    model: MultiExitT5
    tokenizer: PreTrainedTokenizerBase
    device: torch.device
    dtype: torch.dtype
    max_length: int
    max_new_tokens: int

    @property
    def num_layers(self) -> int:
        """L, of the decoder: exit layers count from 1 to this."""
        return self.model.depth

    @property
    def exit_defaults(self) -> dict[str, Any]:
        """The exit used when the user gives none; empty is the full model."""
        return dict(self.model.config.exit_defaults)

    @property
    def task(self) -> str | None:
        """The task that it was trained on, where known."""
        return self.model.config.task

    @property
    def source_prefix(self) -> str | None:
        """Text before each source that it was trained with; None where the task decides."""
        prefix: str = self.model.config.source_prefix
        return prefix if prefix or self.task is not None else None

    def batcher(self) -> TextBatcher:
        """A new tokenising batcher, whose count of cut sources starts at 0."""
        return TextBatcher(self.tokenizer, self.max_length)


def is_decoder_model(name: str) -> bool:
    """Does ``--model NAME`` mean an encoder-decoder? Read from its ``config.json`` alone.

    A hub repository that is not in the cache is fetched, as loading it would.

    Raises:
        UsageError, MissingArtifactError, EexitError: as :func:`load_decoder`, for names and
            folders that mean no model.
    """
    return is_decoder(folder_of(resolve(name)))


def load_decoder(config: LoadingConfig, *, progress: Progress | None = None) -> LoadedDecoder:
    """Load what ``config.model`` names: ours, a plain T5, the seed's or FREE's checkpoint.

    Args:
        config: ``config.common.CommonConfig`` or anything with its attributes; its
            ``max_new_tokens``, if it has one, overrides the model's, and its ``greedy`` allows a
            model that asks for another decoding.
        progress: told how a checkpoint of another layout was read.

    Raises:
        UsageError: an unknown name, device or dtype, a length outside its range, a model
            without a decoder, or one whose generation settings are not greedy decoding's.
        MissingArtifactError: a folder or repository that is not there, or has no tokenizer.
        EexitError: the folder is no model or is damaged.
    """
    device = resolve_device(config.device)
    dtype = resolve_dtype(config.dtype, device)
    ref = resolve(config.model)
    folder = folder_of(ref)
    if not is_decoder(folder):
        raise UsageError(
            f"Model '{ref.name}' has no decoder; this needs an encoder-decoder (T5)",
            hint="Use a model of the family calm: eexit models list",
        )
    model = load_seq2seq(folder, build_classifier=build_classifier, device=device, dtype=dtype)
    left_out = _only_greedy(model, ref.name, agreed=bool(getattr(config, "greedy", False)))
    tokenizer = load_decoder_tokenizer(folder, config.lower_case)
    check_vocabulary(tokenizer, model.config.vocab_size, folder)
    tell_unwrapped(model, ref.name, progress)
    loaded = LoadedDecoder(
        ref=ref,
        folder=folder,
        model=model,
        tokenizer=tokenizer,
        device=device,
        dtype=dtype,
        max_length=_source_tokens(config.max_length, model, tokenizer),
        max_new_tokens=_new_tokens(getattr(config, "max_new_tokens", None), model),
    )
    if progress is not None and left_out:
        progress.message(f"{ref.name}: decoded greedily; its settings {left_out} are left out")
    if progress is not None and (layout := model.config.training.get("converted_from")):
        progress.message(_conversion_note(loaded, layout))
    return loaded


def settings_left_out(model: MultiExitT5) -> str:
    """What the model's generation settings ask for beyond greedy decoding; empty for nothing."""
    return ", ".join(
        f"{name} {value}" for name, value in not_greedy(model.generation_config).items()
    )


def _only_greedy(model: MultiExitT5, name: str, *, agreed: bool) -> str:
    """:func:`settings_left_out`, where the user agrees."""
    left_out = settings_left_out(model)
    if left_out and not agreed:
        raise UsageError(
            f"Model '{name}' asks for {left_out} (generation_config.json); exits of tokens are "
            "defined for greedy decoding alone",
            hint="Add --greedy to leave that out, or remove it from the file",
        )
    return left_out


def load_decoder_tokenizer(folder: Path, lower_case: bool | None = None) -> Any:
    """The fast tokenizer of a T5's folder; see ``families.loading.load_tokenizer``."""
    from transformers import T5Config

    return load_tokenizer(folder, backbone=T5Config(), lower_case=lower_case)


def _source_tokens(asked: int | None, model: MultiExitT5, tokenizer: Any) -> int:
    """T5's positions are relative: longer inputs than it was trained with are possible."""
    if asked is not None:
        if asked < 2:
            raise UsageError(
                f"--max-length {asked} leaves no room for a source",
                hint="Give at least 2: a token and the end",
            )
        return asked
    trained = model.config.max_source_length
    if trained is not None:
        return int(trained)
    limit = int(tokenizer.model_max_length)
    return limit if limit < _NO_LIMIT else SOURCE_TOKENS


def _new_tokens(asked: int | None, model: MultiExitT5) -> int:
    if asked is not None:
        if asked < 1:
            raise UsageError(f"--max-new-tokens {asked} is too few", hint="Give at least 1")
        return asked
    trained = model.config.max_target_length or model.generation_config.max_new_tokens
    return NEW_TOKENS if trained is None else int(trained)


def _conversion_note(loaded: LoadedDecoder, layout: str) -> str:
    name = loaded.ref.name
    if layout == "t5":
        return (
            f"{name}: a plain T5, whose layers were not trained to answer early; "
            f"train them: eexit train --model calm --backbone {name}"
        )
    titles = {"calm": "CALM's PyTorch layout", "free": "FREE's layout"}
    settings = ", ".join(f"{key} {value}" for key, value in loaded.exit_defaults.items())
    return f"{name}: read from {titles[layout]}; default exit {settings or 'none'}"
