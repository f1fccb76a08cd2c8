"""The hub path, on a small repository in the layout of nyu-mll/glue, and on its cache."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import datasets
import pytest
from datasets import ClassLabel, Dataset, Features, Value

from eexit_cli.core.errors import MissingArtifactError
from eexit_cli.data import glue, load_examples
from eexit_cli.data import hub as hub_module

# task -> text columns and class names, as https://huggingface.co/datasets/nyu-mll/glue lists them.
HUB = {
    "cola": (("sentence",), ("unacceptable", "acceptable")),
    "sst2": (("sentence",), ("negative", "positive")),
    "mrpc": (("sentence1", "sentence2"), ("not_equivalent", "equivalent")),
    "qqp": (("question1", "question2"), ("not_duplicate", "duplicate")),
    "stsb": (("sentence1", "sentence2"), ()),
    "mnli": (("premise", "hypothesis"), ("entailment", "neutral", "contradiction")),
    "qnli": (("question", "sentence"), ("entailment", "not_entailment")),
    "rte": (("sentence1", "sentence2"), ("entailment", "not_entailment")),
    "wnli": (("sentence1", "sentence2"), ("not_entailment", "entailment")),
}


def split_names(task: str) -> tuple[str, ...]:
    if task == "mnli":
        kinds = ("matched", "mismatched")
        return ("train", *(f"{part}_{k}" for part in ("validation", "test") for k in kinds))
    return ("train", "validation", "test")


def repository(root: Path) -> Path:
    """Parquet files and a card, as on the hub."""
    card = ["---", "configs:"]
    for task, (texts, names) in HUB.items():
        card += [f"- config_name: {task}", "  data_files:"]
        label = ClassLabel(names=list(names)) if names else Value("float32")
        for split in split_names(task):
            columns = {name: [f"{task} {split} {name} {n}" for n in range(3)] for name in texts}
            known = [0, 1, len(names) - 1] if names else [0.0, 2.5, 5.0]
            columns["label"] = [-1] * 3 if split.startswith("test") else known
            columns["idx"] = [10, 11, 12]
            features = Features(
                {name: Value("string") for name in texts} | {"label": label, "idx": Value("int32")}
            )
            (root / task).mkdir(parents=True, exist_ok=True)
            file = f"{split}-00000-of-00001.parquet"
            Dataset.from_dict(columns, features=features).to_parquet(root / task / file)
            card += [f"  - split: {split}", f"    path: {task}/{split}-*"]
    (root / "README.md").write_text("\n".join([*card, "---", ""]))
    return root


@pytest.fixture(scope="module")
def hub(tmp_path_factory) -> Path:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path_factory.mktemp("cache"))
        yield repository(tmp_path_factory.mktemp("hub") / "glue")


@pytest.fixture
def load(hub, monkeypatch, make_config, recorder):
    monkeypatch.setattr(glue, "REPOSITORY", str(hub))

    def run(task, *, default_split="test", **settings):
        config = make_config(task=task, **settings)
        return load_examples(config, default_split=default_split, progress=recorder)

    return run


@pytest.mark.parametrize("task", HUB)
def test_columns_and_classes(load, task):
    texts, names = HUB[task]
    examples = load(task, split="train")
    assert examples.info.label_names == names
    assert examples.dataset["text"][0] == f"{task} train {texts[0]} 0"
    assert examples.info.pair is (len(texts) == 2)
    if examples.info.pair:
        assert examples.dataset["text_pair"][2] == f"{task} train {texts[1]} 2"
    expected = [0, 1, len(names) - 1] if names else [0.0, 2.5, 5.0]
    assert examples.dataset["label"][:] == expected
    assert examples.dataset["id"][:] == [f"{task}-train-{n}" for n in (10, 11, 12)]


@pytest.mark.parametrize("task", HUB)
def test_the_default_test_split_is_validation(load, recorder, task):
    examples = load(task)
    assert examples.split == ("validation_matched" if task == "mnli" else "validation")
    assert "label" in examples.dataset.column_names
    assert recorder.messages == [
        f"The labels of the test split of '{task}' are not public; using its validation split"
    ]


@pytest.mark.parametrize("task", ["sst2", "stsb", "mnli"])
def test_the_test_split_when_asked_for_has_no_labels(load, task):
    examples = load(task, split="test")
    assert examples.split == ("test_matched" if task == "mnli" else "test")
    assert "label" not in examples.dataset.column_names


def test_a_sample_without_a_label_is_of_no_class(load, monkeypatch, recorder):
    """-1 would be the last class by Python's own counting."""
    rows = {"sentence": ["a", "b", "c"], "label": [1, -1, 0], "idx": [0, 1, 2]}
    monkeypatch.setattr(glue, "_from_hub", lambda *args: datasets.Dataset.from_dict(rows))
    examples = load("sst2", split="train")
    assert examples.dataset["text"][:] == ["a", "c"]
    assert examples.dataset["label"][:] == [1, 0]
    assert recorder.messages == ["1 of 3 samples have no label and are left out"]


def test_mismatched(load):
    assert (
        load("mnli", split="validation_mismatched")
        .dataset["text"][0]
        .startswith("mnli validation_mismatched")
    )


SCRIPT = """
import sys
from types import SimpleNamespace
from eexit_cli.config.common import DataConfig
from eexit_cli.core.errors import EexitError
from eexit_cli.data import load_examples
config = SimpleNamespace(**vars(DataConfig(task=sys.argv[1])), seed=1)
try:
    print(load_examples(config, default_split="test").dataset["text"][0])
except EexitError as error:
    print(type(error).__name__, error.message, "|", error.hint)
"""


def test_offline_the_cache_answers_or_one_line_says_what_to_do(hub, tmp_path):
    """A process of its own, because datasets reads its environment when it is imported."""
    cache = tmp_path / "datasets"
    datasets.load_dataset(str(hub), "sst2", split="train", cache_dir=str(tmp_path / "made"))
    cache.mkdir()
    shutil.copytree(tmp_path / "made" / "glue", cache / "nyu-mll___glue")
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "HF_DATASETS_CACHE": str(cache)}

    def run(task: str, **changes: str) -> str:
        done = subprocess.run(
            [sys.executable, "-c", SCRIPT, task],
            env={**environment, **changes},
            capture_output=True,
            text=True,
            check=True,
        )
        return done.stdout.strip()

    assert run("sst2") == "sst2 validation sentence 0"
    for answer in (run("rte"), run("rte", HF_DATASETS_CACHE=str(tmp_path / "empty"))):
        assert answer.startswith("MissingArtifactError Task 'rte' could not be loaded from nyu-mll")
        assert "--data-dir" in answer
        assert "HF_HUB_OFFLINE" in answer
        assert "\n" not in answer


def test_an_error_of_our_own_is_not_dressed_up(monkeypatch, make_config):
    def fail(*args, **kwargs):
        raise ValueError("a bug")

    monkeypatch.setattr(datasets, "load_dataset", fail)
    with pytest.raises(ValueError, match="a bug"):
        load_examples(make_config(task="sst2"), default_split="test")


def test_a_full_disk_is_told_as_it_is(monkeypatch, make_config):
    def fail(*args, **kwargs):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(datasets, "load_dataset", fail)
    with pytest.raises(MissingArtifactError, match="No space left on device"):
        load_examples(make_config(task="sst2"), default_split="test")


def test_a_hub_that_does_not_answer_is_not_waited_for(monkeypatch) -> None:
    """Its libraries would try for half a minute; the cache alone is asked, as when offline."""
    import huggingface_hub

    asked: list[tuple[str, int]] = []

    def refuse(address: tuple[str, int], timeout: float) -> None:
        asked.append(address)
        raise OSError("no way")

    def load(*names: object, **options: object) -> None:
        assert datasets.config.HF_HUB_OFFLINE
        assert huggingface_hub.constants.HF_HUB_OFFLINE
        raise ConnectionError("offline")

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(hub_module, "getproxies", dict)
    monkeypatch.setattr(hub_module.socket, "create_connection", refuse)
    monkeypatch.setattr(datasets, "load_dataset", load)
    hub_module._hub_answers.cache_clear()
    try:
        for _ in range(2):
            with pytest.raises(MissingArtifactError) as caught:
                hub_module.load_split(
                    "rte", "nyu-mll/glue", "rte", "train", instead="Give a folder"
                )
        assert caught.value.message == (
            "Task 'rte' could not be loaded from nyu-mll/glue: the hub does not answer, and its "
            "cache here does not have it"
        )
        assert len(asked) == 1
        assert not huggingface_hub.constants.HF_HUB_OFFLINE
        # Behind a proxy only the libraries can tell.
        hub_module._hub_answers.cache_clear()
        monkeypatch.setattr(hub_module, "getproxies", lambda: {"https": "http://proxy"})
        assert hub_module._hub_answers()
    finally:
        hub_module._hub_answers.cache_clear()
