"""Invariants of the committed files; nothing is rebuilt."""

from __future__ import annotations

import json
import re
from itertools import combinations

import pytest
from build_movie_reviews import NEUTRAL, SOURCES
from near_duplicates import group, normalise

from eexit_cli.core.errors import MissingArtifactError, UsageError
from eexit_cli.core.progress import SilentProgress
from eexit_cli.data import TASKS, load_examples
from eexit_cli.data.bundled import ASSETS, MOVIE_REVIEWS, BundledTask

BUNDLED = sorted(SOURCES)


def rows(name: str, split: str) -> list[dict]:
    with (ASSETS / name / f"{split}.jsonl").open(encoding="utf-8") as stream:
        return [json.loads(line) for line in stream]


@pytest.fixture(scope="module")
def movie() -> dict[str, list[dict]]:
    return {split: rows("movie-reviews", split) for split in MOVIE_REVIEWS.splits}


def test_movie_reviews_has_the_announced_sizes(movie):
    assert {split: len(found) for split, found in movie.items()} == {
        "train": 8070,
        "validation": 900,
        "test": 1100,
    }


def test_no_text_stands_in_two_splits(movie):
    texts = {split: {normalise(row["text"]) for row in found} for split, found in movie.items()}
    for one, other in combinations(texts, 2):
        assert not texts[one] & texts[other]
    assert sum(map(len, texts.values())) == sum(map(len, movie.values()))


def test_no_group_of_near_duplicates_spans_two_splits(movie):
    labelled = [(row["text"], split) for split, found in movie.items() for row in found]
    places: dict[int, set[str]] = {}
    for root, (_, split) in zip(group([text for text, _ in labelled]), labelled, strict=True):
        places.setdefault(root, set()).add(split)
    assert all(len(splits) == 1 for splits in places.values())
    # The check is not empty: there are groups of several sentences.
    assert len(places) < len(labelled)


def test_classes_have_the_same_share_in_every_split(movie):
    shares = [
        sum(row["label"] == "positive" for row in found) / len(found) for found in movie.values()
    ]
    assert max(shares) - min(shares) < 0.005


@pytest.mark.parametrize("name", BUNDLED)
def test_rows_are_valid(name):
    task = TASKS.load(name)
    ids = set()
    for split in task.splits:
        for row in rows(name, split):
            assert row["label"] == ("positive" if row["score"] > 0 else "negative")
            assert NEUTRAL <= abs(row["score"]) <= 4
            assert row["text"] == " ".join(row["text"].split())
            assert normalise(row["text"])
            assert "&amp;" not in row["text"]
            assert row["id"] not in ids
            ids.add(row["id"])


@pytest.mark.parametrize("name", BUNDLED)
def test_the_card_counts_what_is_there(name):
    card = (ASSETS / name / "README.md").read_text(encoding="utf-8")
    for split in TASKS.load(name).splits:
        found = rows(name, split)
        positive = sum(row["label"] == "positive" for row in found)
        line = f"| {split} | {len(found):,} | {len(found) - positive:,} | {positive:,} |"
        assert line in card
    assert "Hutto and Gilbert" in card or "Hutto, C.J." in card
    licence = (ASSETS / name / "LICENSE").read_text(encoding="utf-8")
    assert re.search(r"MIT License.*C\.J\. Hutto", licence, re.DOTALL)


def test_the_files_stay_small():
    assert sum(file.stat().st_size for file in ASSETS.rglob("*.jsonl")) < 4_000_000


def test_load_gives_ids_in_the_order_of_the_label_names(make_config):
    examples = load_examples(make_config(task="movie-reviews"), default_split="test")
    raw = rows("movie-reviews", "test")
    assert examples.info.label_names == ("negative", "positive")
    assert examples.total == len(examples) == 1100
    assert examples.dataset["id"][:] == [row["id"] for row in raw]
    assert examples.dataset["label"][:] == [int(row["label"] == "positive") for row in raw]


def test_data_dir_is_refused(make_config, tmp_path):
    config = make_config(task="movie-reviews", data_dir=tmp_path)
    with pytest.raises(UsageError, match="takes no --data-dir"):
        load_examples(config, default_split="test")


def test_a_broken_installation_is_named():
    task = BundledTask(MOVIE_REVIEWS.info, ("extra",))
    with pytest.raises(MissingArtifactError, match=r"extra\.jsonl is not there") as caught:
        task.read("extra", data_dir=None, progress=SilentProgress())
    assert "Reinstall" in caught.value.hint
