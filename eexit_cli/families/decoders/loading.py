"""What every family of models that write text asks of a folder: greedy settings, lengths."""

from __future__ import annotations

from eexit_cli.core.errors import UsageError
from eexit_cli.models.decoding.decoder import ExitDecoder
from eexit_cli.models.decoding.generation import not_greedy

NEW_TOKENS = 128
"""Longest output where neither the model nor the user says."""

NO_LIMIT = 10**6
"""Tokenizers without a limit carry a number beyond this."""


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
