"""CALM's and FREE's T5 as the use cases know a model, and how one is loaded."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

from eexit_cli.config.field import SEQ2SEQ
from eexit_cli.core.errors import UsageError
from eexit_cli.core.protocols import Progress
from eexit_cli.families.decoders.loading import NO_LIMIT, new_tokens, opened
from eexit_cli.families.decoders.model import TextModel
from eexit_cli.families.loading import LoadingConfig, load_tokenizer
from eexit_cli.models.t5.layouts import load_seq2seq
from eexit_cli.models.t5.model import MultiExitT5
from eexit_cli.store.models import is_seq2seq

SOURCE_TOKENS = 512
"""Longest input of a T5 whose folder says nothing: what T5 was trained with."""


class Seq2SeqModel(TextModel):
    """An encoder-decoder."""

    family: ClassVar[str] = SEQ2SEQ


def load_decoder(config: LoadingConfig, *, progress: Progress | None = None) -> Seq2SeqModel:
    """Load what ``config.model`` names: ours, a plain T5, DL2-CALM's or FREE's checkpoint.

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
    found = opened(
        config,
        check=_check,
        load=load_seq2seq,
        tokenizer_of=load_decoder_tokenizer,
        progress=progress,
    )
    model, tokenizer = found["model"], found["tokenizer"]
    loaded = Seq2SeqModel(
        **found,
        max_length=_source_tokens(config.max_length, model, tokenizer),
        max_new_tokens=new_tokens(getattr(config, "max_new_tokens", None), model),
    )
    if progress is not None and (layout := model.config.training.get("converted_from")):
        progress.message(_conversion_note(loaded, layout))
    return loaded


def _check(folder: Path, name: str) -> None:
    if not is_seq2seq(folder):
        raise UsageError(
            f"Model '{name}' has no decoder; this needs an encoder-decoder (T5)",
            hint="Use a model of the family calm: eexit models list",
        )


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
    return limit if limit < NO_LIMIT else SOURCE_TOKENS


def _conversion_note(loaded: Seq2SeqModel, layout: str) -> str:
    name = loaded.ref.name
    if layout == "t5":
        return (
            f"{name}: a plain T5, whose layers were not trained to answer early; "
            f"train them: eexit train --model calm --backbone {name}"
        )
    titles = {"calm": "CALM's PyTorch layout", "free": "FREE's layout"}
    settings = ", ".join(f"{key} {value}" for key, value in loaded.exit_defaults.items())
    return f"{name}: read from {titles[layout]}; default exit {settings or 'none'}"
