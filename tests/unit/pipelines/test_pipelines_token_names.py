"""Tokenizers that spell in bytes, and those that transformers 5 wrote."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import transformers
from tiny_decoders import save_decoder
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import LlamaConfig, PreTrainedTokenizerFast

from eexit_cli.core.errors import EexitError
from eexit_cli.families.decoders.token_names import token_names
from eexit_cli.families.loading import load_tokenizer


def byte_level() -> Any:
    """Bytes, and one word with the blank before it."""
    pieces = ["<|end|>", *sorted(pre_tokenizers.ByteLevel.alphabet()), "hi", "Ġhi", "Ã©"]
    made = Tokenizer(
        models.BPE(
            {piece: number for number, piece in enumerate(pieces)},
            [("h", "i"), ("Ġ", "hi"), ("Ã", "©")],
        )
    )
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(tokenizer_object=made, eos_token="<|end|>")


def test_bytes_are_named_by_their_text() -> None:
    tokenizer = byte_level()
    ids = tokenizer("hi hi\né\t<|end|>")["input_ids"]
    assert token_names(tokenizer, ids) == ["hi", "▁hi", r"\n", "é", r"\t", "<|end|>"]


def test_a_part_of_a_character_keeps_its_spelling() -> None:
    tokenizer = byte_level()
    first, second = tokenizer("ü")["input_ids"]
    assert token_names(tokenizer, [first, second]) == ["Ã", "¼"]


def test_other_tokenizers_are_left_alone(tmp_path: Path) -> None:
    tokenizer = load_tokenizer(save_decoder(tmp_path / "tiny"), backbone=LlamaConfig())
    ids = tokenizer("the")["input_ids"]
    assert token_names(tokenizer, ids) == tokenizer.convert_ids_to_tokens(ids)


def _written_by_5(folder: Path) -> list[int]:
    tokenizer = byte_level()
    tokenizer.save_pretrained(folder)
    path = folder / "tokenizer_config.json"
    stated = json.loads(path.read_text("utf-8"))
    path.write_text(json.dumps({**stated, "tokenizer_class": "TokenizersBackend"}), "utf-8")
    found: list[int] = tokenizer("hi hi")["input_ids"]
    return found


def test_a_tokenizer_that_transformers_5_wrote(tmp_path: Path) -> None:
    ids = _written_by_5(tmp_path)
    read = load_tokenizer(tmp_path, backbone=LlamaConfig())
    assert read("hi hi")["input_ids"] == ids
    assert read.eos_token == "<|end|>"


@pytest.mark.skipif(hasattr(transformers, "TokenizersBackend"), reason="known to transformers 5")
def test_its_damaged_file_is_a_users_error(tmp_path: Path) -> None:
    _written_by_5(tmp_path)
    (tmp_path / "tokenizer.json").write_text("{", "utf-8")
    with pytest.raises(EexitError, match="cannot be read"):
        load_tokenizer(tmp_path, backbone=LlamaConfig())
