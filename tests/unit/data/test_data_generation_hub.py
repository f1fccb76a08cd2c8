"""Text pairs of the hub, on small repositories in its layouts, and on its cache."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import datasets
import huggingface_hub
import pytest
from datasets import Dataset, Features, Value

from eexit_cli.core.errors import UsageError
from eexit_cli.core.progress import SilentProgress
from eexit_cli.data import TASKS, generation, load_examples, task_info
from eexit_cli.data.hub import EXPORT

SPLITS = ("train", "validation", "test")


def _articles(columns: tuple[str, str], split: str) -> Dataset:
    first, second = columns
    return Dataset.from_dict(
        {
            "id": ["a1", "a2", "a3", "a4"],
            first: [f"{split} text 1", " ", f"{split} text 3\nmore", f"{split} text 4"],
            second: ["sum 1", "sum 2", "sum 3", None],
        },
        features=Features({name: Value("string") for name in ("id", first, second)}),
    )


def _pairs(languages: tuple[str, str], split: str) -> Dataset:
    rows = [{code: f"{split} {code} {n}" for code in languages} for n in range(4)]
    rows[1][languages[0]] = ""
    return Dataset.from_dict({"translation": rows})


def _questions(split: str) -> Dataset:
    answers = [{"text": ["Paris", "Paris", "the Paris"], "answer_start": [0, 0, 4]}] * 2
    return Dataset.from_dict(
        {
            "id": ["q1", "q2"],
            "title": ["t", "t"],
            "context": [" Paris is a city.", "Paris is big."],
            "question": ["What is a city?", " What is big?"],
            "answers": answers,
        }
    )


def _problems(split: str) -> Dataset:
    """25 of them, of which the fourth has no answer."""
    return Dataset.from_dict(
        {
            "question": [f"{split} {number}?" for number in range(25)],
            "answer": [
                "" if number == 3 else f"So it is <<{number}+0={number}>>.\n#### {number}"
                for number in range(25)
            ],
        }
    )


# task -> (configuration, rows of a split)
LAYOUTS = {
    "cnn_dailymail": ("3.0.0", lambda split: _articles(("article", "highlights"), split)),
    "xsum": ("default", lambda split: _articles(("document", "summary"), split)),
    "samsum": (None, lambda split: _articles(("dialogue", "summary"), split)),
    "squad": ("plain_text", _questions),
    "gsm8k": ("main", _problems),
    "iwslt2017-de-en": ("iwslt2017-de-en", lambda split: _pairs(("de", "en"), split)),
    "iwslt2017-en-de": ("iwslt2017-en-de", lambda split: _pairs(("en", "de"), split)),
    "wmt14-en-fr": ("fr-en", lambda split: _pairs(("fr", "en"), split)),
    "wmt16-de-en": ("de-en", lambda split: _pairs(("de", "en"), split)),
    "wmt16-en-de": ("de-en", lambda split: _pairs(("de", "en"), split)),
    "wmt16-en-ro": ("ro-en", lambda split: _pairs(("ro", "en"), split)),
}
PREFIXES = {
    "cnn_dailymail": "summarize: ",
    "xsum": "summarize: ",
    "samsum": "summarize: ",
    "squad": "",
    "gsm8k": "",
    "iwslt2017-de-en": "translate German to English: ",
    "iwslt2017-en-de": "translate English to German: ",
    "wmt14-en-fr": "translate English to French: ",
    "wmt16-de-en": "translate German to English: ",
    "wmt16-en-de": "translate English to German: ",
    "wmt16-en-ro": "translate English to Romanian: ",
}
HUB = [name for name in TASKS if isinstance(TASKS.load(name), generation.HubTask)]


def repository(root: Path, name: str) -> Path:
    """Files as on the hub: a card with configurations, the Parquet export, or bare CSV files."""
    folder, rows = LAYOUTS[name]
    task = TASKS.load(name)
    card = ["---", "configs:", f"- config_name: {folder}", "  data_files:"]
    splits = task.splits if task.every is None else ("train", "test")
    for split in splits:
        if task.export:
            path = root / folder / split / "0000.parquet"
        elif folder is None:
            path = root / f"{split}.csv"
        else:
            path = root / folder / f"{split}-00000-of-00001.parquet"
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.suffix == ".csv":
            rows(split).to_csv(path, index=False)
        else:
            rows(split).to_parquet(path)
        card += [f"  - split: {split}", f"    path: {folder}/{split}-*"]
    if folder is not None and not task.export:
        (root / "README.md").write_text("\n".join([*card, "---", ""]))
    return root


@pytest.fixture
def load(tmp_path, monkeypatch, make_config, recorder):
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")

    def run(name, *, default_split="test", **settings):
        place = repository(tmp_path / name, name)
        task = replace(TASKS.load(name), repository=str(place))
        module, _, attribute = TASKS[name].partition(":")
        monkeypatch.setattr(sys.modules[module], attribute, task)
        monkeypatch.setattr(huggingface_hub, "snapshot_download", lambda *_, **__: str(place))
        config = make_config(task=name, **settings)
        return load_examples(config, default_split=default_split, progress=recorder)

    return run


def test_every_task_of_the_hub_is_tested():
    assert set(LAYOUTS) == set(PREFIXES) == set(HUB)


@pytest.mark.parametrize("name", [name for name in HUB if "-" in name])
def test_translations(load, recorder, name):
    source, target = name.split("-")[1:]
    examples = load(name)
    prefix = PREFIXES[name]
    kept = (0, 2, 3)
    assert examples.dataset["source"][:] == [f"{prefix}test {source} {n}" for n in kept]
    assert examples.dataset["target"][:] == [f"test {target} {n}" for n in kept]
    assert examples.dataset["id"][:] == [f"{name}-test-{n}" for n in kept]
    assert examples.info.metrics == ("bleu",)
    assert examples.total == 3
    assert recorder.messages == [
        f"1 of 4 samples in the test split of '{name}' have an empty text and are left out"
    ]


@pytest.mark.parametrize("name", ["cnn_dailymail", "xsum", "samsum"])
def test_summaries(load, name):
    examples = load(name, split="dev")
    assert examples.split == "validation"
    assert examples.dataset["source"][:] == [
        "summarize: validation text 1",
        "summarize: validation text 3\nmore",
    ]
    assert examples.dataset["target"][:] == ["sum 1", "sum 3"]
    assert examples.dataset["id"][:] == ["a1", "a3"]
    assert examples.info.metrics[0] == "rouge_l"


def test_questions(load, recorder):
    examples = load("squad")
    assert examples.split == "validation"
    assert recorder.messages == ["'squad' has no test split; using its validation split"]
    assert examples.dataset["source"][:] == [
        "question: What is a city? context: Paris is a city.",
        "question: What is big? context: Paris is big.",
    ]
    assert examples.dataset["target"][:] == ["Paris", "Paris"]
    assert examples.dataset["references"][0] == ["Paris", "the Paris"]
    with pytest.raises(UsageError, match="'squad' has no split 'test'"):
        load("squad", split="test")


def test_validation_problems_are_every_tenth_to_train_on(load, recorder):
    validation, train = (load("gsm8k", split=split) for split in ("validation", "train"))
    assert validation.dataset["id"][:] == ["gsm8k-train-9", "gsm8k-train-19"]
    assert validation.dataset["source"][:] == ["train 9?", "train 19?"]
    apart = {3, 9, 19}
    assert train.dataset["id"][:] == [f"gsm8k-train-{n}" for n in range(25) if n not in apart]
    assert "1 of 25 samples in the train split of 'gsm8k'" in recorder.messages[0]


def test_problems(load):
    examples = load("gsm8k")
    assert examples.split == "test"
    assert len(examples) == 24
    assert examples.dataset["source"][1] == "test 1?"
    assert examples.dataset["target"][1] == "So it is <<1+0=1>>.\n#### 1"
    assert examples.info.metrics == ("final_number_match",)
    assert examples.info.extra["prompt_template"] == "Question: {source}\nAnswer:"


@pytest.mark.parametrize("name", HUB)
def test_prefixes(load, name):
    assert task_info(name).extra["source_prefix"] == PREFIXES[name]
    assert load(name, split="train").dataset["source"][0].startswith(PREFIXES[name])
    assert load(name, split="train", source_prefix="x ").dataset["source"][0].startswith("x ")


def test_a_limit_reads_what_it_asks_for(load, monkeypatch):
    looked_at = []
    task = generation.WMT16_DE_EN
    counting = replace(task, source=lambda row: looked_at.append(row) or "s")
    monkeypatch.setattr(generation, "WMT16_DE_EN", counting)
    examples = load("wmt16-de-en", split="train", limit=2)
    assert (len(examples), examples.total, len(looked_at)) == (2, 3, 2)


def test_positions_of_filled_rows_across_batches():
    texts = [None if n % 7 == 0 else " " if n % 5 == 0 else "x" for n in range(25_000)]
    data = Dataset.from_dict({"text": texts, "other": ["y"] * len(texts)})
    expected = [n for n, text in enumerate(texts) if text == "x"]
    assert generation.filled(data, (("text",), ("other",))) == expected


def test_folders_are_refused(make_config, tmp_path):
    config = make_config(task="xsum", data_dir=tmp_path)
    with pytest.raises(UsageError, match="'xsum' has no folder of TSV files") as caught:
        load_examples(config, default_split="test", progress=SilentProgress())
    assert "--data-file" in caught.value.hint


SCRIPT = """
import sys
from types import SimpleNamespace
from eexit_cli.config.common import DataConfig
from eexit_cli.core.errors import EexitError
from eexit_cli.data import load_examples
for task in sys.argv[1:]:
    config = SimpleNamespace(**vars(DataConfig(task=task, split="validation")), seed=1)
    try:
        print(load_examples(config, default_split="test").dataset["source"][0])
    except EexitError as error:
        print(type(error).__name__, error.message, "|", error.hint)
"""


def _answers(cache: Path, *tasks: str) -> list[str]:
    """A process of its own, because datasets reads its environment when it is imported."""
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "HF_HOME": str(cache)}
    for name in ("HF_DATASETS_CACHE", "HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE"):
        environment.pop(name, None)
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, *tasks],
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout.splitlines()


def test_offline_the_cache_answers(tmp_path):
    """What datasets prepared, with and without a configuration, and files of the Parquet copy."""
    cache = tmp_path / "home"
    expected = {
        "wmt16-de-en": "translate German to English: validation de 0",
        "iwslt2017-de-en": "translate German to English: validation de 0",
        "xsum": "summarize: validation text 1",
        "samsum": "summarize: validation text 1",
    }
    for name in expected:
        task = TASKS.load(name)
        owner, _, short = task.repository.partition("/")
        if task.export:
            stored = cache / "hub" / f"datasets--{owner}--{short}"
            repository(stored / "snapshots" / "abc", name)
            (stored / "refs" / EXPORT).parent.mkdir(parents=True)
            (stored / "refs" / EXPORT).write_text("abc")
        else:
            place = repository(tmp_path / "made" / short, name)
            datasets.load_dataset(
                str(place), task.configuration, cache_dir=str(tmp_path / "prepared")
            )
            shutil.copytree(
                tmp_path / "prepared" / short, cache / "datasets" / f"{owner}___{short}"
            )
    assert _answers(cache, *expected) == list(expected.values())
    # Other languages of repositories that are cached.
    for name, answer in zip(
        ("wmt16-en-ro", "iwslt2017-en-de"),
        _answers(cache, "wmt16-en-ro", "iwslt2017-en-de"),
        strict=True,
    ):
        assert answer.startswith(f"MissingArtifactError Task '{name}' could not be loaded")


def test_offline_without_a_cache_one_line_says_what_to_do(tmp_path):
    names = ["cnn_dailymail", "xsum", "squad", "iwslt2017-de-en"]
    for name, answer in zip(names, _answers(tmp_path / "empty", *names), strict=True):
        place = TASKS.load(name).repository
        assert answer.startswith(
            f"MissingArtifactError Task '{name}' could not be loaded from {place}: "
        )
        assert "--data-file" in answer
        assert "HF_HUB_OFFLINE" in answer
        assert "cached" in answer
