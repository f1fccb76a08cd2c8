"""Configuration of a decoder-only model with exits: transformers' own, and what early exit adds.

The file stays one that transformers loads: exits need no tensors of their own, and the keys that
are added say nothing to it.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import Any

from transformers import CONFIG_MAPPING, PretrainedConfig

ADDED: Mapping[str, Any] = {
    "classifiers": [],
    "exit_defaults": {},
    "task": None,
    "source_prefix": "",
    "prompt_template": None,
    "chat": False,
    "max_source_length": None,
    "max_target_length": None,
    "training": {},
}
"""Keys of ``config.json`` beside transformers', with what they are where the file lacks them.

``classifiers``, ``exit_defaults``, ``task``, ``source_prefix``, ``max_source_length``,
``max_target_length`` and ``training`` are as of :class:`~eexit_cli.models.t5.config.
MultiExitT5Config`. ``prompt_template`` is what stands around a source, with ``{source}`` in its
place; ``chat`` puts it into the tokenizer's chat template.
"""


class ExitSettings:
    """What decoding asks of any configuration; mixed into transformers' own classes."""

    @property
    def depth(self) -> int:
        """L: exit layers count from 1 to this."""
        return int(self.num_hidden_layers)  # type: ignore[attr-defined]

    @property
    def end_tokens(self) -> frozenset[int]:
        """Ids that end an output."""
        ids = self.eos_token_id  # type: ignore[attr-defined]
        if ids is None:
            return frozenset()
        return frozenset(ids if isinstance(ids, (list, tuple)) else (ids,))


@cache
def config_class(kind: str) -> type[PretrainedConfig]:
    """transformers' configuration of a ``model_type`` with :class:`ExitSettings`."""
    base = CONFIG_MAPPING[kind]
    made: type[PretrainedConfig] = type(f"MultiExit{base.__name__}", (ExitSettings, base), {})
    return made


def config_from(raw: Mapping[str, Any]) -> Any:
    """From the content of ``config.json``, ours or anybody's."""
    config = config_class(str(raw["model_type"])).from_dict(dict(raw))
    for name, default in ADDED.items():
        if getattr(config, name, None) is None:
            value = type(default)() if isinstance(default, (list, dict)) else default
            setattr(config, name, value)
    return config
