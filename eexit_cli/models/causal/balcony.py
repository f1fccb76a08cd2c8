"""Balcony's checkpoints (arXiv:2503.05005, ``model_type: nested_llama``) as ours.

A frozen Llama, and after some layers a decoder layer, a norm and a head of their own:
``model.exit_modules.{j}.0.*``, ``.1.weight``, ``.2.weight``, of the j-th of ``exit_layer_indices``,
which count the layers before the exit, as exit layers do here. Without ``exit_decoder_layer`` the
norm is ``.0``; with ``tie_exit_lm_head`` the model's head answers. ``output_exit_layers`` and
``output_full_model`` say what its own forward returns, and nothing of what there is.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from eexit_cli.core.errors import EexitError
from eexit_cli.models.causal.config import ExitParts

MODEL_TYPE = "nested_llama"

_EXIT = re.compile(r"(?P<around>(?:\w+\.)*?)(?:model\.)?exit_modules\.(\d+)\.(\d+)\.(?P<rest>.+)")
_OTHER = ("exit_mlp", "exit_attention")
"""Its ablations: an exit of a feed-forward or of attention alone."""

_KEYS = (
    "exit_layer_indices", "exit_decoder_layer", "tie_exit_lm_head", "output_exit_layers",
    "output_full_model", "auto_map", *_OTHER,
)  # fmt: skip


def read_balcony(
    raw: Mapping[str, Any], tensors: Mapping[str, Tensor], folder: Path
) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Configuration and tensors under our names.

    Args:
        raw: its ``config.json``.
        tensors: all of its file's.

    Raises:
        EexitError: ``exit_layer_indices`` names no layers before the last one, or the exits are
            of a kind that is not supported.
    """
    if kind := next((key for key in _OTHER if raw.get(key)), None):
        raise EexitError(
            f"{folder}: Balcony exits of kind '{kind}' are not supported",
            hint="Those with a decoder layer (exit_decoder_layer), or with a norm alone, are",
        )
    layers = raw.get("exit_layer_indices")
    depth = raw.get("num_hidden_layers", 32)
    if (
        not isinstance(layers, list)
        or not layers
        or not all(type(layer) is int and 1 <= layer < depth for layer in layers)
        or len(set(layers)) < len(layers)
    ):
        raise EexitError(
            f"{folder}: exit_layer_indices is {layers!r}, not different layers from 1 to "
            f"{depth - 1}",
            hint="Correct it in config.json: one layer for each of model.exit_modules",
        )
    tied = raw.get("tie_exit_lm_head")
    tied = raw.get("tie_word_embeddings", False) if tied is None else tied
    own = ExitParts(layer=bool(raw.get("exit_decoder_layer", False)), head=not tied)
    names = (*(("layer",) if own.layer else ()), "norm", *(("head",) if own.head else ()))
    settings = {key: value for key, value in raw.items() if key not in _KEYS}
    settings |= {
        "model_type": "llama",
        "exit_modules": {str(layer): own.written() for layer in layers},
        "training": {"converted_from": "balcony"},
    }
    return settings, {_our_name(name, layers, names): value for name, value in tensors.items()}


def _our_name(name: str, layers: list[int], parts: tuple[str, ...]) -> str:
    """What has no place among the exits keeps its name, and is told as unexpected."""
    found = _EXIT.fullmatch(name)
    if found is None:
        return name
    number, place = int(found[2]), int(found[3])
    if number >= len(layers) or place >= len(parts):
        return name
    return f"{found['around']}exits.{layers[number]}.{parts[place]}.{found['rest']}"
