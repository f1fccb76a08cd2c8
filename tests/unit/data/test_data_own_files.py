from __future__ import annotations

import csv
import json
from pathlib import Path

import datasets
import pyarrow
import pyarrow.parquet
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from eexit_cli.core.errors import UsageError
from eexit_cli.core.seed import stream
from eexit_cli.data import load_examples
from eexit_cli.data.own import split_positions
from eexit_cli.data.samples import Samples
from eexit_cli.data.tables import read_table

NAMES = ("negative", "positive")
ROWS = [
    {"text": 'a "quoted", fine film', "label": "positive"},
    {"text": "dull; and\u2028long", "label": "negative"},
    {"text": "não é bom", "label": "negative"},
]


def write(path: Path, rows: list[dict]) -> Path:
    if path.suffix == ".parquet":
        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), path)
    elif path.suffix in (".jsonl", ".json"):
        path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    elif path.suffix == ".tsv":
        lines = ["\t".join(rows[0]), *("\t".join(map(str, row.values())) for row in rows)]
        path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    else:
        with path.open("w", encoding="utf-8", newline="") as stream:
            writer = csv.DictWriter(stream, list(rows[0]))
            writer.writeheader()
            writer.writerows(rows)
    return path


@pytest.fixture
def load(make_config):
    def run(path: Path, *, names=NAMES, default_split="test", progress=None, **settings):
        config = make_config(data_file=path, **settings)
        return load_examples(
            config, default_split=default_split, label_names=names, progress=progress
        )

    return run


def failure(load, path: Path, **settings) -> tuple[str, str]:
    with pytest.raises(UsageError) as caught:
        load(path, **settings)
    assert "\n" not in caught.value.message + caught.value.hint
    return caught.value.message, caught.value.hint


@pytest.mark.parametrize("kind", ["csv", "tsv", "jsonl", "json", "parquet", "CSV"])
def test_every_format_gives_the_same_samples(load, tmp_path, kind):
    examples = load(
        write(tmp_path / f"reviews.{kind.lower()}", ROWS).rename(tmp_path / f"r.{kind}")
    )
    assert examples.dataset["text"][:] == [row["text"] for row in ROWS]
    assert examples.dataset["label"][:] == [1, 0, 0]
    assert len(set(examples.dataset["id"][:])) == 3
    assert examples.split == f"r.{kind}"
    assert examples.info.name == "r"
    assert examples.info.label_names == NAMES
    assert not examples.info.pair


def test_columns_are_chosen_by_name(load, tmp_path):
    rows = [{"q": "one?", "a": "1.", "y": 0}, {"q": "two?", "a": "2.", "y": 1}]
    path = write(tmp_path / "x.csv", rows)
    examples = load(path, text_column="q", text_pair_column="a", label_column="y")
    assert examples.info.pair
    assert examples.dataset["text_pair"][:] == ["1.", "2."]
    assert examples.dataset["label"][:] == [0, 1]


def test_byte_order_mark_spaces_and_blank_lines(load, tmp_path):
    path = tmp_path / "x.csv"
    path.write_bytes("\ufefftext, label\r\n\r\nfine,1\r\n\r\n".encode())
    examples = load(path)
    assert examples.dataset["label"][:] == [1]
    assert examples.dataset["id"][:] == ["x-3"]


def test_a_quote_in_tsv_is_a_character(load, tmp_path):
    path = tmp_path / "x.tsv"
    path.write_text('text\tlabel\n"odd\t1\nfine\t0\n')
    assert load(path).dataset["text"][:] == ['"odd', "fine"]


def test_a_regression_model_reads_values(load, tmp_path):
    path = write(tmp_path / "x.csv", [{"text": "a", "label": "0.5"}, {"text": "b", "label": "2"}])
    examples = load(path, names=("LABEL_0",))
    assert examples.dataset["label"][:] == [0.5, 2.0]
    assert examples.info.kind == "regression"
    assert examples.info.metrics == ("pearson", "spearman")


def test_classes_are_found_when_no_model_is_known(load, tmp_path):
    examples = load(write(tmp_path / "x.csv", ROWS), names=None)
    assert examples.info.label_names == NAMES
    assert examples.dataset["label"][:] == [1, 0, 0]


def test_a_task_describes_the_file(load, tmp_path):
    path = write(tmp_path / "x.csv", [{"text": "a", "label": "unacceptable"}])
    examples = load(path, task="CoLA", names=("LABEL_0", "LABEL_1"))
    assert examples.info.metrics == ("matthews_correlation",)
    assert examples.info.name == "cola"
    assert examples.dataset["label"][:] == [0]
    assert failure(load, path, task="mnli")[0].startswith("Task 'mnli' has two texts")
    message, _ = failure(load, path, task="mnli", text_pair_column="label")
    assert message == "Task 'mnli' has 3 outputs, the model 2"
    assert failure(load, path, task="colla")[1].startswith("Did you mean cola")


# What is wrong with a file: one line, with the row or the columns.


def test_the_file_is_missing(load, tmp_path):
    message, hint = failure(load, tmp_path / "none.csv")
    assert message == f"No data file at {tmp_path / 'none.csv'}"
    assert "--data-file" in hint


def test_a_folder_of_none_or_several_files(load, tmp_path):
    message, hint = failure(load, tmp_path)
    assert message == f"{tmp_path} is a folder with no data file"
    assert "--data-dir" in hint
    for name in ("train.tsv", "dev.tsv"):
        write(tmp_path / name, ROWS)
    assert failure(load, tmp_path)[0] == f"{tmp_path} is a folder with 2 data files"


def test_a_folder_with_one_file_is_that_file(load, tmp_path):
    folder = tmp_path / "reviews"
    folder.mkdir()
    write(folder / "x.jsonl", ROWS)
    (folder / "notes.md").write_text("where they are from")
    examples = load(folder)
    assert examples.dataset["text"][:] == [row["text"] for row in ROWS]
    assert examples.info.name == "reviews"


def test_a_saved_folder_gives_the_samples_of_its_file(load, tmp_path):
    folder = tmp_path / "saved"
    table = datasets.Dataset.from_list(ROWS)
    table.save_to_disk(folder)
    examples = load(folder)
    file = load(write(tmp_path / "saved.parquet", ROWS))
    assert examples.dataset.to_list() == file.dataset.to_list()
    # A row that ``select`` left out is in the Arrow file all the same.
    table.select([2, 0]).save_to_disk(tmp_path / "some")
    assert load(tmp_path / "some").dataset["label"][:] == [0, 1]
    message, _ = failure(load, folder, text_column="txt")
    assert message == "saved has no column 'txt' (--text-column)"


def test_a_saved_folder_that_is_broken_or_of_several_splits(load, tmp_path):
    table = datasets.Dataset.from_list(ROWS)
    both = tmp_path / "both"
    datasets.DatasetDict(train=table, test=table).save_to_disk(both)
    message, hint = failure(load, both)
    assert message == f"{both} is a folder of several splits"
    assert hint == "Name the folder of one of them"
    assert len(load(both / "train")) == len(ROWS)
    (arrow,) = (both / "train").glob("*.arrow")
    arrow.write_bytes(b"nothing")
    assert "is not a readable folder" in failure(load, both / "train")[0]
    (both / "train" / "state.json").write_text("{}")
    assert "is not a readable folder" in failure(load, both / "train")[0]


def test_unknown_extension(load, tmp_path):
    message, hint = failure(load, tmp_path / "x.jsnl")
    assert "'.jsnl'" in message
    assert hint == "Did you mean .jsonl or .json? Available: .csv, .tsv, .jsonl, .json, .parquet"


@pytest.mark.parametrize("kind", ["csv", "jsonl", "parquet"])
@pytest.mark.parametrize(
    ("option", "value"),
    [("text_column", "txt"), ("label_column", "lable"), ("text_pair_column", "second")],
)
def test_a_column_is_missing(load, tmp_path, kind, option, value):
    message, hint = failure(load, write(tmp_path / f"x.{kind}", ROWS), **{option: value})
    assert message == f"x.{kind} has no column '{value}' (--{option.replace('_', '-')})"
    assert hint.endswith("Columns: text, label")


@pytest.mark.parametrize(
    ("kind", "where"),
    [("csv", "line 4"), ("tsv", "line 4"), ("jsonl", "line 3"), ("parquet", "row 3")],
)
@pytest.mark.parametrize("text", ["", "  "])
def test_an_empty_text(load, tmp_path, kind, where, text):
    path = write(tmp_path / f"x.{kind}", [*ROWS[:2], {"text": text, "label": "positive"}])
    assert failure(load, path)[0] == f"x.{kind}, {where}: the text in column 'text' is empty"


def test_a_row_without_the_key_or_with_a_number(load, tmp_path):
    path = tmp_path / "x.jsonl"
    path.write_text('{"text": "a", "label": 1}\n{"label": 1}\n')
    assert failure(load, path)[0] == "x.jsonl, line 2: the text in column 'text' is empty"
    path.write_text('{"text": 7, "label": 1}\n')
    assert failure(load, path)[0] == "x.jsonl, line 1: column 'text' holds 7, not text"


def test_a_label_outside_the_classes_counts_lines_of_texts(load, tmp_path):
    rows = [{"text": "two\nlines", "label": "positive"}, {"text": "b", "label": "positve"}]
    message, hint = failure(load, write(tmp_path / "x.csv", rows))
    assert message == "x.csv, line 4: label 'positve' is outside the classes"
    assert hint == "Did you mean positive? Classes: negative, positive (or 0 to 1)"


@pytest.mark.parametrize("kind", ["csv", "tsv", "jsonl"])
def test_no_rows(load, tmp_path, kind):
    path = tmp_path / f"x.{kind}"
    path.write_text("")
    assert failure(load, path)[0] == f"x.{kind} has no rows"
    if kind != "jsonl":
        path.write_text("text,label\n")
        assert failure(load, path)[0] == f"x.{kind} has no rows"


def test_a_parquet_file_without_rows(load, tmp_path):
    path = tmp_path / "x.parquet"
    pyarrow.parquet.write_table(pyarrow.table({"text": pyarrow.array([], pyarrow.string())}), path)
    assert failure(load, path)[0] == "x.parquet has no rows"


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("x.csv", b"text,label\na,1,2\n", "x.csv, line 2: 3 fields where the header has 2"),
        ("x.tsv", b"text\tlabel\na\n", "x.tsv, line 2: 1 field where the header has 2"),
        ("x.csv", b'text,label\n"a,1\n', "x.csv, line 2: not a readable row"),
        ("x.csv", b"text,text\na,1\n", "x.csv has two columns 'text'"),
        ("x.csv", b"text,label\n\xff\xfe,1\n", "x.csv is not UTF-8 text"),
        ("x.jsonl", b"\x80\n", "x.jsonl is not UTF-8 text"),
        ("x.jsonl", b'{"text": "a"}\n{"text": \n', "x.jsonl, line 2: not JSON"),
        ("x.jsonl", b"[1]\n", "x.jsonl, line 1: not a JSON object"),
        ("x.parquet", b"PAR1 not really", "x.parquet is not a readable Parquet file"),
    ],
)
def test_damaged_files(load, tmp_path, name, content, message):
    path = tmp_path / name
    path.write_bytes(content)
    assert failure(load, path)[0].startswith(message)


def test_a_truncated_parquet_file(load, tmp_path):
    path = write(tmp_path / "x.parquet", ROWS)
    path.write_bytes(path.read_bytes()[:-20])
    assert "x.parquet" in failure(load, path)[0]


def test_an_unreadable_file(load, tmp_path, monkeypatch):
    path = write(tmp_path / "x.csv", ROWS)

    def refuse(self, *args, **kwargs):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "open", refuse)
    assert failure(load, path)[0] == f"Cannot read {path}: Permission denied"


def test_long_texts_are_read_whole(load, tmp_path):
    rows = [{"text": "word " * 100_000, "label": 1}]
    assert len(load(write(tmp_path / "x.csv", rows)).dataset["text"][0]) == 500_000


# Files that name their classes.


def class_labels(path: Path, names: list[str], ids: list[int | None]) -> Path:
    """A Parquet file, or a folder, of the ``datasets`` library with a ClassLabel column."""
    features = datasets.Features(
        {"text": datasets.Value("string"), "label": datasets.ClassLabel(names=names)}
    )
    columns = {"text": [f"text {n}" for n in range(len(ids))], "label": ids}
    table = datasets.Dataset.from_dict(columns, features=features)
    if path.suffix:
        table.to_parquet(str(path))
    else:
        table.save_to_disk(str(path))
    return path


@pytest.mark.parametrize("file", ["x.parquet", "folder"])
@pytest.mark.parametrize("names", [["negative", "positive"], ["positive", "negative"]])
def test_classes_that_a_file_names_are_matched_by_name(load, tmp_path, recorder, file, names):
    path = class_labels(tmp_path / file, names, [0, 1, 1])
    ours = [NAMES.index(names[index]) for index in (0, 1, 1)]
    assert load(path).dataset["label"][:] == ours
    assert load(path, names=("neg", "POS")).dataset["label"][:] == ours
    task = load(path, task="sst2", names=("positive", "negative"), progress=recorder)
    assert task.dataset["label"][:] == [1 - label for label in ours]
    assert recorder.messages == []
    # Training keeps the names in the file's order.
    trained = load(path, names=None)
    assert trained.info.label_names == tuple(names)
    assert trained.dataset["label"][:] == [0, 1, 1]


def test_a_files_classes_are_kept_where_no_row_has_them(load, tmp_path):
    path = class_labels(tmp_path / "x.parquet", ["b", "a", "never"], [0, 1])
    assert load(path, names=None).info.label_names == ("b", "a", "never")
    path = class_labels(tmp_path / "one.parquet", ["b"], [0])
    assert failure(load, path, names=None)[0] == "one.parquet has one label only ('b')"


def test_a_files_number_is_no_models_id(load, tmp_path, recorder):
    path = class_labels(tmp_path / "x.parquet", ["spam", "ham"], [0, 1])
    message, _ = failure(load, path)
    assert message == "x.parquet, 2 rows (1, 2): label 'spam' is outside the classes"
    stars = class_labels(tmp_path / "stars.parquet", ["1", "2"], [0, 0])
    assert failure(load, stars)[0].endswith("label '1' is outside the classes")
    assert "or 0 to" not in failure(load, stars)[1]
    # Numbers that only count are ids, and are said to be.
    plain = class_labels(tmp_path / "plain.parquet", ["0", "1"], [0, 1])
    assert load(plain, progress=recorder).dataset["label"][:] == [0, 1]
    assert recorder.messages == [
        "The labels of plain.parquet are numbers and taken as ids: 0 negative, 1 positive"
    ]


def test_a_model_without_names_gets_the_files_and_is_told(load, tmp_path, recorder):
    path = class_labels(tmp_path / "x.parquet", ["spam", "ham"], [1, 0])
    examples = load(path, names=("LABEL_0", "LABEL_1"), progress=recorder)
    assert examples.info.label_names == ("spam", "ham")
    assert examples.dataset["label"][:] == [1, 0]
    (line,) = recorder.messages
    assert "no names" in line
    assert "spam, ham" in line
    assert "--label-names" in line
    three = ("LABEL_0", "LABEL_1", "LABEL_2")
    assert failure(load, path, names=three)[0].startswith("x.parquet has 2 classes (spam, ham)")
    assert failure(load, path, names=("LABEL_0",))[0].startswith(
        "x.parquet has classes (spam, ham)"
    )


@pytest.mark.parametrize("file", ["x.parquet", "folder"])
def test_rows_marked_as_without_a_label_are_left_out_and_counted(load, tmp_path, recorder, file):
    path = class_labels(tmp_path / file, ["negative", "positive"], [-1, 1, 0, -1])
    for names in (NAMES, None):
        recorder.messages.clear()
        examples = load(path, names=names, progress=recorder)
        assert examples.info.label_names == NAMES
        assert examples.dataset["label"][:] == [1, 0]
        assert examples.dataset["text"][:] == ["text 1", "text 2"]
        assert recorder.messages == [f"{file}: 2 of 4 rows have no label (-1) and are left out"]


def test_a_file_whose_labels_are_all_hidden_has_none(load, tmp_path):
    path = class_labels(tmp_path / "x.parquet", ["negative", "positive"], [-1, -1])
    for names in (NAMES, None):
        examples = load(path, names=names)
        assert "label" not in examples.dataset.column_names
        assert len(examples) == 2
    # A null is a gap like any other.
    path = class_labels(tmp_path / "y.parquet", ["negative", "positive"], [0, None, 1])
    assert failure(load, path, names=None)[0] == "y.parquet, row 2: the label is empty"


def test_minus_one_is_a_class_where_the_file_names_none(load, tmp_path):
    path = write(tmp_path / "x.parquet", [{"text": "a", "label": -1}, {"text": "b", "label": 1}])
    assert load(path, names=None).info.label_names == ("-1", "1")


def test_dictionaries_and_categoricals_are_their_values(load, tmp_path):
    pandas = pytest.importorskip("pandas")
    values = ["positive", "negative", "positive"]
    texts = ["a", "b", "c"]
    column = pyarrow.array(values).dictionary_encode()
    pyarrow.parquet.write_table(
        pyarrow.table({"text": texts, "label": column}), tmp_path / "arrow.parquet"
    )
    order = ["positive", "neutral", "negative"]
    frame = pandas.DataFrame({"text": texts, "label": pandas.Categorical(values, order)})
    frame.to_parquet(tmp_path / "pandas.parquet")
    for name in ("arrow.parquet", "pandas.parquet"):
        assert load(tmp_path / name).dataset["label"][:] == [1, 0, 1]
    frame["label"] = pandas.Categorical.from_codes([0, -1, 2], order)
    frame.to_parquet(tmp_path / "gap.parquet")
    assert failure(load, tmp_path / "gap.parquet", names=None)[0] == (
        "gap.parquet, row 2: the label is empty"
    )


def test_a_tasks_ids_are_the_tasks_whatever_the_models_order(load, tmp_path, recorder):
    """GLUE's files and the hub's number MNLI's classes as the task does here."""
    rows = [{"a": f"p {n}", "b": "h", "label": n} for n in range(3)]
    path = write(tmp_path / "nli.csv", rows)
    names = ("contradiction", "entailment", "neutral")
    columns = {"text_column": "a", "text_pair_column": "b"}
    examples = load(path, task="mnli", names=names, progress=recorder, **columns)
    task = ("entailment", "neutral", "contradiction")
    assert [names[label] for label in examples.dataset["label"]] == list(task)
    assert recorder.messages == [
        "The labels of nli.csv are numbers and taken as the ids of 'mnli': 0 entailment, "
        "1 neutral, 2 contradiction"
    ]
    # Without a task nobody says so: they are the model's, and that is said.
    recorder.messages.clear()
    examples = load(path, names=names, progress=recorder, **columns)
    assert examples.dataset["label"][:] == [0, 1, 2]
    assert recorder.messages[0].endswith("taken as ids: 0 contradiction, 1 entailment, 2 neutral")


def test_names_for_a_model_without_any_are_asked_for(load, tmp_path):
    path = write(tmp_path / "x.csv", ROWS)
    message, hint = failure(load, path, names=("LABEL_0", "LABEL_1"))
    assert "label 'positive' is outside the classes" in message
    assert "--label-names" in hint


# Training on a file of one's own.


@pytest.fixture
def many(tmp_path) -> Path:
    rows = [{"text": f"sentence {n % 150}", "label": n % 2} for n in range(200)]
    return write(tmp_path / "many.csv", rows)


def test_train_and_validation_part_the_file(load, many):
    parts = {
        split: load(many, split=split).dataset["id"][:] for split in ("train", "validation", "test")
    }
    assert sorted(parts["train"] + parts["validation"]) == sorted(parts["test"])
    assert 0.05 < len(parts["validation"]) / len(parts["test"]) < 0.15
    assert load(many, default_split="train").split == "train"
    assert load(many, split="dev").split == "validation"


def test_equal_texts_fall_on_one_side_and_the_seed_decides(load, many):
    texts = {split: set(load(many, split=split).dataset["text"][:]) for split in ("train", "dev")}
    assert not texts["train"] & texts["dev"]
    assert len(texts["dev"]) == 15
    again = set(load(many, split="dev").dataset["text"][:])
    other = set(load(many, split="dev", seed=1).dataset["text"][:])
    assert again == texts["dev"] != other


def sides(load, path: Path, **settings) -> list[set[str]]:
    parts = [load(path, split=split, **settings) for split in ("train", "validation")]
    return [set(part.dataset["id"]) for part in parts]


@pytest.mark.parametrize("seed", range(3))
def test_an_original_and_what_was_made_from_it_fall_on_one_side(load, tmp_path, seed):
    rows = [
        {"text": text, "label": n % 2, "original_text": f"original {n}"}
        for n in range(100)
        for text in (f"original {n}", f"attacked {n}", f"attacked again {n}")
    ]
    stream(seed, "rows").shuffle(rows)
    # A plain sample of the same text, from a file that knew of no attack.
    rows.append({"text": "original 7", "label": 1, "original_text": None})
    parts = sides(load, write(tmp_path / "x.jsonl", rows), seed=seed)
    originals = [
        {rows[int(name.removeprefix("x-")) - 1]["original_text"] or "original 7" for name in part}
        for part in parts
    ]
    assert not originals[0] & originals[1]
    assert [len(part) for part in originals] == [90, 10]
    assert sum(map(len, parts)) == len(rows)


def test_equal_attacked_texts_tie_their_originals_together(load, tmp_path):
    """Two originals a word apart, attacked there: any two of these rows are twins."""
    texts = [("a fine film", "a fine film"), ("a X film", "a fine film")]
    texts += [("a X film", "a good film"), ("a good film", "a good film")]
    rows = [{"text": text, "label": 0, "original_text": original} for text, original in texts]
    rows += [{"text": f"other {n}", "label": 1, "original_text": f"other {n}"} for n in range(3)]
    path = write(tmp_path / "x.csv", rows)
    twins = {"x-2", "x-3", "x-4", "x-5"}
    held_out = 0
    for seed in range(20):
        train, validation = sides(load, path, seed=seed)
        assert twins <= train or twins <= validation
        held_out += twins <= validation
    assert 0 < held_out < 20


def test_pairs_are_made_from_pairs(load, tmp_path):
    rows = [
        {
            "text": f"premise {n // 2}",
            "text_pair": second,
            "label": n % 2,
            "original_text": f"premise {n // 2}",
            "original_text_pair": f"hypothesis {n}",
        }
        for n in range(40)
        for second in (f"hypothesis {n}", f"hypothesys {n}")
    ]
    path = write(tmp_path / "x.jsonl", rows)
    train, validation = sides(load, path, text_pair_column="text_pair")
    assert len(validation) == 2 * 4
    for part in (train, validation):
        numbers = {int(name.removeprefix("x-")) - 1 for name in part}
        assert {number ^ 1 for number in numbers} == numbers


@given(st.lists(st.text(max_size=3), min_size=2, max_size=30), st.integers(0, 5))
def test_a_sample_made_from_itself_is_parted_as_ever(texts, seed):
    assume(len(set(texts)) > 1)
    samples = Samples(ids=list(map(str, range(len(texts)))), texts=texts, pairs=None, labels=None)
    path = Path("x.csv")
    plain = split_positions(samples, "validation", seed, path)
    own = [(text, "") for text in texts]
    assert split_positions(samples, "validation", seed, path, origins=own) == plain


def test_one_text_cannot_be_parted(load, tmp_path):
    path = write(tmp_path / "x.csv", ROWS[:1])
    assert "too few different texts" in failure(load, path, split="train")[0]
    assert len(load(path)) == 1


def test_an_unknown_split(load, many):
    message, hint = failure(load, many, split="trian")
    assert message == "A data file has no split 'trian'"
    assert hint.startswith("Did you mean train?")


cell = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=20)


@settings(max_examples=50)
@given(st.lists(st.tuples(cell, cell), min_size=1, max_size=5))
def test_csv_survives_the_round_trip(tmp_path_factory, rows):
    path = tmp_path_factory.mktemp("csv") / "x.csv"
    write(path, [{"text": f"x{text}", "label": label} for text, label in rows])
    table = read_table(path)
    assert table.columns == {
        "text": [f"x{text}" for text, _ in rows],
        "label": [label for _, label in rows],
    }
