"""A tiny backbone with a tokenizer on disk, and texts whose label is easy to learn."""

from __future__ import annotations

import csv
import random
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from transformers import BertConfig, BertModel, BertTokenizerFast

from eexit_cli.core.progress import SilentTicker

GOOD = ("brilliant", "gripping", "good", "fine")
BAD = ("dull", "bad", "tedious", "weak")
NEUTRAL = ("a", "the", "film", "story", "is", "and", "plot", "it", "was", "scene", "actor")
SPECIAL = ("[PAD]", "[unused0]", "[unused1]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
LETTERS = "abcdefghijklmnopqrstuvwxyz"
RARE = ("zebra", "quartz", "##ing", "##ly", "onyx", "walrus")
PIECES = (*SPECIAL, *LETTERS, *(f"##{x}" for x in LETTERS), *NEUTRAL[1:], *GOOD, *BAD, *RARE)


def write_backbone(folder: Path, *, layers: int = 3, seed: int = 0, dropout: float = 0.1) -> Path:
    """A random BERT of ``layers`` layers with its tokenizer; returns the folder."""
    folder.mkdir(parents=True)
    (folder / "vocab.txt").write_text("\n".join(PIECES) + "\n", encoding="utf-8")
    tokenizer = BertTokenizerFast(str(folder / "vocab.txt"), do_lower_case=True)
    tokenizer.save_pretrained(folder)
    config = BertConfig(
        vocab_size=len(PIECES),
        hidden_size=16,
        num_hidden_layers=layers,
        num_attention_heads=2,
        intermediate_size=32,
        max_position_embeddings=40,
        pad_token_id=0,
        hidden_dropout_prob=dropout,
        attention_probs_dropout_prob=dropout,
    )
    torch.manual_seed(seed)
    BertModel(config).save_pretrained(folder)
    return folder


def reviews(count: int, *, seed: int = 0) -> list[tuple[str, str]]:
    """(text, label name) pairs of different lengths; one word decides."""
    choose = random.Random(seed)
    rows = []
    for index in range(count):
        words = choose.choices(NEUTRAL, k=choose.randint(2, 12))
        positive = index % 2 == 0
        words.insert(choose.randrange(len(words)), choose.choice(GOOD if positive else BAD))
        rows.append((" ".join(words), "positive" if positive else "negative"))
    return rows


def write_reviews(path: Path, count: int = 120, **columns: Any) -> Path:
    with path.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream)
        writer.writerow(["text", "label"])
        writer.writerows(reviews(count))
    return path


class Listener:
    """Keeps the messages; raises at the n-th step of training."""

    def __init__(self, stop_at: int | None = None) -> None:
        self.messages: list[str] = []
        self.stop_at = stop_at
        self.steps = 0

    @contextmanager
    def task(self, title: str, total: int | None = None, done: int = 0) -> Iterator[Any]:
        yield _Counter(self) if title.startswith("Stage") else SilentTicker()

    def message(self, text: str) -> None:
        self.messages.append(text)


class _Counter(SilentTicker):
    def __init__(self, listener: Listener) -> None:
        self.listener = listener

    def advance(self, steps: int = 1, note: str | None = None) -> None:
        self.listener.steps += steps
        if self.listener.steps == self.listener.stop_at:
            raise KeyboardInterrupt
