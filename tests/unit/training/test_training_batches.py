"""Tokenised texts, padding, and the order of the samples."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from training_tiny import reviews, write_backbone
from transformers import AutoTokenizer

from eexit_cli.training.batches import LengthGroupedBatches, Tokenized
from eexit_cli.training.decoder_strategies import DecoderObjective
from eexit_cli.training.strategies import ExitsObjective


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.integers(3, 40), min_size=1, max_size=200),
    st.integers(1, 9),
    st.integers(0, 1000),
    st.integers(0, 5),
)
def test_each_epoch_is_a_permutation_fixed_by_seed_and_epoch(
    lengths: list[int], batch_size: int, seed: int, epoch: int
) -> None:
    sampler = LengthGroupedBatches(lengths, batch_size, seed, window=4)
    sampler.set_epoch(epoch)
    torch.manual_seed(epoch + 17)
    first = list(sampler)
    assert sorted(first) == list(range(len(lengths)))
    other = LengthGroupedBatches(lengths, batch_size, seed, window=4)
    other.set_epoch(epoch)
    torch.manual_seed(0)
    assert list(other) == first


def test_epochs_differ_and_batches_hold_similar_lengths() -> None:
    lengths = torch.randint(3, 60, (640,), generator=torch.Generator().manual_seed(0)).tolist()
    sampler = LengthGroupedBatches(lengths, 16, seed=1)
    orders = []
    for epoch in range(2):
        sampler.set_epoch(epoch)
        orders.append(list(sampler))
    assert orders[0] != orders[1]

    def padding(order: list[int]) -> int:
        batches = [order[start : start + 16] for start in range(0, len(order), 16)]
        return sum(16 * max(lengths[index] for index in batch) for batch in batches)

    random_order = torch.randperm(640, generator=torch.Generator().manual_seed(2)).tolist()
    assert padding(orders[0]) < 0.65 * padding(random_order)


def test_texts_are_cut_counted_and_padded_as_the_tokenizer_does(tmp_path: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(write_backbone(tmp_path / "backbone"))
    texts = [text for text, _ in reviews(20)]
    data = Tokenized.of_texts(tokenizer, texts, None, [0, 1] * 10, max_length=8)
    whole = [len(row) for row in tokenizer(texts)["input_ids"]]
    assert data.cut == [("texts", sum(length > 8 for length in whole), 8)]
    assert data.cut[0][1] > 0
    batch = ExitsObjective.collator(tokenizer)([data[index] for index in range(20)])
    expected = tokenizer(texts, truncation=True, max_length=8, padding=True, return_tensors="pt")
    for name in ("input_ids", "attention_mask", "token_type_ids"):
        assert torch.equal(batch[name], expected[name])
    assert batch["labels"].tolist() == [0, 1] * 10


def test_pairs_and_values(tmp_path: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(write_backbone(tmp_path / "backbone"))
    data = Tokenized.of_texts(tokenizer, ["the film"], ["it was dull"], [2.5], max_length=16)
    assert sum(data[0]["token_type_ids"]) == 4  # three words and a separator
    batch = ExitsObjective.collator(tokenizer)([data[0]])
    assert batch["labels"].dtype == torch.float32
    assert batch["labels"].tolist() == [pytest.approx(2.5)]


def test_texts_to_write_are_padded_with_what_no_loss_counts(tmp_path: Path) -> None:
    """And each side is cut by itself."""
    tokenizer = AutoTokenizer.from_pretrained(write_backbone(tmp_path / "backbone"))
    sources, targets = ["the film is", "a plot"], ["good", "it was dull and bad"]
    data = Tokenized.of_pairs(tokenizer, sources, targets, max_source=16, max_target=5)
    assert data.cut == [("sources", 0, 16), ("targets", 1, 5)]
    assert data.lengths == [5 + 3, 4 + 5]
    batch = DecoderObjective.collator(tokenizer)([data[0], data[1]])
    read = tokenizer(sources, padding=True, return_tensors="pt")
    written = tokenizer(targets, truncation=True, max_length=5, padding=True, return_tensors="pt")
    for name in ("input_ids", "attention_mask"):
        assert torch.equal(batch[name], read[name])
    expected = written["input_ids"].masked_fill(written["attention_mask"] == 0, -100)
    assert torch.equal(batch["labels"], expected)
