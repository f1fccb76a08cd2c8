"""What a promise holds for beside a model's weights: conditions, and how they differ.

Conditions are names to values: ``max_length``, ``max_new_tokens``, ``dtype``, ``weights``,
``runtime``, ``lower_case`` and ``source_prefix`` as options set them, and digests of files that no
option sets.
"""

from __future__ import annotations

import hashlib
import json
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from eexit_cli.core.option import flag, typed

_TOKENIZER_FILES = (
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.txt",
    "vocab.json",
    "merges.txt",
    "spiece.model",
    "sentencepiece.bpe.model",
)
_GENERATION_FILE = "generation_config.json"
_WITHOUT_EFFECT = ("transformers_version", "_from_model_config")
"""What ``generation_config.json`` says of its own making."""

TOKENIZER, GENERATION, WEIGHT_WIDTH = "tokenizer", "generation", "weight_width"
_IN_WORDS: Mapping[str, str] = {
    TOKENIZER: "tokenizer",
    GENERATION: _GENERATION_FILE,
    WEIGHT_WIDTH: "kind of processor, which rounds int8 weights otherwise",
}
"""Conditions that no option sets."""

_BEFORE: Mapping[str, Any] = {"weights": "float", "runtime": "torch"}
"""What conditions were that an older eexit did not note because it knew nothing else."""


def tokenizer_digest(folder: Path) -> str:
    """16 hexadecimal digits that stand for the tokenizer's files in a model's folder."""
    digest = hashlib.sha256()
    for name in _TOKENIZER_FILES:
        if (folder / name).is_file():
            digest.update(name.encode())
            digest.update((folder / name).read_bytes())
    return digest.hexdigest()[:16]


def generation_digest(folder: Path) -> str | None:
    """The same of the generation settings beside the weights; None where there are none."""
    path = folder / _GENERATION_FILE
    if not path.is_file():
        return None
    content = path.read_bytes()
    try:
        settings = json.loads(content)
    except ValueError:
        return hashlib.sha256(content).hexdigest()[:16]
    if isinstance(settings, dict):
        settings = {name: settings[name] for name in settings if name not in _WITHOUT_EFFECT}
    text = json.dumps(settings, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def known_of(then: Mapping[str, Any]) -> dict[str, Any]:
    """Conditions as they were noted, with what an older eexit could only have had."""
    return {**_BEFORE, **then}


def differences(then: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """Names of the conditions that are not as they were; one that was not noted does not count."""
    known = known_of(then)
    return [name for name, value in now.items() if known.get(name, value) != value]


def not_noted(then: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """Names, in words, of the conditions that an older eexit did not note."""
    return [_IN_WORDS.get(name, flag(name)) for name in now if name not in known_of(then)]


def difference(name: str, then: Any, now: Any) -> str:
    """ "--dtype float32, not bfloat16", "another tokenizer"."""
    if name in _IN_WORDS:
        return f"another {_IN_WORDS[name]}"
    if isinstance(then, bool):
        return f"{typed(name, then)}, not {typed(name, now)}"
    return f"{typed(name, then)}, not {shlex.quote(str(now))}"


def repairs(names: Sequence[str], now: Mapping[str, Any]) -> list[str]:
    """The options that make a calibration under the present conditions."""
    return [typed(name, now[name]) for name in names if name not in _IN_WORDS]
