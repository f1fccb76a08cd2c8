"""The model registry: what a name means, and what there is."""

from __future__ import annotations

import json
import os
import pickle
import struct
import subprocess
import sys
import zipfile

import pytest

from eexit_cli.core.errors import EexitError, MissingArtifactError, UsageError
from eexit_cli.families.listing import list_models, summarise
from eexit_cli.store import models as registry
from eexit_cli.store.models import resolve

OWN = {
    "model_type": "multi_exit_classifier",
    "family": "deebert",
    "backbone": {"model_type": "distilbert", "n_layers": 4},
    "id2label": {"0": "negative", "1": "positive"},
    "task": "movie-reviews",
    "exit_defaults": {"criterion": "patience", "patience": 2},
}
PUBLISHED = {"model_type": "bert", "num_hidden_layers": 12, "num_labels": 3}


def write_safetensors(path, names):
    """A safetensors file of these tensors, one float each, written from the format's definition."""
    header = {
        name: {"dtype": "F32", "shape": [1], "data_offsets": [4 * i, 4 * i + 4]}
        for i, name in enumerate(names)
    }
    text = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + b"\0" * 4 * len(names))


def write_model(folder, config, names=("x",)):
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps(config))
    write_safetensors(folder / "model.safetensors", list(names))
    return folder


@pytest.fixture(autouse=True)
def places(tmp_path, monkeypatch):
    """Empty places of every kind, and nothing of this machine's."""
    monkeypatch.setattr(registry, "BUNDLED", tmp_path / "bundled")
    monkeypatch.delenv(registry.MODELS_DIR_VARIABLE, raising=False)
    import huggingface_hub.constants

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    import huggingface_hub.utils._cache_manager as cache_manager

    monkeypatch.setattr(cache_manager, "HF_HUB_CACHE", str(tmp_path / "hub"), raising=False)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_a_bundled_name_comes_before_a_folder_of_that_name(places):
    bundled = write_model(places / "bundled" / "deebert", OWN)
    write_model(places / "deebert", OWN)
    assert resolve("deebert") == registry.ModelRef("deebert", "bundled", path=bundled)
    folder = resolve("./deebert")
    assert (folder.kind, folder.path.resolve()) == ("folder", places / "deebert")


def test_a_folder_comes_before_a_hub_repository_of_that_name(places):
    assert resolve("someone/model") == registry.ModelRef(
        "someone/model", "hub", repo_id="someone/model"
    )
    write_model(places / "someone" / "model", OWN)
    assert resolve("someone/model").kind == "folder"


@pytest.mark.parametrize(
    "name", ["mattymchen/deebert-base-sst2", "ji-xin/bert_base-SST-2-two_stage", "a/b.c_d-1"]
)
def test_hub_ids(name):
    assert resolve(name).repo_id == name


def test_names_of_the_users_own_models_folder(places, monkeypatch):
    monkeypatch.setenv(registry.MODELS_DIR_VARIABLE, str(places / "mine"))
    folder = write_model(places / "mine" / "reviews", OWN)
    assert resolve("reviews") == registry.ModelRef("reviews", "folder", path=folder)
    assert [model.name for model in list_models()] == ["reviews"]


def test_an_unknown_name_is_answered_with_the_nearest(places):
    write_model(places / "bundled" / "deebert", OWN)
    write_model(places / "bundled" / "pabee", OWN)
    with pytest.raises(UsageError) as caught:
        resolve("deebart")
    assert caught.value.message == "Unknown model 'deebart'"
    assert "Did you mean deebert?" in caught.value.hint
    assert "Available: deebert, pabee" in caught.value.hint


@pytest.mark.parametrize(
    "name", ["./nothing", "/no/such/folder", "a/b/c", "../x", "~/no-such-model"]
)
def test_a_path_that_is_not_there_is_missing(name):
    with pytest.raises(MissingArtifactError, match="No model folder"):
        resolve(name)


def test_a_path_that_is_no_model_says_what_it_lacks(places):
    (places / "file.bin").write_bytes(b"x")
    (places / "empty").mkdir()
    (places / "half").mkdir()
    (places / "half" / "config.json").write_text("{}")
    for name, lack in (
        ("file.bin", "is a file"),
        ("empty", "no config.json"),
        ("half", "neither model.safetensors nor pytorch_model.bin"),
    ):
        with pytest.raises(EexitError, match=lack) as caught:
            resolve(name)
        assert "\n" not in caught.value.message
        assert caught.value.hint


def test_a_summary_is_read_from_the_configuration(places):
    write_model(places / "bundled" / "deebert", OWN)
    (summary,) = list_models()
    assert summary == registry.ModelSummary(
        name="deebert",
        kind="bundled",
        family="deebert",
        backbone="distilbert",
        layers=4,
        labels=("negative", "positive"),
        task="movie-reviews",
        megabytes=0.0,
        default_exit={"criterion": "patience", "patience": 2},
        path=places / "bundled" / "deebert",
    )


def test_the_size_is_that_of_the_weights_that_loading_would_read(places):
    folder = write_model(places / "model", OWN)
    (folder / "model.safetensors").unlink()
    (folder / "model-00001-of-00002.safetensors").write_bytes(b"0" * 1_500_000)
    (folder / "model-00002-of-00002.safetensors").write_bytes(b"0" * 500_000)
    (folder / "pytorch_model.bin").write_bytes(b"0" * 9_000_000)
    assert summarise("model", "folder", folder).megabytes == 2.0


@pytest.mark.parametrize(
    ("names", "family"),
    [
        (["bert.encoder.highway.0.pooler.dense.weight", "classifier.weight"], "deebert"),
        (["bert.pooler.dense.weight", "classifiers.0.weight"], "pabee"),
    ],
)
def test_published_checkpoints_are_recognised_by_their_tensors(places, names, family):
    summary = summarise("x", "folder", write_model(places / "a", PUBLISHED, names))
    assert (summary.family, summary.backbone, summary.layers) == (family, "bert", 12)
    assert summary.labels == ("LABEL_0", "LABEL_1", "LABEL_2")

    # From an index of shards.
    folder = write_model(places / "b", PUBLISHED)
    (folder / "model.safetensors").unlink()
    index = {"weight_map": dict.fromkeys(names, "model-00001-of-00001.safetensors")}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    assert summarise("x", "folder", folder).family == family

    # From a pickle, whose table of names is read as text and not unpickled.
    (folder / "model.safetensors.index.json").unlink()
    with zipfile.ZipFile(folder / "pytorch_model.bin", "w") as archive:
        table = pickle.dumps(dict.fromkeys(names, 0.0), protocol=2)
        archive.writestr("archive/data.pkl", table[:-1] + b"boom")
    assert summarise("x", "folder", folder).family == family


def test_models_without_exits_and_damaged_ones_are_not_listed(places):
    for number, config in enumerate([PUBLISHED, [1]]):
        assert summarise("x", "hub", write_model(places / f"m{number}", config)) is None
    damaged = write_model(places / "damaged", PUBLISHED, ["classifiers.0.weight"])
    for content in (b"", b"\xff" * 7, b"\xff" * 40):
        (damaged / "model.safetensors").write_bytes(content)
        assert summarise("x", "hub", damaged) is None
    (damaged / "config.json").write_text("{")
    assert summarise("x", "hub", damaged) is None


def test_cached_hub_repositories_with_exits_are_listed(places):
    for repo_id, names in {
        "someone/pabee": ["classifiers.0.weight"],
        "someone/plain": ["classifier.weight"],
    }.items():
        root = places / "hub" / f"models--{repo_id.replace('/', '--')}"
        revision = "0123456789abcdef0123456789abcdef01234567"
        snapshot = write_model(root / "snapshots" / revision, PUBLISHED, names)
        (root / "blobs").mkdir()
        for path in list(snapshot.iterdir()):
            blob = path.rename(root / "blobs" / f"{path.name}-blob")
            path.symlink_to(os.path.relpath(blob, path.parent))
        (root / "refs").mkdir()
        (root / "refs" / "main").write_text(revision)
    (summary,) = list_models()
    assert (summary.name, summary.kind, summary.family) == ("someone/pabee", "hub", "pabee")
    assert resolve(summary.name).repo_id == "someone/pabee"


def test_no_places_no_models():
    assert list_models() == []


def test_the_registry_imports_no_torch():
    code = (
        "import sys; import eexit_cli.families.listing as m; m.list_models(); "
        "sys.exit(bool({'torch', 'transformers', 'pandas'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
