from __future__ import annotations

import subprocess
import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from eexit_cli.core.errors import MissingArtifactError, UsageError
from eexit_cli.data import load_examples, task_info


def ids(examples) -> list[str]:
    return examples.dataset["id"][:]


@pytest.fixture
def movie(make_config):
    def run(progress=None, **settings):
        config = make_config(task="movie-reviews", **settings)
        return load_examples(config, default_split="validation", progress=progress)

    return run


def test_a_limit_is_a_prefix_of_a_larger_one(movie):
    twenty, forty = movie(limit=20), movie(limit=40)
    assert ids(twenty) == ids(forty)[:20]
    assert len(set(ids(forty))) == 40
    assert twenty.total == 900
    assert ids(twenty) != ids(movie())[:20]


def test_the_seed_chooses_the_sample(movie):
    assert ids(movie(limit=20)) == ids(movie(limit=20))
    assert set(ids(movie(limit=20))) != set(ids(movie(limit=20, seed=1)))


def test_a_sample_keeps_its_text_and_label(movie):
    whole = {row["id"]: row for row in movie().dataset}
    assert all(whole[row["id"]] == row for row in movie(limit=50).dataset)


def test_no_limit_and_zero_are_all_in_their_order(movie):
    assert ids(movie()) == ids(movie(limit=0))
    assert len(movie()) == 900


def test_a_limit_of_all_the_data_is_not_beyond_them(movie, recorder):
    assert sorted(ids(movie(recorder, limit=900))) == sorted(ids(movie()))
    assert recorder.messages == []


def test_a_limit_beyond_the_data_says_so(movie, recorder):
    assert sorted(ids(movie(recorder, limit=5000))) == sorted(ids(movie()))
    assert recorder.messages == ["--limit 5000 exceeds the validation split; using all 900 samples"]


def test_a_negative_limit(movie):
    with pytest.raises(UsageError, match="--limit -3 is negative"):
        movie(limit=-3)


def test_split_by_option_default_and_alias(movie, make_config):
    assert movie().split == "validation"
    assert movie(split="test").split == "test"
    assert movie(split="dev").split == "validation"
    with pytest.raises(UsageError, match="has no split 'tset'") as caught:
        movie(split="tset")
    assert caught.value.hint == "Did you mean test? Available: train, validation, test"
    with pytest.raises(UsageError, match="'tweets' has no split 'train'"):
        load_examples(make_config(task="tweets"), default_split="train")


def test_labels_follow_the_model(make_config):
    config = make_config(task="movie-reviews", limit=30)
    plain = load_examples(config, default_split="test")
    turned = load_examples(config, default_split="test", label_names=["Positive", "Negative"])
    assert turned.info.label_names == ("Positive", "Negative")
    assert [1 - label for label in plain.dataset["label"]] == turned.dataset["label"][:]


def test_types_of_the_columns(movie):
    features = movie(limit=1).dataset.features
    assert {name: feature.dtype for name, feature in features.items()} == {
        "id": "string",
        "text": "string",
        "label": "int64",
    }


def test_no_task_or_an_unknown_one(make_config):
    with pytest.raises(UsageError, match="No task is given") as caught:
        load_examples(make_config(), default_split="test")
    assert "--data-file" in caught.value.hint
    with pytest.raises(UsageError, match="Unknown task 'movie-review'") as caught:
        load_examples(make_config(task="movie-review"), default_split="test")
    assert caught.value.hint.startswith("Did you mean movie-reviews")


def test_two_sources_exclude_each_other(make_config, tmp_path):
    config = make_config(task="sst2", data_dir=tmp_path, data_file=tmp_path / "x.csv")
    with pytest.raises(UsageError, match="exclude each other"):
        load_examples(config, default_split="test")


def test_a_folder_with_a_tasks_name_stands_for_it(make_config, tmp_path):
    folder = tmp_path / "SST-2"
    folder.mkdir()
    with pytest.raises(MissingArtifactError, match=r"No dev\.tsv in"):
        load_examples(make_config(data_dir=folder), default_split="test")
    with pytest.raises(UsageError, match="No task is given"):
        load_examples(make_config(data_dir=tmp_path), default_split="test")


@pytest.mark.parametrize(
    ("alias", "name"), [("SST-2", "sst2"), ("sts-b", "stsb"), ("CoLA", "cola"), ("MNLI", "mnli")]
)
def test_aliases(alias, name):
    assert task_info(alias).name == name


def test_task_info_is_light():
    """Naming a task, for help or completion, must not import what reading data needs."""
    code = (
        "import sys; from eexit_cli.data import TASKS, task_info; "
        "[task_info(name) for name in TASKS]; "
        "heavy = {'datasets', 'torch', 'pandas', 'pyarrow', 'transformers'} & set(sys.modules); "
        "sys.exit(str(heavy) if heavy else 0)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 2**31), st.integers(1, 60), st.integers(1, 60))
def test_limits_nest_for_every_seed(seed, one, other):
    from eexit_cli.data.loading import _limited
    from eexit_cli.data.samples import Samples

    class Settings:
        def __init__(self, limit: int) -> None:
            self.seed, self.limit = seed, limit

        def message(self, text: str) -> None: ...

    whole = Samples([str(n) for n in range(50)], ["t"] * 50, None, list(range(50)))
    small, large = (
        _limited(whole, Settings(limit), "test", Settings(limit)).ids  # type: ignore[arg-type]
        for limit in sorted((one, other))
    )
    assert list(large[: len(small)]) == list(small)
    assert len(set(large)) == min(50, max(one, other))
