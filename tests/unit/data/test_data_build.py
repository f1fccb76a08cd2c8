"""The build on a small archive in the source's layout."""

from __future__ import annotations

import io
import json
import tarfile
from pathlib import Path

import pytest
from build_movie_reviews import (
    SOURCES,
    Sentence,
    build,
    one_per_group,
    parse,
    split,
    without_duplicates,
)

from eexit_cli.core.errors import MissingArtifactError, UsageError

SUBJECTS = ("film", "plot", "cast", "score", "script", "camera", "hero", "villain", "set", "pace")
VERDICTS = (
    "shines",
    "drags",
    "wins",
    "fails",
    "charms",
    "bores",
    "soars",
    "sinks",
    "glows",
    "rots",
)


def sentence(number: int, text: str, label: str = "positive") -> Sentence:
    return Sentence(f"t-{number}", text, label, 1.0 if label == "positive" else -1.0)


def corpus() -> list[Sentence]:
    found = []
    for subject in SUBJECTS:
        for verdict in VERDICTS:
            label = "positive" if len(found) % 4 else "negative"
            found.append(sentence(len(found), f"{subject} {verdict}", label))
    return found


def archive(path: Path, lines: str, *, skip: str = "") -> Path:
    def add(tar: tarfile.TarFile, name: str, content: bytes) -> None:
        entry = tarfile.TarInfo(name)
        entry.size = len(content)
        tar.addfile(entry, io.BytesIO(content))

    inner = io.BytesIO()
    with tarfile.open(fileobj=inner, mode="w:gz") as tar:
        for source in SOURCES.values():
            if source != skip:
                add(tar, f"hutto_ICWSM_2014/{source}", lines.encode("utf-8"))
    with tarfile.open(path, "w:gz") as tar:
        add(tar, "vaderSentiment-3.3.2/LICENSE.txt", b"The MIT License (MIT)\n")
        add(
            tar,
            "vaderSentiment-3.3.2/additional_resources/hutto_ICWSM_2014.tar.gz",
            inner.getvalue(),
        )
    return path


def test_parse_keeps_clear_ratings_and_cleans_the_text():
    raw = "1\t-0.5\tToo ''big''  &amp; loud\r\n2\t0.49\tneutral\r\n3\t3.12345\tLovely\r\n\r\n"
    assert parse(raw, "movie") == [
        Sentence("movie-1", 'Too "big" & loud', "negative", -0.5),
        Sentence("movie-3", "Lovely", "positive", 3.123),
    ]


def test_copies_are_dropped_and_contradictions_altogether():
    kept = without_duplicates(
        [
            sentence(1, "A mess."),
            sentence(2, "a mess"),
            sentence(3, "odd one", "positive"),
            sentence(4, "Odd one!", "negative"),
            sentence(5, "..."),
        ]
    )
    assert [found.id for found in kept] == ["t-1"]


def test_one_per_group_keeps_the_first():
    kept = one_per_group(
        [sentence(1, "so very good"), sentence(2, "fine"), sentence(3, "So very, very good")]
    )
    assert [found.id for found in kept] == ["t-1", "t-2"]


def test_split_is_a_partition_with_the_classes_shares():
    found = split(corpus(), {"test": 20, "validation": 12})
    assert {name: len(part) for name, part in found.items()} == {
        "train": 68,
        "test": 20,
        "validation": 12,
    }
    assert sorted(s.id for part in found.values() for s in part) == sorted(s.id for s in corpus())
    for name, negatives in (("train", 17), ("test", 5), ("validation", 3)):
        assert sum(s.label == "negative" for s in found[name]) == negatives


def test_split_does_not_depend_on_the_order_of_the_source():
    def ids(sentences: list[Sentence]) -> dict[str, list[str]]:
        return {name: [s.id for s in part] for name, part in split(sentences, {"test": 20}).items()}

    assert ids(corpus()) == ids(corpus()[::-1])


def test_split_keeps_near_duplicates_together():
    twins = [
        sentence(1000, "it was one of the best films"),
        sentence(1001, "truly it was one of the best films of all"),
    ]
    found = split([*corpus(), *twins], {"test": 50})
    sides = [name for name, part in found.items() for s in part if s in twins]
    assert len(sides) == 2
    assert len(set(sides)) == 1


def test_build_writes_every_set_twice_alike(tmp_path):
    lines = "".join(f"{s.id}\t{s.score}\t{s.text}\r\n" for s in corpus())
    source = archive(tmp_path / "sdist.tar.gz", lines)
    counts = build(source, tmp_path / "one")
    build(source, tmp_path / "two")
    files = sorted(path.relative_to(tmp_path / "one") for path in (tmp_path / "one").rglob("*.*"))
    assert [str(path) for path in files] == [
        "amazon-reviews/test.jsonl",
        "editorials/test.jsonl",
        "movie-reviews/test.jsonl",
        "movie-reviews/train.jsonl",
        "movie-reviews/validation.jsonl",
        "tweets/test.jsonl",
    ]
    for path in files:
        content = (tmp_path / "one" / path).read_text(encoding="utf-8")
        assert content == (tmp_path / "two" / path).read_text(encoding="utf-8")
    first = json.loads((tmp_path / "one/tweets/test.jsonl").read_text().splitlines()[0])
    assert first == {"id": "tweets-t-0", "text": "film shines", "label": "negative", "score": -1.0}
    assert counts["tweets"]["test"].total() == 100
    assert (tmp_path / "one/tweets/LICENSE").read_text() == "The MIT License (MIT)\n"


def test_a_missing_archive_names_the_download(tmp_path):
    with pytest.raises(MissingArtifactError) as caught:
        build(tmp_path / "none.tar.gz", tmp_path)
    assert "pip download" in caught.value.hint


@pytest.mark.parametrize("kind", ["text", "incomplete"])
def test_a_wrong_archive_is_one_line(tmp_path, kind):
    path = tmp_path / "wrong.tar.gz"
    if kind == "text":
        path.write_text("not an archive")
    else:
        archive(path, "", skip=SOURCES["tweets"])
    with pytest.raises(UsageError, match="is not the source archive of vaderSentiment"):
        build(path, tmp_path / "out")
    assert not (tmp_path / "out").exists()
