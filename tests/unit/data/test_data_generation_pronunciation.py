"""Invariants of the committed files; nothing is rebuilt. The tokenizer."""

from __future__ import annotations

import gzip
import re
from collections.abc import Iterator
from itertools import permutations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from eexit_cli.core.errors import MissingArtifactError, UsageError
from eexit_cli.core.progress import SilentProgress
from eexit_cli.data import load_examples
from eexit_cli.data.bundled import ASSETS
from eexit_cli.data.pronunciation import (
    LETTERS,
    PHONEMES,
    PRONUNCIATION,
    SYMBOLS,
    PronunciationTask,
    pronunciation_tokenizer,
)

FOLDER = ASSETS / "pronunciation"
SIZES = {"train": 109_684, "validation": 3000, "calibration": 3000, "test": 4000}


@pytest.fixture(scope="module")
def splits() -> dict[str, dict[str, str]]:
    found = {}
    for name in SIZES:
        text = gzip.decompress((FOLDER / f"{name}.tsv.gz").read_bytes()).decode("ascii")
        lines = [line.split("\t") for line in text.splitlines()]
        found[name] = dict(lines)
        assert len(found[name]) == len(lines)
    return found


def inflections(word: str) -> Iterator[str]:
    """What English makes of a word; written forwards, where the build strips endings."""
    for ending in ("s", "es", "'s", "'", "ed", "d", "ing", "er", "r", "ers", "est", "ly", "ness"):
        yield word + ending
    if word.endswith("e"):
        for ending in ("ing", "able", "ings"):
            yield word[:-1] + ending
    if word.endswith("le"):
        yield word[:-1] + "y"
    if re.search(r"[^aeiou]y$", word):
        for ending in ("ies", "ied", "ier", "iers", "iest", "ily", "iness"):
            yield word[:-1] + ending
    if re.search(r"[aeiou][bdfgklmnprtvz]$", word):
        for ending in ("ed", "ing", "er", "ers", "est"):
            yield word + word[-1] + ending
    if word.endswith("ic"):
        yield word + "ked"
        yield word + "king"


def test_sizes(splits):
    assert {name: len(words) for name, words in splits.items()} == SIZES


def test_no_word_stands_in_two_splits(splits):
    every = [word for words in splits.values() for word in words]
    assert len(set(every)) == len(every)


@pytest.mark.parametrize(("one", "other"), list(permutations(SIZES, 2)))
def test_no_inflection_of_a_word_stands_in_another_split(splits, one, other):
    words = splits[other]
    crossing = [(word, form) for word in splits[one] for form in inflections(word) if form in words]
    assert crossing == []


def test_the_check_finds_inflections_where_there_are_some(splits):
    train = splits["train"]
    pairs = sum(form in train for word in train for form in inflections(word))
    assert pairs > 30_000


def test_held_out_words_are_no_inflections_of_one_another(splits):
    for name in ("validation", "calibration", "test"):
        words = splits[name]
        assert not [word for word in words for form in inflections(word) if form in words]


def test_rows_are_words_and_phonemes(splits):
    for words in splits.values():
        assert list(words) == sorted(words)
        for word, phonemes in words.items():
            assert re.fullmatch(r"[a-z']+", word)
            assert set(phonemes.split(" ")) <= set(PHONEMES)


def test_every_symbol_is_learned(splits):
    assert {letter for word in splits["train"] for letter in word} == set(LETTERS)
    assert {p for said in splits["train"].values() for p in said.split()} == set(PHONEMES)


def test_the_splits_are_alike(splits):
    def mean(words: dict[str, str]) -> float:
        return sum(len(said.split()) for said in words.values()) / len(words)

    means = [mean(words) for words in splits.values()]
    assert max(means) - min(means) < 0.2


def test_the_card_counts_what_is_there(splits):
    card = (FOLDER / "README.md").read_text(encoding="utf-8")
    for name, words in splits.items():
        assert f"| {name} | {len(words):,} |" in card
    assert "python tools/build_pronunciation.py" in card
    licence = (FOLDER / "LICENSE").read_text(encoding="utf-8")
    assert "Carnegie Mellon University" in licence


def test_the_files_stay_small():
    assert sum(file.stat().st_size for file in FOLDER.iterdir()) < 1_500_000


def test_load(make_config, splits):
    examples = load_examples(make_config(task="pronunciation"), default_split="test")
    assert examples.info.kind == "generation"
    assert examples.info.metrics[0] == "phoneme_error_rate"
    assert examples.total == len(examples) == 4000
    assert (
        dict(zip(examples.dataset["source"], examples.dataset["target"], strict=True))
        == (splits["test"])
    )
    assert examples.dataset["id"][:] == examples.dataset["source"][:]
    assert examples.dataset.column_names == ["id", "source", "target"]


def test_a_limit_is_a_prefix_of_a_larger_one(make_config):
    def ids(limit: int) -> list[str]:
        config = make_config(task="pronunciation", limit=limit, split="calibration")
        return load_examples(config, default_split="test").dataset["id"][:]

    assert ids(20) == ids(50)[:20]
    assert len(set(ids(50))) == 50


def test_data_dir_is_refused(make_config, tmp_path):
    config = make_config(task="pronunciation", data_dir=tmp_path)
    with pytest.raises(UsageError, match="takes no --data-dir"):
        load_examples(config, default_split="test")


def test_a_broken_installation_is_named():
    task = PronunciationTask(PRONUNCIATION.info, ("extra",))
    with pytest.raises(MissingArtifactError, match=r"extra\.tsv\.gz is not there") as caught:
        task.read("extra", data_dir=None, progress=SilentProgress())
    assert "Reinstall" in caught.value.hint


# The tokenizer.


@pytest.fixture(scope="module")
def tokenizer():
    return pronunciation_tokenizer()


def test_symbols_are_distinct_and_their_ids_are_the_tokenizers(tokenizer):
    assert len(set(SYMBOLS)) == len(SYMBOLS) == len(tokenizer) == 69
    assert tokenizer.convert_tokens_to_ids(list(SYMBOLS)) == list(range(69))
    special = (tokenizer.pad_token_id, tokenizer.eos_token_id, tokenizer.unk_token_id)
    assert special == (0, 1, 2)


def test_words_are_letters_and_phonemes_symbols(tokenizer):
    def tokens(text: str) -> list[str]:
        return tokenizer.convert_ids_to_tokens(tokenizer(text)["input_ids"])

    assert tokens("queue") == ["q", "u", "e", "u", "e", "</s>"]
    assert tokens("o'neil's") == [*"o'neil's", "</s>"]
    assert tokens("K Y UW") == ["K", "Y", "UW", "</s>"]
    assert tokens("é Q") == ["<unk>", "<unk>", "</s>"]
    assert set(tokenizer("queue")) == {"input_ids", "attention_mask"}


def test_padding_is_on_the_right(tokenizer):
    batch = tokenizer(["a", "abc"], padding=True)
    assert batch["input_ids"][0][2:] == [0, 0]
    assert batch["attention_mask"] == [[1, 1, 0, 0], [1, 1, 1, 1]]


@given(st.lists(st.sampled_from(PHONEMES), max_size=20))
def test_phonemes_survive_the_round_trip(phonemes):
    tokenizer = pronunciation_tokenizer()
    text = " ".join(phonemes)
    ids = tokenizer(text)["input_ids"]
    assert len(ids) == len(phonemes) + 1
    assert tokenizer.decode(ids, skip_special_tokens=True) == text


def test_every_sample_is_known_and_fits(tokenizer, splits):
    for name in ("train", "test"):
        words = list(splits[name])[::20]
        for texts in (words, [splits[name][word] for word in words]):
            for ids in tokenizer(texts)["input_ids"]:
                assert tokenizer.unk_token_id not in ids
                assert ids[-1] == tokenizer.eos_token_id
                assert len(ids) <= tokenizer.model_max_length


@pytest.mark.parametrize("beside_a_model", [False, True])
def test_it_is_saved_and_loaded_like_any_other(tokenizer, tmp_path, beside_a_model):
    from transformers import AutoTokenizer, T5Config

    tokenizer.save_pretrained(tmp_path)
    if beside_a_model:
        T5Config(vocab_size=69, d_model=8, d_kv=4, d_ff=8, num_heads=2).save_pretrained(tmp_path)
    again = AutoTokenizer.from_pretrained(tmp_path)
    for text in ("queue", "o'neil's", "K Y UW"):
        assert dict(again(text)) == dict(tokenizer(text))
    assert again.decode(again("K Y UW")["input_ids"], skip_special_tokens=True) == "K Y UW"
    assert again.model_max_length == tokenizer.model_max_length
