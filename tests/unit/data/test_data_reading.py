"""Delimiters, encodings and faulty rows of a user's own file."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from eexit_cli.config.train import TrainConfig
from eexit_cli.core.errors import UsageError
from eexit_cli.core.progress import SilentProgress
from eexit_cli.data import load_examples
from eexit_cli.data.reading import Reading, found_delimiter
from eexit_cli.data.tables import read_table

ROWS = [("a; b, fine film", "good"), ("dull\tand | long", "bad"), ("çafé não é bom", "bad")]


class Told(SilentProgress):
    def __init__(self) -> None:
        self.lines: list[str] = []

    def message(self, text: str) -> None:
        self.lines.append(text)


def written(path: Path, rows, *, delimiter=",", encoding="utf-8") -> Path:
    with path.open("w", newline="", encoding=encoding) as stream:
        writer = csv.writer(stream, delimiter=delimiter)
        writer.writerow(("text", "label"))
        writer.writerows(rows)
    return path


@pytest.fixture
def load():
    def run(path: Path, *, progress=None, names=None, default_split="test", **options):
        config = TrainConfig(data_file=path, **options)
        return load_examples(
            config, default_split=default_split, label_names=names, progress=progress
        )

    return run


def refused(load, path: Path, **options) -> tuple[str, str]:
    with pytest.raises(UsageError) as caught:
        load(path, **options)
    return caught.value.message, str(caught.value.hint)


@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
def test_the_delimiter_is_found_and_said(load, tmp_path, delimiter) -> None:
    told = Told()
    examples = load(written(tmp_path / "x.csv", ROWS, delimiter=delimiter), progress=told)
    assert list(examples.dataset["text"]) == [text for text, _ in ROWS]
    assert bool(told.lines) == (delimiter != ",")


@given(
    rows=st.lists(
        st.lists(st.text("ab ,;|\t\"'\n", max_size=8), min_size=3, max_size=3),
        min_size=3,
        max_size=12,
    ),
    delimiter=st.sampled_from(",;\t|"),
)
@settings(max_examples=150, deadline=None)
def test_what_is_found_reads_back_what_was_written(rows, delimiter, tmp_path_factory) -> None:
    """Whatever signs the texts hold; the header, of plain words, decides first."""
    path = tmp_path_factory.mktemp("csv") / "x.csv"
    text = io.StringIO()
    csv.writer(text, delimiter=delimiter).writerows([("one", "two", "three"), *rows])
    path.write_text(text.getvalue(), encoding="utf-8", newline="")
    assert found_delimiter(path, "utf-8") == delimiter


def test_a_header_with_two_signs_is_settled_by_the_rows(tmp_path) -> None:
    path = tmp_path / "x.csv"
    path.write_text("text|en,label\nfine,good\nbad,bad\n", encoding="utf-8")
    assert found_delimiter(path, "utf-8") == ","
    path.write_text("text|en,label\nfine|a,good\nbad|b,bad\n", encoding="utf-8")
    with pytest.raises(UsageError, match=r"',' and '\|' part its rows equally well"):
        found_delimiter(path, "utf-8")
    assert list(read_table(path, Reading(delimiter="|")).columns) == ["text", "en,label"]


@pytest.mark.parametrize(("given", "sign"), [("tab", "\t"), ("\\t", "\t"), (";", ";"), ("^", "^")])
def test_a_given_delimiter_is_taken(load, tmp_path, given, sign) -> None:
    told = Told()
    path = written(tmp_path / "x.csv", ROWS, delimiter=sign)
    examples = load(path, delimiter=given, progress=told)
    assert list(examples.dataset["text"]) == [text for text, _ in ROWS]
    assert told.lines == []


def test_options_that_mean_nothing_are_refused(load, tmp_path) -> None:
    path = written(tmp_path / "x.csv", ROWS)
    assert "parts no fields" in refused(load, path, delimiter="ab")[0]
    assert "no encoding 'utf-99'" in refused(load, path, encoding="utf-99")[0]
    assert "no encoding 'base64'" in refused(load, path, encoding="base64")[0]
    lines = tmp_path / "x.jsonl"
    lines.write_text('{"text": "a", "label": "b"}\n', encoding="utf-8")
    assert "--delimiter does not go with a .jsonl" in refused(load, lines, delimiter=";")[0]
    table = tmp_path / "x.parquet"
    table.write_bytes(b"")
    assert "--encoding does not go with a .parquet" in refused(load, table, encoding="cp1252")[0]


@pytest.mark.parametrize("kind", ["csv", "jsonl"])
@pytest.mark.parametrize("encoding", ["cp1252", "utf-16", "utf-32", "utf-8-sig"])
def test_encodings(load, tmp_path, kind, encoding) -> None:
    path = tmp_path / f"x.{kind}"
    if kind == "csv":
        written(path, ROWS, encoding=encoding)
    else:
        lines = (json.dumps({"text": t, "label": y}, ensure_ascii=False) for t, y in ROWS)
        path.write_text("\n".join(lines), encoding=encoding)
    given = {"encoding": encoding} if encoding == "cp1252" else {}
    assert list(load(path, **given).dataset["text"]) == [text for text, _ in ROWS]
    if given:
        message, hint = refused(load, path)
        assert "is not UTF-8 text (line" in message
        assert "--encoding cp1252 if '" in hint
        assert "çafé' is what stands there" in hint
        assert "is no ascii text" in refused(load, path, encoding="ascii")[0]


FAULTY = 'text,label\nfine,good\nonly one\n,bad\nno label,\nNA label,NA\n"a"b,bad\ndull,bad\n'


def test_all_faulty_rows_are_counted_and_five_shown(load, tmp_path) -> None:
    path = tmp_path / "x.csv"
    path.write_text(FAULTY + "one more\n", encoding="utf-8")
    message, hint = refused(load, path)
    assert message.startswith("x.csv, 6 of 8 rows are at fault: line 3 (1 field where the header")
    for line in range(3, 8):
        assert f"line {line} (" in message
    assert message.endswith(", ...")
    assert "--skip-faulty-rows" in hint


def test_faulty_rows_are_left_out_with_a_count_where_asked(load, tmp_path) -> None:
    path, told = tmp_path / "x.csv", Told()
    path.write_text(FAULTY, encoding="utf-8")
    examples = load(path, skip_faulty_rows=True, progress=told)
    assert list(examples.dataset["text"]) == ["fine", "dull"]
    assert any("5 of 7 rows" in line for line in told.lines)


def test_a_class_may_be_called_NA(load, tmp_path) -> None:  # noqa: N802
    path = tmp_path / "x.csv"
    path.write_text("text,label\nfine,NA\ndull,bad\n", encoding="utf-8")
    assert list(load(path, names=("bad", "NA")).dataset["label"]) == [1, 0]
    assert "line 2: the label is missing: 'NA'" in refused(load, path)[0]


def test_nothing_is_left(load, tmp_path) -> None:
    path = tmp_path / "x.csv"
    path.write_text("text,label\n,good\n,bad\n", encoding="utf-8")
    message, hint = refused(load, path, skip_faulty_rows=True)
    assert message.endswith("none is left")
    assert "--skip" not in hint
    assert "--skip" not in refused(load, path)[1]


@pytest.mark.parametrize(
    "tail",
    [
        '"never closed,good\nfine,good\n',
        '"opened\nand closed" wrongly,good\nfine,good\n',
    ],
)
def test_a_quote_that_swallows_rows_is_never_skipped(load, tmp_path, tail) -> None:
    """Nobody knows how many rows it swallowed, so that no count would be true."""
    path = tmp_path / "x.csv"
    path.write_text(f"text,label\ndull,bad\n{tail}", encoding="utf-8")
    message, hint = refused(load, path, skip_faulty_rows=True, delimiter=",")
    assert message.startswith("x.csv, line 3: not a readable row")
    assert "quotes" in hint


def test_unknown_labels_are_no_faults(load, tmp_path) -> None:
    """They are about the classes: left out in silence, a whole class would be gone."""
    path = written(tmp_path / "x.csv", [("a", "good"), ("b", "bad"), ("c", "neutral")])
    message, _ = refused(load, path, names=("bad", "good"), skip_faulty_rows=True)
    assert "'neutral' is outside the classes" in message


def test_pairs_of_texts_too(load, tmp_path) -> None:
    path, told = tmp_path / "x.csv", Told()
    path.write_text("source;target\na;b\n;c\nd;\ne;f\n", encoding="utf-8")
    config = TrainConfig(data_file=path, skip_faulty_rows=True)
    examples = load_examples(config, default_split="test", generates=True, progress=told)
    assert list(examples.dataset["source"]) == ["a", "e"]
    assert any("2 of 4 rows" in line for line in told.lines)


# What labels are -------------------------------------------------------------------------------


def test_label_kind_says_what_numbers_are(load, tmp_path) -> None:
    path = written(tmp_path / "x.csv", [(f"text {n}", n % 5) for n in range(20)])
    assert load(path).info.kind == "classification"
    assert load(path, label_kind="number").info.kind == "regression"
    stars = written(tmp_path / "y.csv", [(f"text {n}", n % 5 / 2) for n in range(20)])
    assert load(stars).info.kind == "regression"
    found = load(stars, label_kind="class")
    assert found.info.label_names == ("0", "0.5", "1", "1.5", "2")
    assert list(found.dataset["label"])[:5] == [0, 1, 2, 3, 4]


def test_real_numbers_are_no_thousand_classes(load, tmp_path) -> None:
    path = written(tmp_path / "x.csv", [(f"text {n}", 37 * n) for n in range(90)])
    message, hint = refused(load, path)
    assert message.startswith("x.csv has 90 different labels in 90 rows (0, 37, 74, ...)")
    assert "--label-kind number" in hint
    commas = written(tmp_path / "y.csv", [(f"text {n}", f"{n},5") for n in range(90)])
    assert refused(load, commas)[1] == "Write decimals with a point"
    names = written(tmp_path / "z.csv", [(f"text {n}", f"id{n}") for n in range(90)])
    assert "--label-column" in refused(load, names)[1]
    few = written(tmp_path / "w.csv", [(f"text {n}", n // 3) for n in range(120)])
    assert load(few).info.num_labels == 40
