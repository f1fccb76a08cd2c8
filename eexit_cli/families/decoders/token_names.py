"""What tokens are called where people see them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

_BLANK = "▁"
"""As SentencePiece's own tokens write it, so that it is seen."""


def token_names(tokenizer: Any, ids: Sequence[int]) -> list[str]:
    r"""The tokens of these ids, as text where the tokenizer spells them in bytes.

    Byte-level ones (GPT-2's, Llama 3's, Qwen's) call " Paris" ``ĠParis``, a new line ``Ċ`` and
    "é" ``Ã©``. They become ``▁Paris``, ``\n`` and ``é``: names that stand in one cell of a table.
    A token that is a part of a character has no text: it keeps its spelling.
    """
    names = [str(name) for name in tokenizer.convert_ids_to_tokens(ids)]
    if not _by_bytes(tokenizer):
        return names
    special = set(tokenizer.all_special_tokens)
    return [name if name in special else _text(tokenizer, name) for name in names]


def _by_bytes(tokenizer: Any) -> bool:
    backend = getattr(tokenizer, "backend_tokenizer", None)
    return type(getattr(backend, "decoder", None)).__name__ == "ByteLevel"


def _text(tokenizer: Any, name: str) -> str:
    # Its decoder alone: transformers' way may tidy blanks.
    text = str(tokenizer.backend_tokenizer.decoder.decode([name]))
    if "\ufffd" in text:
        return name
    text = text.replace(" ", _BLANK)
    return "".join(sign if sign.isprintable() else repr(sign)[1:-1] for sign in text)
