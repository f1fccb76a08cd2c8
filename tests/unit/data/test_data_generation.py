"""Text pairs of one's own; what a task asks for and what a model can do."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest

from eexit_cli.core.errors import UsageError
from eexit_cli.data import TASKS, load_examples, task_info

ROWS = [
    {"source": 'A long "text", with a comma', "target": "short"},
    {"source": "Über uns", "target": "about us"},
    {"source": "third", "target": "3"},
]


def write(path: Path, rows: list[dict]) -> Path:
    kind = path.suffix
    if kind in (".jsonl", ".json"):
        path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    elif kind == ".parquet":
        import pyarrow as pa
        import pyarrow.parquet

        pyarrow.parquet.write_table(pa.Table.from_pylist(rows), path)
    elif kind == ".tsv":
        lines = ["\t".join(rows[0]), *("\t".join(row.values()) for row in rows)]
        path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    else:
        with path.open("w", newline="", encoding="utf-8") as stream:
            writer = csv.DictWriter(stream, fieldnames=list(rows[0]))
            writer.writeheader()
            writer.writerows(rows)
    return path


@pytest.fixture
def load(make_config, recorder):
    def run(path=None, *, default_split="test", **settings):
        config = make_config(data_file=path, **settings)
        return load_examples(config, default_split=default_split, generates=True, progress=recorder)

    return run


def failure(load, *arguments, **settings) -> tuple[str, str]:
    with pytest.raises(UsageError) as caught:
        load(*arguments, **settings)
    assert "\n" not in caught.value.message
    return caught.value.message, caught.value.hint or ""


@pytest.mark.parametrize("kind", ["csv", "tsv", "jsonl", "json", "parquet"])
def test_every_kind_of_file(load, tmp_path, kind):
    examples = load(write(tmp_path / f"mine.{kind}", ROWS))
    assert examples.dataset["source"][:] == [row["source"] for row in ROWS]
    assert examples.dataset["target"][:] == [row["target"] for row in ROWS]
    assert examples.dataset.column_names == ["id", "source", "target"]
    assert (examples.info.name, examples.info.kind) == ("mine", "generation")
    assert examples.split == f"mine.{kind}"
    assert len(set(examples.dataset["id"])) == examples.total == 3


def test_columns_of_other_names(load, tmp_path):
    rows = [{"article": row["source"], "summary": row["target"]} for row in ROWS]
    path = write(tmp_path / "x.jsonl", rows)
    examples = load(path, source_column="article", target_column="summary")
    assert examples.dataset["target"][1] == "about us"
    message, hint = failure(load, path, source_column="artcle", target_column="summary")
    assert message == "x.jsonl has no column 'artcle' (--source-column)"
    assert hint == "Did you mean article? Columns: article, summary"
    assert "'target' (--target-column)" in failure(load, path, source_column="article")[0]


@pytest.mark.parametrize("column", ["source", "target"])
@pytest.mark.parametrize("empty", ["", "  ", None])
@pytest.mark.parametrize(("kind", "where"), [("jsonl", "line 2"), ("parquet", "row 2")])
def test_an_empty_text_names_its_row(load, tmp_path, column, empty, kind, where):
    rows = [ROWS[0], {**ROWS[1], column: empty}, ROWS[2]]
    message, _ = failure(load, write(tmp_path / f"x.{kind}", rows))
    assert message == f"x.{kind}, {where}: the text in column '{column}' is empty"


def test_an_empty_source_in_a_csv_counts_the_header(load, tmp_path):
    path = write(tmp_path / "x.csv", [ROWS[0], {"source": "", "target": "b"}])
    assert failure(load, path)[0] == "x.csv, line 3: the text in column 'source' is empty"


def test_a_number_is_no_text(load, tmp_path):
    path = write(tmp_path / "x.jsonl", [{"source": 3, "target": "three"}])
    message, hint = failure(load, path)
    assert message == "x.jsonl, line 1: column 'source' holds 3, not text"
    assert "--source-column" in hint


def test_train_and_validation_part_the_sources(load, tmp_path):
    rows = [{"source": f"text {n % 60}", "target": str(n)} for n in range(90)]
    path = write(tmp_path / "many.jsonl", rows)
    parts = {split: load(path, split=split).dataset for split in ("train", "dev", "test")}
    assert sorted([*parts["train"]["id"], *parts["dev"]["id"]]) == sorted(parts["test"]["id"])
    assert not set(parts["train"]["source"]) & set(parts["dev"]["source"])
    assert len(set(parts["dev"]["source"])) == 6
    target = dict(zip(parts["test"]["id"], parts["test"]["target"], strict=True))
    for part in parts.values():
        assert all(target[row["id"]] == row["target"] for row in part)
    message, hint = failure(load, path, split="tets")
    assert message == "A data file has no split 'tets'"
    assert hint.startswith("Did you mean test?")


def test_a_limit_is_a_prefix_of_a_larger_one(load, tmp_path):
    rows = [{"source": f"text {n}", "target": str(n)} for n in range(50)]
    path = write(tmp_path / "many.jsonl", rows)
    ten, twenty = (load(path, limit=limit).dataset["id"][:] for limit in (10, 20))
    assert ten == twenty[:10]
    assert load(path, limit=0).dataset["source"][:] == [row["source"] for row in rows]


def test_prefixes(load, tmp_path):
    path = write(tmp_path / "x.jsonl", ROWS)

    def sources(**settings) -> tuple[list[str], str]:
        examples = load(path, **settings)
        prefix = examples.info.extra["source_prefix"]
        assert all(source.startswith(prefix) for source in examples.dataset["source"])
        return [source.removeprefix(prefix) for source in examples.dataset["source"]], prefix

    plain = [row["source"] for row in ROWS]
    assert sources() == (plain, "")
    assert sources(source_prefix="read: ") == (plain, "read: ")
    assert sources(task="cnn_dailymail") == (plain, "summarize: ")
    assert sources(task="cnn_dailymail", source_prefix="") == (plain, "")


def test_a_task_says_which_metrics_and_that_the_file_holds_pairs(make_config, tmp_path):
    config = make_config(data_file=write(tmp_path / "x.csv", ROWS), task="wmt16-de-en")
    examples = load_examples(config, default_split="test")
    assert examples.info.metrics == ("bleu",)
    assert examples.dataset["source"][2] == "translate German to English: third"


@pytest.mark.parametrize("task", [n for n in TASKS if task_info(n).kind != "generation"])
def test_a_model_that_writes_needs_a_task_of_pairs(load, tmp_path, task):
    for path in (None, write(tmp_path / "x.jsonl", ROWS)):
        message, hint = failure(load, path, task=task)
        assert message == f"Task '{task}' is {task_info(task).kind}; the model writes text"
        assert "--task" in hint


@pytest.mark.parametrize("names", [["negative", "positive"], ["score"], []])
@pytest.mark.parametrize("own", [False, True])
def test_a_classifier_needs_another_task(make_config, tmp_path, names, own):
    path = write(tmp_path / "x.jsonl", ROWS) if own else None
    config = make_config(task="pronunciation", data_file=path)
    with pytest.raises(UsageError, match="needs a model that writes text, this one classifies"):
        load_examples(config, default_split="test", label_names=names)


def test_a_prefix_says_nothing_about_classes(make_config):
    config = make_config(task="movie-reviews", source_prefix="x: ")
    with pytest.raises(UsageError, match="--source-prefix does not go with"):
        load_examples(config, default_split="test")
