"""Pruning a WordPiece vocabulary: nothing that the texts need is lost."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from training_tiny import LETTERS, NEUTRAL, PIECES, RARE, SPECIAL, write_backbone
from transformers import AutoTokenizer, BertModel

from eexit_cli.core.errors import UsageError
from eexit_cli.models.encoder.pretrained import initialise_from_backbone
from eexit_cli.training.vocabulary import prune, prune_embeddings

TEXTS = ["The film was brilliant and gripping", "a dull plot", "zebra onyx, it is a walrux"]
KEPT_SPECIAL = [piece for piece in SPECIAL if not piece.startswith("[unused")]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_backbone(tmp_path / "backbone")


@pytest.fixture
def tokenizer(folder: Path) -> Any:
    return AutoTokenizer.from_pretrained(folder)


def _pieces(tokenizer: Any) -> list[str]:
    vocabulary = tokenizer.get_vocab()
    return sorted(vocabulary, key=vocabulary.__getitem__)


def _needed(tokenizer: Any) -> set[str]:
    used = {piece for text in TEXTS for piece in tokenizer.tokenize(text)}
    return used | set(KEPT_SPECIAL) | set(LETTERS) | {f"##{letter}" for letter in LETTERS}


def test_needed_pieces_stay_and_the_most_frequent_fill_up(tokenizer: Any) -> None:
    needed = _needed(tokenizer)
    size = len(needed) + 3
    pruning = prune(tokenizer, TEXTS, size)
    kept = _pieces(pruning.tokenizer)
    assert len(kept) == len(pruning.kept) == size
    fill = [piece for piece in PIECES if piece not in needed and "unused" not in piece][:3]
    assert set(kept) == needed | set(fill)
    assert kept == [PIECES[index] for index in pruning.kept]
    # The first piece left out bounds what "most frequent" may claim.
    left_out = next(p for p in PIECES if p not in kept and "unused" not in p)
    before = [p for p in PIECES[: PIECES.index(left_out)] if p not in SPECIAL]
    assert pruning.most_frequent == len(before)


def test_training_texts_keep_their_tokens_others_stay_spellable(tokenizer: Any) -> None:
    pruning = prune(tokenizer, TEXTS, len(_needed(tokenizer)))
    for text in TEXTS:
        assert pruning.tokenizer.tokenize(text) == tokenizer.tokenize(text)
    assert "quartz" not in pruning.tokenizer.get_vocab()
    assert pruning.tokenizer.tokenize("quartz") == ["q", "##u", "##a", "##r", "##t", "##z"]
    encoded = pruning.tokenizer("the film", "a plot")
    tokens = pruning.tokenizer.convert_ids_to_tokens(encoded["input_ids"])
    assert tokens == ["[CLS]", "the", "film", "[SEP]", "a", "plot", "[SEP]"]
    assert encoded["token_type_ids"] == [0, 0, 0, 0, 1, 1, 1]


def test_the_pruned_tokenizer_survives_saving(tokenizer: Any, tmp_path: Path) -> None:
    pruned = prune(tokenizer, TEXTS, len(_needed(tokenizer)) + 2).tokenizer
    pruned.save_pretrained(tmp_path / "saved")
    again = AutoTokenizer.from_pretrained(tmp_path / "saved")
    assert again.get_vocab() == pruned.get_vocab()
    assert (again.pad_token_id, again.unk_token_id, again.mask_token_id) == (
        pruned.pad_token_id,
        pruned.unk_token_id,
        pruned.mask_token_id,
    )
    assert again("the quartz [MASK]")["input_ids"] == pruned("the quartz [MASK]")["input_ids"]
    assert again.convert_ids_to_tokens(again.all_special_ids) == again.all_special_tokens


def test_the_model_computes_the_same_with_fewer_rows(folder: Path, tokenizer: Any) -> None:
    model = initialise_from_backbone(
        str(folder), family="deebert", pooling="mean", num_labels=2, seed=0
    )
    batch = tokenizer(TEXTS, padding=True, return_tensors="pt")
    with torch.no_grad():
        before = model(**batch).logits
    pruning = prune(tokenizer, TEXTS, len(_needed(tokenizer)))
    prune_embeddings(model, pruning.kept)
    with torch.no_grad():
        after = model(**pruning.tokenizer(TEXTS, padding=True, return_tensors="pt")).logits
    assert torch.equal(before, after)
    assert model.word_embeddings.num_embeddings == len(pruning.kept)
    assert model.config.backbone["vocab_size"] == len(pruning.kept)
    assert model.config.backbone["pad_token_id"] == pruning.tokenizer.pad_token_id
    assert model.config.backbone_config().vocab_size == len(pruning.kept)


def test_frequency_alone_may_split_the_texts_words(tokenizer: Any) -> None:
    fixed = len(KEPT_SPECIAL) + 2 * len(LETTERS)
    pruning = prune(tokenizer, TEXTS, fixed + len(NEUTRAL) - 1, keep="frequency")
    kept = set(_pieces(pruning.tokenizer))
    assert set(NEUTRAL) <= kept
    assert not kept & {"brilliant", "dull", *RARE}
    assert "".join(pruning.tokenizer.tokenize("dull")).replace("##", "") == "dull"


@pytest.mark.parametrize("keep", ["texts", "frequency"])
def test_a_size_out_of_range_names_the_range(tokenizer: Any, keep: str) -> None:
    fixed = len(KEPT_SPECIAL) + 2 * len(LETTERS)
    least = len(_needed(tokenizer)) if keep == "texts" else fixed
    most = len(PIECES) - 2
    for size in (least - 1, most + 1):
        with pytest.raises(UsageError, match=f"{least}..{most}"):
            prune(tokenizer, TEXTS, size, keep=keep)
    assert len(prune(tokenizer, TEXTS, most, keep=keep).kept) == most


def test_an_unknown_choice_names_the_known(tokenizer: Any) -> None:
    with pytest.raises(UsageError) as caught:
        prune(tokenizer, TEXTS, 70, keep="frequent")
    assert "frequency" in (caught.value.hint or "")


def test_only_wordpiece(tmp_path: Path) -> None:
    from tokenizers import Tokenizer, models
    from transformers import PreTrainedTokenizerFast

    backend = Tokenizer(models.BPE(vocab={"<unk>": 0, "a": 1}, merges=[], unk_token="<unk>"))
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend, unk_token="<unk>")
    with pytest.raises(UsageError, match="not BPE"):
        prune(tokenizer, ["a"], 2)


def test_bert_style_post_processor_is_renumbered(folder: Path, tmp_path: Path) -> None:
    """Some published tokenizers carry BERT's own post-processor in place of a template."""
    path = folder / "tokenizer.json"
    content = json.loads(path.read_text(encoding="utf-8"))
    sep, cls = PIECES.index("[SEP]"), PIECES.index("[CLS]")
    content["post_processor"] = {
        "type": "BertProcessing",
        "sep": ["[SEP]", sep],
        "cls": ["[CLS]", cls],
    }
    from tokenizers import Tokenizer
    from transformers import PreTrainedTokenizerFast

    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer.from_str(json.dumps(content)),
        unk_token="[UNK]",
        pad_token="[PAD]",
        cls_token="[CLS]",
        sep_token="[SEP]",
        mask_token="[MASK]",
    )
    pruned = prune(tokenizer, TEXTS, len(_needed(tokenizer))).tokenizer
    ids = pruned("the film")["input_ids"]
    assert pruned.convert_ids_to_tokens(ids) == ["[CLS]", "the", "film", "[SEP]"]


def test_the_backbone_without_exits_agrees(folder: Path, tokenizer: Any) -> None:
    """Rows follow their pieces: the pretrained embedding of a word is still that word's."""
    rows = BertModel.from_pretrained(folder).get_input_embeddings().weight
    model = initialise_from_backbone(
        str(folder), family="pabee", pooling="first", num_labels=2, seed=0
    )
    pruning = prune(tokenizer, TEXTS, len(_needed(tokenizer)) + 1)
    prune_embeddings(model, pruning.kept)
    for piece in ("film", "zebra", "##q", "[MASK]"):
        new = pruning.tokenizer.convert_tokens_to_ids(piece)
        assert torch.equal(model.word_embeddings.weight[new], rows[PIECES.index(piece)])
