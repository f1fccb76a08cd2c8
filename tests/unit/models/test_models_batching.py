"""Texts to tensors."""

from __future__ import annotations

import pytest
import torch
from models_tiny import random_model, write_bert_vocabulary
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import AutoTokenizer, BertConfig, PreTrainedTokenizerFast

from eexit_cli.core.errors import UsageError
from eexit_cli.models.batching import TextBatcher


@pytest.fixture
def tokenizer(tmp_path):
    return AutoTokenizer.from_pretrained(write_bert_vocabulary(tmp_path), config=BertConfig())


@pytest.fixture
def plain_tokenizer():
    """Without segments, and padding on the left by its own setting."""
    words = {"<s>": 0, "<pad>": 1, "</s>": 2, "<unk>": 3, "a": 4, "good": 5, "film": 6}
    backend = Tokenizer(models.WordLevel(words, unk_token="<unk>"))
    backend.pre_tokenizer = pre_tokenizers.Whitespace()
    backend.post_processor = processors.RobertaProcessing(("</s>", 2), ("<s>", 0))
    return PreTrainedTokenizerFast(
        tokenizer_object=backend,
        pad_token="<pad>",
        padding_side="left",
        model_input_names=["input_ids", "attention_mask"],
    )


def test_batches_are_padded_on_the_right_to_the_longest(tokenizer):
    batch = TextBatcher(tokenizer, 20)(["a good film", "dull", "The film is not bad"])
    assert batch["input_ids"].shape == (3, 7)
    assert batch["input_ids"].dtype == torch.int64
    assert batch["attention_mask"].tolist() == [
        [1, 1, 1, 1, 1, 0, 0],
        [1, 1, 1, 0, 0, 0, 0],
        [1, 1, 1, 1, 1, 1, 1],
    ]
    pad, cls, sep = (tokenizer.convert_tokens_to_ids(t) for t in ("[PAD]", "[CLS]", "[SEP]"))
    dull = tokenizer.convert_tokens_to_ids("dull")
    assert batch["input_ids"][1].tolist() == [cls, dull, sep, pad, pad, pad, pad]
    assert batch["token_type_ids"].tolist() == [[0] * 7] * 3


def test_the_padding_side_is_forced_without_touching_the_tokenizer(plain_tokenizer):
    batch = TextBatcher(plain_tokenizer, 20)(["a good film", "a"])
    assert batch["input_ids"].tolist() == [[0, 4, 5, 6, 2], [0, 4, 2, 1, 1]]
    assert plain_tokenizer.padding_side == "left"


def test_segments_only_where_the_tokenizer_has_them(tokenizer, plain_tokenizer):
    assert set(TextBatcher(plain_tokenizer, 9)(["a"])) == {"input_ids", "attention_mask"}
    assert set(TextBatcher(tokenizer, 9)(["a"])) == {
        "input_ids",
        "attention_mask",
        "token_type_ids",
    }


def test_pairs_have_segments_and_cut_the_longer_text(tokenizer):
    batcher = TextBatcher(tokenizer, 9)
    batch = batcher(["a film", "bad"], ["the film is good", "good"])
    assert batch["token_type_ids"][0].tolist() == [0, 0, 0, 0, 1, 1, 1, 1, 1]
    assert batch["token_type_ids"][1].tolist() == [0, 0, 0, 1, 1, 0, 0, 0, 0]
    assert batcher.truncated == 0
    cut = TextBatcher(tokenizer, 7)
    words = tokenizer.convert_ids_to_tokens(cut(["a film"], ["the film is good"])["input_ids"][0])
    assert words == ["[CLS]", "a", "film", "[SEP]", "the", "film", "[SEP]"]
    assert cut.truncated == 1


def test_cut_inputs_are_counted_across_batches(tokenizer):
    batcher = TextBatcher(tokenizer, 5)
    assert batcher(["a good film"])["input_ids"].shape == (1, 5)
    assert batcher.truncated == 0  # it just fits
    assert batcher(["a good film is", "bad", "the film is not bad"])["input_ids"].shape == (3, 5)
    assert batcher.truncated == 2
    batcher(["not a good film"])
    assert batcher.truncated == 3


def test_batches_feed_the_model(tokenizer):
    model = random_model()
    batch = TextBatcher(tokenizer, model.max_tokens)(["a good film", "unlit"])
    assert model(**batch).logits.shape == (2, 3, 2)


def test_tokenizers_that_cannot_be_used_are_refused(plain_tokenizer):
    class Slow:
        is_fast = False

    with pytest.raises(UsageError, match="not a fast tokenizer"):
        TextBatcher(Slow(), 8)
    plain_tokenizer.pad_token = None
    with pytest.raises(UsageError, match="no padding token"):
        TextBatcher(plain_tokenizer, 8)
