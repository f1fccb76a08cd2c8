"""All nine tasks in the layouts of GLUE's original download, quotes and oddities included."""

from __future__ import annotations

from pathlib import Path

import pytest

from eexit_cli.core.errors import MissingArtifactError, UsageError
from eexit_cli.data import load_examples

# task -> folder, file of the training split, its lines, expected (text, text_pair, label).
LAYOUTS: dict[str, tuple[str, list[str], list[tuple[str, str | None, int | float]]]] = {
    "cola": (
        "CoLA/train.tsv",
        ["gj04\t1\t\tOur friends won't buy this.", 'gj04\t0\t*\tThey "drank the pub.'],
        [("Our friends won't buy this.", None, 1), ('They "drank the pub.', None, 0)],
    ),
    "sst2": (
        "SST-2/train.tsv",
        ["sentence\tlabel", '"a smile \t1', "no wit , only labored gags \t0"],
        [('"a smile ', None, 1), ("no wit , only labored gags ", None, 0)],
    ),
    "mrpc": (
        "MRPC/train.tsv",
        [
            "\ufeffQuality\t#1 ID\t#2 ID\t#1 String\t#2 String",
            '1\t7\t8\tHe said "no .\tHe refused .',
            "0\t9\t10\tA rose .\tB fell .",
        ],
        [('He said "no .', "He refused .", 1), ("A rose .", "B fell .", 0)],
    ),
    "qqp": (
        "QQP/train.tsv",
        [
            "id\tqid1\tqid2\tquestion1\tquestion2\tis_duplicate",
            "1\t2\t3\tHow?\tHow so?\t1",
            "4\t5\t6\tcut short",
            "7\t8\t9\tWho?\tWhere?\t0",
        ],
        [("How?", "How so?", 1), ("Who?", "Where?", 0)],
    ),
    "stsb": (
        "STS-B/train.tsv",
        [
            "index\tgenre\tfilename\tyear\told_index\tsource1\tsource2\tsentence1\tsentence2\tscore",
            "0\tmain\tMSRvid\t2012\t1\tnone\tnone\tA plane.\tAn air plane.\t5.000",
            "1\tmain\tMSRvid\t2012\t4\tnone\tnone\tA man.\tA cat.\t0.6",
        ],
        [("A plane.", "An air plane.", 5.0), ("A man.", "A cat.", 0.6)],
    ),
    "mnli": (
        "MNLI/train.tsv",
        [
            "index\tpromptID\tpairID\tgenre\tsentence1_binary_parse\tsentence2_binary_parse\t"
            "sentence1_parse\tsentence2_parse\tsentence1\tsentence2\tlabel1\tgold_label",
            "0\t1\t1n\tfiction\t(a)\t(b)\t(R a)\t(R b)\tIt rains.\tIt is dry.\tx\tcontradiction",
            "1\t2\t2e\tfiction\t( a )\t( b )\t(R a)\t(R b)\tNobody knew.\tAll knew.\tx\t-",
            "2\t3\t3e\tfiction\t( a )\t( b )\t(R a)\t(R b)\tHe ran.\tHe moved.\tx\tentailment",
        ],
        [("It rains.", "It is dry.", 2), ("He ran.", "He moved.", 0)],
    ),
    "qnli": (
        "QNLI/train.tsv",
        [
            "index\tquestion\tsentence\tlabel",
            "0\tWhen?\tIn 1990.\tentailment",
            "1\tWhy?\tThere.\tnot_entailment",
        ],
        [("When?", "In 1990.", 0), ("Why?", "There.", 1)],
    ),
    "rte": (
        "RTE/train.tsv",
        [
            "index\tsentence1\tsentence2\tlabel",
            "0\tNo weapons.\tWeapons.\tnot_entailment",
            "1\tA and B.\tA.\tentailment",
        ],
        [("No weapons.", "Weapons.", 1), ("A and B.", "A.", 0)],
    ),
    "wnli": (
        "WNLI/train.tsv",
        ["index\tsentence1\tsentence2\tlabel", "0\tIt fits.\tThe cup fits.\t1", "1\tX.\tY.\t0"],
        [("It fits.", "The cup fits.", 1), ("X.", "Y.", 0)],
    ),
}


def write(root: Path, name: str, lines: list[str]) -> Path:
    path = root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path.parent


@pytest.fixture
def load(make_config, recorder):
    def run(task, folder, *, default_split="test", **settings):
        config = make_config(task=task, data_dir=folder, **settings)
        return load_examples(config, default_split=default_split, progress=recorder)

    return run


@pytest.mark.parametrize("task", LAYOUTS)
def test_layout(load, tmp_path, task):
    name, lines, expected = LAYOUTS[task]
    examples = load(task, write(tmp_path, name, lines), split="train")
    found = [(row["text"], row.get("text_pair"), row["label"]) for row in examples.dataset]
    assert found == expected
    assert examples.info.pair is (expected[0][1] is not None)
    assert examples.split == "train"


@pytest.mark.parametrize("task", LAYOUTS)
def test_the_parent_folder_does_too(load, tmp_path, task):
    name, lines, expected = LAYOUTS[task]
    write(tmp_path, name, lines)
    assert len(load(task, tmp_path, split="train")) == len(expected)


def test_rows_that_the_benchmark_itself_broke_are_counted(load, tmp_path, recorder):
    for task in ("qqp", "mnli"):
        name, lines, _ = LAYOUTS[task]
        load(task, write(tmp_path, name, lines), split="train")
    assert recorder.messages == ["train.tsv: rows left out for want of a label: 1"] * 2


def test_a_cut_row_is_an_error_elsewhere(load, tmp_path):
    folder = write(tmp_path, "dev.tsv", ["sentence\tlabel", "fine\t1", "no label"])
    with pytest.raises(UsageError, match=r"dev\.tsv, line 3: 1 fields where the header has 2"):
        load("sst2", folder)


def test_the_test_split_has_no_labels_so_validation_is_the_default(load, tmp_path, recorder):
    write(tmp_path, "test.tsv", ["index\tsentence", "0\thidden"])
    folder = write(tmp_path, "dev.tsv", ["sentence\tlabel", "known\t1"])
    examples = load("sst2", folder)
    assert (examples.split, examples.dataset["text"][:]) == ("validation", ["known"])
    assert "labels of the test split of 'sst2' are not public" in recorder.messages[0]
    asked = load("sst2", folder, split="test")
    assert asked.dataset["text"][:] == ["hidden"]
    assert "label" not in asked.dataset.column_names
    assert "without labels" in recorder.messages[1]


def test_colas_test_file_has_a_header(load, tmp_path):
    folder = write(tmp_path, "test.tsv", ["index\tsentence", "0\tBill whistled."])
    assert load("cola", folder, split="test").dataset["text"][:] == ["Bill whistled."]


def test_mrpc_under_its_original_names(load, tmp_path):
    _, lines, expected = LAYOUTS["mrpc"]
    folder = write(tmp_path, "msr_paraphrase_test.txt", lines)
    assert load("mrpc", folder, split="test").dataset["label"][:] == [row[2] for row in expected]


def test_mnli_has_two_of_each(load, tmp_path, recorder):
    _, lines, _ = LAYOUTS["mnli"]
    write(tmp_path, "dev_matched.tsv", lines[:2])
    folder = write(tmp_path, "dev_mismatched.tsv", [lines[0], lines[3]])
    splits = {"validation": [2], "validation_matched": [2], "validation_mismatched": [0]}
    for split, labels in splits.items():
        assert load("mnli", folder, split=split).dataset["label"][:] == labels
    assert load("mnli", folder).split == "validation_matched"
    info = load("mnli", folder).info
    assert info.extra["evaluation_splits"] == ("validation_matched", "validation_mismatched")


def test_missing_files_and_folders(load, tmp_path):
    with pytest.raises(MissingArtifactError, match=r"^No dev\.tsv in ") as caught:
        load("sst2", tmp_path)
    assert "--data-dir" in caught.value.hint
    with pytest.raises(MissingArtifactError, match="No data folder at") as caught:
        load("rte", tmp_path / "none")
    assert "glue_data/RTE" in caught.value.hint
    with pytest.raises(MissingArtifactError, match=r"train\.tsv or msr_paraphrase_train\.txt"):
        load("mrpc", tmp_path, split="train")


@pytest.mark.parametrize(
    ("task", "lines", "message"),
    [
        ("sst2", [], "is empty"),
        ("sst2", ["text\tlabel", "a\t1"], "has no column 'sentence'"),
        ("sst2", ["sentence\tstars", "a\t1"], "has no column 'label'"),
        ("cola", ["a\tb", "c\td"], "has no column 'sentence'"),
        ("sst2", ["sentence\tlabel", "a\t2"], "line 2: label '2' is outside the classes"),
        ("stsb", ["sentence1\tsentence2\tscore", "a\tb\tx"], "label 'x' is not a number"),
        ("sst2", ["sentence\tlabel", "a\t1", " \t1"], "line 3: the text is empty"),
        ("sst2", ["sentence\tlabel"], "has no samples"),
    ],
)
def test_files_that_do_not_fit(load, tmp_path, task, lines, message):
    path = tmp_path / "dev.tsv"
    path.write_text("\n".join(lines))
    with pytest.raises(UsageError, match=message) as caught:
        load(task, tmp_path)
    assert "\n" not in caught.value.message


def test_not_text(load, tmp_path):
    (tmp_path / "dev.tsv").write_bytes(b"sentence\tlabel\n\xff\t1\n")
    with pytest.raises(UsageError, match="is not UTF-8 text"):
        load("sst2", tmp_path)
