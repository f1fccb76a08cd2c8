"""Configuration of a decoder-only model with exits: transformers' own, and what early exit adds.

The file stays one that transformers loads: the keys that are added say nothing to it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import cache
from typing import Any

from transformers import CONFIG_MAPPING, PretrainedConfig

ADDED: Mapping[str, Any] = {
    "classifiers": [],
    "exit_defaults": {},
    "exit_modules": {},
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
place; ``chat`` puts it into the tokenizer's chat template. ``exit_modules`` says which layers have
exits of their own, and what these consist of: layer -> the attributes of :class:`ExitParts`. Where
it is empty every layer answers through the model's norm and head; else the layers that it does not
name cannot be left from.
"""


@dataclass(frozen=True, kw_only=True)
class ExitParts:
    """What an exit of its own consists of, in the order in which it computes.

    Attributes:
        layer: a decoder layer, which attends to what it made of earlier tokens itself (Balcony;
            EE-LLM's exit block).
        norm: a norm; False is none at all, as EE-LLM's published models have it.
        head: an LM head; False is the model's.
    """

    norm: bool = True
    head: bool = False
    layer: bool = False

    def written(self) -> dict[str, bool]:
        """As ``config.json`` has it."""
        return asdict(self)


def exit_parts(config: Any) -> dict[int, ExitParts]:
    """Of ``config.exit_modules``, by exit layer (1..L-1), ascending.

    Raises:
        ValueError: a layer that the model does not have or that is the last, or an unknown part.
    """
    given = config.exit_modules
    if not isinstance(given, Mapping):
        raise ValueError(f"exit_modules is {given!r}, not a table of exits by layer")
    found = {}
    for name, parts in given.items():
        if not str(name).isdecimal() or not 1 <= int(name) < config.depth:
            raise ValueError(f"exit_modules names layer {name}, outside 1..{config.depth - 1}")
        if not isinstance(parts, Mapping) or not all(type(has) is bool for has in parts.values()):
            raise ValueError(f"exit_modules['{name}'] is {parts!r}, not a table of true and false")
        if unknown := sorted(set(parts) - set(ExitParts.__dataclass_fields__)):
            raise ValueError(f"exit_modules['{name}'] has unknown parts {unknown}")
        found[int(name)] = ExitParts(**parts)
    return dict(sorted(found.items()))


class ExitSettings:
    """What decoding asks of any configuration; mixed into transformers' own classes."""

    @property
    def depth(self) -> int:
        """L: exit layers count from 1 to this."""
        return int(self.num_hidden_layers)  # type: ignore[attr-defined]

    @property
    def exit_layers(self) -> tuple[int, ...]:
        """Layers that a token may end at, ascending, L among them."""
        own = exit_parts(self)
        return (*own, self.depth) if own else tuple(range(1, self.depth + 1))

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
    """From the content of ``config.json``, ours or anybody's.

    Raises:
        ValueError: see :func:`exit_parts`.
    """
    config = config_class(str(raw["model_type"])).from_dict(dict(raw))
    for name, default in ADDED.items():
        if getattr(config, name, None) is None:
            value = type(default)() if isinstance(default, (list, dict)) else default
            setattr(config, name, value)
    exit_parts(config)
    return config
