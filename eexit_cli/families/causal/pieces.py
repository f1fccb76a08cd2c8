"""Raw text and a decoder-only model: how long its pieces are, and what is not done with them."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from eexit_cli.config.field import values_of
from eexit_cli.core.errors import UsageError
from eexit_cli.data.raw_text import is_raw
from eexit_cli.families.data import KEY

PIECE = 512
"""Tokens, where neither the user nor the model says and the model has as many positions."""


def reads_raw(config: Any, training: Mapping[str, Any]) -> bool:
    """Are the data raw text: the user's, or the model's own where he names none?

    Args:
        config: with the attributes of ``config.common.DataConfig``; without them there are no data.
        training: how the model was made, from its configuration.
    """
    if not hasattr(config, "data_file"):
        return False
    if config.data_file is not None:
        return is_raw(config.data_file)
    named = getattr(config, "task", None) or getattr(config, "data_dir", None)
    return not named and learned_raw(training)


def learned_raw(training: Mapping[str, Any]) -> bool:
    """Was a model trained on raw text?"""
    record = training.get(KEY)
    return isinstance(record, Mapping) and is_raw(record["data_file"])


def piece_tokens(asked: int | None, config: Any, positions: int) -> int:
    """Tokens of a piece: the user's, else those that the model was trained on.

    Args:
        asked: ``--max-length``.
        config: the model's.
        positions: that it has.

    Raises:
        UsageError: more than there are positions, or too few to predict anything.
    """
    if asked is not None and not 2 <= asked <= positions:
        raise UsageError(
            f"--max-length {asked} makes no pieces of raw text: the model has {positions} "
            "positions, and a piece begins with a token that is not predicted",
            hint=f"Give 2 to {positions}",
        )
    trained = config.max_source_length if learned_raw(config.training) else None
    return min(asked or trained or PIECE, positions)


def refuse_text(config: Any, training: Mapping[str, Any], command: str) -> None:
    """Raise a usage error where a command is to work on raw text; see :func:`reads_raw`."""
    if reads_raw(config, training):
        file = getattr(config, "data_file", None) or training[KEY]["data_file"]
        raise UsageError(
            f"{Path(file).name} is raw text, with no outputs of its own: {command} needs inputs to "
            "answer",
            hint="Name a table of sources and targets with --data-file, or a --task",
        )


def refuse_exits(options: Any, described: Mapping[str, Any]) -> None:
    """Raise a usage error for ways of decoding that give a text no probability of their own.

    Args:
        options: of the exit.
        described: the exit that they came to.
    """
    if getattr(options, "self_speculative", None) or "exit_layer" in described:
        raise UsageError(
            "--self-speculative says nothing about raw text: its outputs are the full model's, and "
            "so is its perplexity",
            hint="Leave it out; --static-layer L judges the layer that drafts",
        )
    top_k = [value for value in values_of(options, "top_k_propagation") if value]
    if top_k or described.get("top_k_propagation"):
        raise UsageError(
            "--top-k-propagation leaves most tokens without a probability, so that raw text has no "
            "perplexity",
            hint="Add --top-k-propagation 0",
        )


def without_source_prefix(config: Any, own: str | None) -> Any:
    """The configuration without the prefix that a model puts before its sources."""
    if config.source_prefix is not None and config.source_prefix == (own or ""):
        return dataclasses.replace(config, source_prefix=None)
    return config
