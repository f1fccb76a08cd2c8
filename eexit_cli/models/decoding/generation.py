"""What a folder's ``generation_config.json`` asks for, and the part of it that early exit obeys.

transformers' ``generate`` obeys that file; where it is missing, the same keys of an old
``config.json``. Start, ends, lengths, and tokens that are forced or forbidden at a position hold
here too: they say which tokens a layer may choose from, whatever layer it is. Beams, sampling and
penalties that look back at the output are other ways of decoding than the greedy one that exits
are defined for, so they are named instead (:func:`not_greedy`).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import GenerationConfig

from eexit_cli.core.errors import EexitError
from eexit_cli.models.checkpoints import read_json

GENERATION_FILE = "generation_config.json"

_NEUTRAL: dict[str, tuple[Any, ...]] = {
    "num_beams": (1,),
    "do_sample": (False,),
    "repetition_penalty": (1.0,),
    "encoder_repetition_penalty": (1.0,),
    "no_repeat_ngram_size": (0,),
    "encoder_no_repeat_ngram_size": (0,),
    "bad_words_ids": ([],),
    "sequence_bias": ({}, []),
    "exponential_decay_length_penalty": (),
    "guidance_scale": (1.0,),
    "penalty_alpha": (0.0,),
    "dola_layers": (),
    "constraints": ([],),
    "force_words_ids": ([],),
    "forced_decoder_ids": ([],),
    "watermarking_config": ({},),
    "token_healing": (False,),
    "stop_strings": ([], ""),
    "max_time": (),
    "num_return_sequences": (1,),
}
"""Settings that change greedy decoding, with the values beside None that do not."""

_OF_BEAMS: dict[str, tuple[Any, ...]] = {
    "length_penalty": (1.0,),
    "early_stopping": (False,),
    "num_beam_groups": (1,),
    "diversity_penalty": (0.0,),
}
"""Settings that say nothing with one beam; named where there are more."""

_OBEYED = (
    "decoder_start_token_id", "bos_token_id", "eos_token_id", "pad_token_id", "max_length",
    "max_new_tokens", "min_length", "min_new_tokens", "forced_bos_token_id", "forced_eos_token_id",
    "suppress_tokens", "begin_suppress_tokens",
)  # fmt: skip

_IDS = tuple(name for name in _OBEYED if "token" in name and "new_tokens" not in name)
_SINGLE = ("decoder_start_token_id", "bos_token_id", "pad_token_id", "forced_bos_token_id")
_DEFAULT_LENGTH = 20
"""``max_length`` of every configuration; transformers too takes it for not set."""


def read_generation(folder: Path, raw: Mapping[str, Any], vocabulary: int) -> dict[str, Any]:
    """What ``generate`` would obey for a model folder, checked.

    ``max_length`` counts the start token; it comes back as ``max_new_tokens``, which does not.

    Args:
        raw: the folder's ``config.json``.
        vocabulary: ids are below this.

    Raises:
        EexitError: the file is damaged, or a setting is no token of the model.
    """
    path = folder / GENERATION_FILE
    if path.is_file():
        settings = read_json(path)
        settings.setdefault("eos_token_id", None)  # generate then never ends, whatever config.json
    else:
        path = folder / "config.json"
        known = {*_NEUTRAL, *_OF_BEAMS, *_OBEYED}
        settings = {name: value for name, value in raw.items() if name in known}
    for name in _IDS:
        settings[name] = _token_ids(path, name, settings.get(name), vocabulary)
    for name in ("max_length", "max_new_tokens", "min_length", "min_new_tokens"):
        value = settings.get(name)
        if value is not None and (not isinstance(value, int) or value < 0):
            raise _no_value(path, name, value, "a number of tokens")
    longest = settings.pop("max_length", None)
    if settings.get("max_new_tokens") is None and longest not in (None, _DEFAULT_LENGTH):
        settings["max_new_tokens"] = max(1, longest - 1)
    if settings["decoder_start_token_id"] is None:
        settings["decoder_start_token_id"] = settings["bos_token_id"]
    return settings


def _token_ids(path: Path, name: str, value: Any, vocabulary: int) -> Any:
    many = value if isinstance(value, list) else [] if value is None else [value]
    for token in many:
        if not isinstance(token, int) or isinstance(token, bool) or not 0 <= token < vocabulary:
            raise _no_value(path, name, token, f"a token of the model, 0 to {vocabulary - 1}")
    if name in _SINGLE and isinstance(value, list):
        raise _no_value(path, name, value, "one token")
    return value


def _no_value(path: Path, name: str, value: Any, wanted: str) -> EexitError:
    return EexitError(
        f"{path}: '{name}' is {value!r}, which is not {wanted}", hint=f"Correct {path.name}"
    )


def as_generation_config(settings: Mapping[str, Any], folder: Path) -> GenerationConfig:
    """For transformers' own ``generate``, and for saving.

    Raises:
        EexitError: settings that transformers refuses.
    """
    try:
        return GenerationConfig(**settings)
    except (ValueError, TypeError) as error:
        raise EexitError(
            f"{folder}: the generation settings are not valid: {str(error).splitlines()[0]}",
            hint=f"Correct {GENERATION_FILE}",
        ) from error


def not_greedy(settings: GenerationConfig) -> dict[str, Any]:
    """The settings that ask for another decoding than the greedy one, with their values."""
    found = {
        name: value
        for name, neutral in _NEUTRAL.items()
        if (value := getattr(settings, name, None)) is not None and value not in neutral
    }
    if "num_beams" in found:
        found |= {
            name: value
            for name, neutral in _OF_BEAMS.items()
            if (value := getattr(settings, name, None)) is not None and value not in neutral
        }
    return found


class TokenRules:
    """Which tokens may be chosen at each position, as what is added to the logits.

    Forced tokens come before forbidden ones.

    Args:
        settings: ``forced_bos_token_id``, ``forced_eos_token_id``, ``suppress_tokens``,
            ``begin_suppress_tokens``, ``min_length`` and ``min_new_tokens`` of it.
        ends: ids that end an output.
        longest: tokens of the longest output, its end included.
        head: the LM head's weight. Shape: [vocabulary, d].
    """

    def __init__(
        self,
        settings: GenerationConfig,
        ends: Sequence[int],
        longest: int,
        head: Tensor,
    ) -> None:
        self._last = longest - 1
        # min_length counts the start token.
        shortest = max((settings.min_length or 0) - 1, settings.min_new_tokens or 0)
        self._shortest = shortest if ends else 0
        self._ends = tuple(ends)
        self._first_forced = _several(settings.forced_bos_token_id)
        self._last_forced = _several(settings.forced_eos_token_id)
        self._never = _several(settings.suppress_tokens)
        self._not_first = _several(settings.begin_suppress_tokens)
        # A forced first token is the start of nothing yet: the ban holds for the one after it.
        self._first = 1 if self._first_forced else 0
        self._head = head.detach()
        self._vocabulary = len(head)
        # Shape: [vocabulary] each
        self._made: dict[tuple[bool, ...], Tensor | None] = {}

    @property
    def say_nothing(self) -> bool:
        """Is every token allowed everywhere?"""
        rules = (self._first_forced, self._last_forced, self._never, self._not_first)
        return not any(rules) and not self._shortest

    def at(self, age: int) -> Tensor | None:
        """-inf where a token must not be chosen, else 0; None when all may. Shape: [vocabulary].

        Args:
            age: tokens that the output has before this one.
        """
        key = (
            age == 0 and bool(self._first_forced),
            age == self._last and bool(self._last_forced),
            age < self._shortest,
            age == self._first and bool(self._not_first),
        )
        if key not in self._made:
            self._made[key] = self._make(*key)
        return self._made[key]

    def _make(self, first: bool, last: bool, short: bool, begin: bool) -> Tensor | None:
        if first or last:
            mask = self._head.new_full((self._vocabulary,), -math.inf)
            # Of several, generate takes the first: all have the same score there.
            mask[min(self._last_forced if last else self._first_forced)] = 0.0
            return mask
        banned = {
            *self._never,
            *(self._ends if short else ()),
            *(self._not_first if begin else ()),
        }
        if not banned:
            return None
        mask = self._head.new_zeros(self._vocabulary)
        mask[list(banned)] = -math.inf
        return mask

    def of_rows(self, ages: int | Tensor) -> Tensor | None:
        """:meth:`at` for every row. Shape: [rows] -> [rows, vocabulary], or [vocabulary]."""
        if isinstance(ages, int):
            return self.at(ages)
        masks = [self.at(age) for age in ages.tolist()]
        if all(mask is None for mask in masks):
            return None
        free = self._head.new_zeros(self._vocabulary)
        return torch.stack([free if mask is None else mask for mask in masks])


def _several(ids: Any) -> tuple[int, ...]:
    if ids is None:
        return ()
    return tuple(ids) if isinstance(ids, (list, tuple)) else (int(ids),)
