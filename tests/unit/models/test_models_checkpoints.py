"""Weight files: both formats, shards, damage, and the hub's cache, without a network."""

from __future__ import annotations

import errno
import json
import os

import pytest
import torch
from models_tiny import (
    deebert_shapes,
    pabee_shapes,
    published_config,
    random_batch,
    random_tensors,
    write_checkpoint,
)
from safetensors.torch import save_file

from eexit_cli.core.errors import EexitError, MissingArtifactError
from eexit_cli.models.checkpoints import find_folder, read_config, read_tensors
from eexit_cli.models.encoder.conversion import load_classifier

LAYERS = 3
CONFIG = published_config("bert", LAYERS)
TENSORS = random_tensors(deebert_shapes("bert", LAYERS), seed=7)


def same_tensors(found):
    assert sorted(found) == sorted(TENSORS)
    for name, value in TENSORS.items():
        assert torch.equal(found[name], value), name


def halves():
    names = sorted(TENSORS)
    parts = names[: len(names) // 2], names[len(names) // 2 :]
    return [{name: TENSORS[name].clone() for name in part} for part in parts]


def write_shards(folder, stem, suffix, save):
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(CONFIG))
    weight_map = {}
    for number, part in enumerate(halves(), start=1):
        shard = f"{stem}-{number:05d}-of-00002{suffix}"
        save(part, folder / shard)
        weight_map |= dict.fromkeys(part, shard)
    index = {"metadata": {"total_size": 1}, "weight_map": weight_map}
    (folder / f"{stem}{suffix}.index.json").write_text(json.dumps(index))
    return folder


SHARDS = [("model", ".safetensors", save_file), ("pytorch_model", ".bin", torch.save)]


def read_error(folder, kind=EexitError):
    with pytest.raises(kind) as caught:
        load_classifier(folder)
    assert "\n" not in caught.value.message
    return caught.value


def test_safetensors(tmp_path):
    same_tensors(read_tensors(write_checkpoint(tmp_path / "model", CONFIG, TENSORS)))


@pytest.mark.parametrize("zipped", [True, False])
def test_pickle(tmp_path, zipped):
    folder = write_checkpoint(tmp_path / "model", CONFIG, None)
    path = folder / "pytorch_model.bin"
    torch.save(TENSORS, path, _use_new_zipfile_serialization=zipped)
    same_tensors(read_tensors(folder))


@pytest.mark.parametrize("shards", SHARDS, ids=["safetensors", "pickle"])
def test_shards(tmp_path, shards):
    same_tensors(read_tensors(write_shards(tmp_path / "model", *shards)))


def test_safetensors_are_preferred_to_a_pickle(tmp_path):
    folder = write_checkpoint(tmp_path / "model", CONFIG, TENSORS)
    (folder / "pytorch_model.bin").write_bytes(b"never read")
    same_tensors(read_tensors(folder))


@pytest.mark.parametrize("shards", SHARDS, ids=["safetensors", "pickle"])
def test_a_missing_shard_is_named(tmp_path, shards):
    folder = write_shards(tmp_path / "model", *shards)
    lost = next(iter(sorted(folder.glob("*-00002-of-00002*"))))
    lost.unlink()
    assert lost.name in read_error(folder).message


def test_a_shard_that_lacks_its_tensors_is_an_error(tmp_path):
    folder = write_shards(tmp_path / "model", *SHARDS[0])
    save_file({"other": torch.zeros(1)}, folder / "model-00002-of-00002.safetensors")
    assert "the shards lack" in read_error(folder).message


def test_a_shard_is_never_read_from_elsewhere(tmp_path):
    save_file({"x": torch.zeros(1)}, tmp_path / "outside.safetensors")
    folder = write_checkpoint(tmp_path / "model", CONFIG, None)
    index = {"weight_map": {"x": "../outside.safetensors"}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    assert "outside.safetensors is missing" in read_error(folder).message


@pytest.mark.parametrize("length", [0, 4, 100, 20_000])
def test_a_truncated_safetensors_file_is_named(tmp_path, length):
    folder = write_checkpoint(tmp_path / "model", CONFIG, TENSORS)
    path = folder / "model.safetensors"
    content = path.read_bytes()
    assert len(content) > length
    path.write_bytes(content[:length])
    error = read_error(folder)
    assert str(path) in error.message
    assert "truncated" in error.message
    assert error.hint


@pytest.mark.parametrize("length", [0, 100, 20_000])
@pytest.mark.parametrize("zipped", [True, False])
def test_a_truncated_pickle_is_named(tmp_path, length, zipped):
    folder = write_checkpoint(tmp_path / "model", CONFIG, None)
    path = folder / "pytorch_model.bin"
    torch.save(TENSORS, path, _use_new_zipfile_serialization=zipped)
    path.write_bytes(path.read_bytes()[:length])
    assert f"{path} cannot be read" in read_error(folder).message


class Payload:
    """Its unpickling would create a file."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


def test_a_pickle_with_code_is_refused_and_does_not_run(tmp_path):
    folder = write_checkpoint(tmp_path / "model", CONFIG, None)
    torch.save({**TENSORS, "x": Payload(tmp_path / "owned")}, folder / "pytorch_model.bin")
    assert "refused" in read_error(folder).message
    assert not (tmp_path / "owned").exists()


def test_a_pickle_of_something_else_is_refused(tmp_path):
    folder = write_checkpoint(tmp_path / "model", CONFIG, None)
    torch.save({"epoch": 3, "state": TENSORS}, folder / "pytorch_model.bin")
    assert "not a table of named tensors" in read_error(folder).message


def test_a_git_lfs_pointer_says_what_to_run(tmp_path):
    folder = write_checkpoint(tmp_path / "model", CONFIG, None)
    (folder / "model.safetensors").write_text(
        "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n"
    )
    assert read_error(folder).hint == "Run: git lfs pull"


def test_a_folder_that_is_no_model_says_what_is_missing(tmp_path):
    assert "no config.json" in read_error(write_checkpoint(tmp_path / "a", None, TENSORS)).message
    error = read_error(write_checkpoint(tmp_path / "b", CONFIG, None))
    assert "neither model.safetensors nor pytorch_model.bin" in error.message
    (tmp_path / "b" / "model.onnx").write_bytes(b"somebody else's")
    error = read_error(tmp_path / "b")
    assert "nothing but a model.onnx" in error.message
    assert "models export" in error.hint


@pytest.mark.parametrize("content", ["{", "[1]", "\xff\xfe"])
def test_a_damaged_configuration_is_named(tmp_path, content):
    folder = write_checkpoint(tmp_path / "model", None, TENSORS)
    (folder / "config.json").write_text(content, encoding="latin-1")
    assert "config.json is not" in read_error(folder).message


def test_a_configuration_without_a_backbone_is_an_error(tmp_path):
    config = {"model_type": "multi_exit_classifier", "backbone": {}}
    folder = write_checkpoint(tmp_path / "model", config, TENSORS)
    assert "backbone.model_type" in read_error(folder).message


def test_a_file_and_a_missing_path_are_no_folders(tmp_path):
    (tmp_path / "file").write_text("x")
    with pytest.raises(EexitError, match="is a file"):
        find_folder(tmp_path / "file")
    with pytest.raises(MissingArtifactError, match="No model folder"):
        find_folder(tmp_path / "nothing")


# --- the hub, offline ---------------------------------------------------------------------------

REVISION = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture
def hub_cache(tmp_path, monkeypatch):
    """An empty hub cache, and no network."""
    import huggingface_hub.constants

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    return tmp_path / "hub"


def cache_repository(hub_cache, repo_id, config, tensors):
    """The cache as hf_hub_download leaves it: refs, blobs and a snapshot of links."""
    root = hub_cache / f"models--{repo_id.replace('/', '--')}"
    snapshot = write_checkpoint(root / "snapshots" / REVISION, config, tensors)
    (root / "blobs").mkdir()
    for number, path in enumerate(sorted(snapshot.iterdir())):
        blob = path.rename(root / "blobs" / f"{number:040d}")
        path.symlink_to(os.path.relpath(blob, path.parent))
    (root / "refs").mkdir()
    (root / "refs" / "main").write_text(REVISION)
    return snapshot


@pytest.mark.parametrize("repo_id", ["someone/pabee-bert-base-sst2", "bert-base-pabee"])
def test_a_cached_repository_loads_offline(hub_cache, repo_id):
    config = published_config("albert", LAYERS)
    tensors = random_tensors(pabee_shapes("albert", LAYERS))
    snapshot = cache_repository(hub_cache, repo_id, config, tensors)
    batch = random_batch([5])
    from_hub = load_classifier(repo_id, cache_dir=hub_cache)
    from_folder = load_classifier(snapshot)
    with torch.no_grad():
        assert torch.equal(from_hub(**batch).logits, from_folder(**batch).logits)


def test_a_cached_repository_with_a_pickle_loads_offline(hub_cache):
    snapshot = cache_repository(hub_cache, "someone/deebert-base-sst2", CONFIG, None)
    torch.save(TENSORS, snapshot / "pytorch_model.bin")
    model = load_classifier("someone/deebert-base-sst2", cache_dir=hub_cache)
    assert torch.equal(model.classifiers[LAYERS - 1].weight, TENSORS["classifier.weight"])


def test_a_repository_that_is_not_cached_is_missing_with_a_hint(hub_cache):
    with pytest.raises(MissingArtifactError) as caught:
        load_classifier("someone/else", cache_dir=hub_cache)
    assert "someone/else" in caught.value.message
    assert "hf download someone/else" in caught.value.hint


def test_files_are_asked_of_the_hub_safetensors_first(tmp_path, monkeypatch):
    """What would be downloaded, from a repository that holds everything."""
    import huggingface_hub
    from huggingface_hub.utils import filter_repo_objects

    files = [
        *("README.md", "config.json", "tokenizer.json", "tokenizer_config.json", "vocab.txt"),
        *("spiece.model", "merges.txt", "special_tokens_map.json"),
        *("model.safetensors", "pytorch_model.bin", "tf_model.h5", "flax_model.msgpack"),
        *("onnx/model.onnx", "training_args.bin", "optimizer.pt"),
    ]
    asked, written = [], {}

    def download(repo_id, *, allow_patterns, **options):
        wanted = list(filter_repo_objects(files, allow_patterns=allow_patterns))
        asked.append((repo_id, options, wanted))
        for name in wanted:
            (tmp_path / name).write_bytes(written.get(name, b""))
        return str(tmp_path)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    find_folder("someone/model", revision="v1")
    assert asked == [("someone/model", {"revision": "v1"}, files[:9])]

    for path in tmp_path.iterdir():
        path.unlink()
    files.remove("model.safetensors")
    asked.clear()
    find_folder("someone/model")
    assert [wanted for *_, wanted in asked] == [files[:8], ["pytorch_model.bin"]]

    # An exported model's repository; others have such a file beside their weights.
    files.append("model.onnx")
    for contents, others in (({"runtime": "onnx"}, "model.onnx"), ({}, "pytorch_model.bin")):
        for path in tmp_path.iterdir():
            path.unlink()
        asked.clear()
        written.update({"config.json": json.dumps(contents).encode()})
        find_folder("someone/deployed")
        assert [wanted for *_, wanted in asked] == [files[:8], [others]]


@pytest.mark.parametrize(
    ("error", "message", "hint"),
    [
        ("RepositoryNotFoundError", "No model 'someone/model' on the hub", "hf auth login"),
        ("GatedRepoError", "asks for permission", "hf auth login"),
        ("RevisionNotFoundError", "has no revision 'v9'", None),
        ("LocalEntryNotFoundError", "the hub cannot be reached", "hf download someone/model"),
    ],
)
def test_what_the_hub_refuses_is_one_clear_line(monkeypatch, error, message, hint):
    import huggingface_hub
    from huggingface_hub import errors

    kind = getattr(errors, error)

    def refuse(*args, **options):
        raise kind.__new__(kind)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", refuse)
    with pytest.raises(MissingArtifactError) as caught:
        find_folder("someone/model", revision="v9")
    assert message in caught.value.message
    assert (hint is None) or (hint in caught.value.hint)


def test_a_full_disk_is_one_clear_line(monkeypatch):
    import huggingface_hub

    def fill_up(*args, **options):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(huggingface_hub, "snapshot_download", fill_up)
    with pytest.raises(EexitError, match=r"could not be downloaded: No space left") as caught:
        find_folder("someone/model")
    assert "HF_HOME" in caught.value.hint


def test_the_configuration_is_read_as_it_is(tmp_path):
    assert read_config(write_checkpoint(tmp_path / "model", CONFIG, None)) == CONFIG
