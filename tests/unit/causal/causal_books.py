"""A book, and a small model of its letters with a start token, in transformers' own folder."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

from causal_tiny import write_tiny

START, END = "<s>", "</s>"
WORDS = ("the cat", "a dog", "sat", "ran", "on", "under", "the mat", "über", "and", "then")


def tokenizer(*, start: bool) -> Any:
    """Byte-level BPE of few merges: 30 of them beside the bytes."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
    from transformers import PreTrainedTokenizerFast

    made = Tokenizer(models.BPE())
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=290,
        special_tokens=["<pad>", START, END],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    made.train_from_iterator([book(400)], trainer)
    if start:
        made.post_processor = processors.TemplateProcessing(
            single=f"{START} $A", special_tokens=[(START, 1)]
        )
    return PreTrainedTokenizerFast(
        tokenizer_object=made, pad_token="<pad>", bos_token=START, eos_token=END
    )


def book(words: int, seed: int = 1) -> str:
    """Paragraphs of few words."""
    draw = random.Random(seed)
    text = [draw.choice(WORDS) + draw.choice((" ", " ", " ", ", ", ".\n\n")) for _ in range(words)]
    return "".join(text)


def write_reader(folder: Path, *, start: bool = True, kind: str = "llama") -> Path:
    """A model that has learned nothing, with its tokenizer."""
    letters = tokenizer(start=start)
    write_tiny(folder, kind, vocab_size=len(letters))
    letters.save_pretrained(folder)
    return folder
