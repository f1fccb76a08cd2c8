"""Calibrated thresholds: kept with the model, found again, and stale when anything changed."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest

from eexit_cli.core.errors import EexitError, MissingArtifactError
from eexit_cli.store import calibrations
from eexit_cli.store.calibrations import StoredCalibration, find, keep, place, weights_digest
from eexit_cli.store.models import ModelRef


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "config.json").write_text("{}", encoding="utf-8")
    (folder / "model.safetensors").write_bytes(b"weights")
    return folder


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("EEXIT_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


def own(folder: Path) -> ModelRef:
    return ModelRef(name="mine", kind="folder", path=folder)


def entry(folder: Path, **changes) -> StoredCalibration:
    made = StoredCalibration(
        weights=weights_digest(folder),
        task="movie-reviews",
        settings={"criterion": "threshold", "confidence": "entropy", "threshold": 0.25},
        certified=True,
        guarantee="With probability at least 95 % ...",
        delta=0.1,
        epsilon=0.05,
        consistency="textual",
        p_value_name="hoeffding-bentkus",
        procedure="fixed-sequence",
        p_value=0.01,
        samples=500,
        texts=["0f"],
        run_id="run-1",
        created="2026-01-01T00:00:00+00:00",
    )
    return dataclasses.replace(made, **changes)


def test_what_is_kept_is_found(folder: Path) -> None:
    path = keep(own(folder), folder, entry(folder))
    assert path == folder / "calibration.json"
    assert find(own(folder), folder, task="movie-reviews") == entry(folder)
    assert find(own(folder), folder, task=None) == entry(folder)
    assert sorted(item.name for item in folder.iterdir()) == [
        "calibration.json", "config.json", "model.safetensors",
    ]  # fmt: skip


@pytest.mark.parametrize("kind", ["bundled", "hub"])
def test_what_is_not_the_users_is_kept_under_his_home(folder: Path, home: Path, kind) -> None:
    ref = ModelRef(name="deebert", kind=kind, path=folder)
    path = keep(ref, folder, entry(folder))
    assert path == home / "calibrations" / f"{weights_digest(folder)}.json"
    assert not (folder / "calibration.json").exists()
    assert find(ref, folder, task="movie-reviews") == entry(folder)


def test_the_newest_of_a_task_and_criterion_replaces_the_older(folder: Path) -> None:
    ref = own(folder)
    margin = {"criterion": "threshold", "confidence": "margin", "threshold": 0.9}
    for change in (
        {"run_id": "1"},
        {"run_id": "2", "task": "tweets"},
        {"run_id": "3", "settings": margin},
        {"run_id": "4"},
    ):
        keep(ref, folder, entry(folder, **change))
    stored = json.loads((folder / "calibration.json").read_text(encoding="utf-8"))
    assert [item["run_id"] for item in stored["calibrations"]] == ["2", "3", "4"]
    assert find(ref, folder, task="movie-reviews").run_id == "4"
    assert find(ref, folder, task="movie-reviews", confidence="margin").run_id == "3"
    assert find(ref, folder, task="tweets").run_id == "2"


def test_none_yet_names_the_command(folder: Path) -> None:
    with pytest.raises(MissingArtifactError, match="No calibration for 'mine'") as caught:
        find(own(folder), folder, task="movie-reviews")
    assert caught.value.hint == "Run: eexit calibrate --model mine"
    keep(own(folder), folder, entry(folder))
    with pytest.raises(MissingArtifactError, match="No calibration on 'margin'") as caught:
        find(own(folder), folder, task="movie-reviews", confidence="margin")
    assert caught.value.hint == "Run: eexit calibrate --model mine --confidence margin"


@pytest.mark.parametrize("changed", ["config.json", "model.safetensors"])
def test_a_changed_model_makes_it_stale(folder: Path, changed: str) -> None:
    keep(own(folder), folder, entry(folder))
    (folder / changed).write_bytes(b"{} ")
    with pytest.raises(MissingArtifactError, match=r"is stale.*run-1") as caught:
        find(own(folder), folder, task="movie-reviews")
    assert "eexit calibrate --model mine" in caught.value.hint
    # A new calibration clears the stale one away.
    keep(own(folder), folder, entry(folder, run_id="run-2", task="tweets"))
    stored = json.loads((folder / "calibration.json").read_text(encoding="utf-8"))
    assert [item["run_id"] for item in stored["calibrations"]] == ["run-2"]


def test_another_task_is_refused(folder: Path) -> None:
    keep(own(folder), folder, entry(folder))
    with pytest.raises(
        MissingArtifactError, match="for task 'movie-reviews', not for 'tweets'"
    ) as e:
        find(own(folder), folder, task="tweets")
    assert e.value.hint == "Run: eexit calibrate --model mine --task tweets"


@pytest.mark.parametrize(
    "content",
    ["", "[]", "{", '{"schema_version": 1}', '{"schema_version": 1, "calibrations": [1]}'],
)
def test_a_damaged_file_is_said_to_be(folder: Path, content: str) -> None:
    (folder / "calibration.json").write_text(content, encoding="utf-8")
    with pytest.raises(EexitError, match="is damaged"):
        find(own(folder), folder, task="movie-reviews")


def test_a_newer_file_is_not_misread(folder: Path) -> None:
    (folder / "calibration.json").write_text('{"schema_version": 9, "calibrations": []}')
    with pytest.raises(EexitError, match="newer eexit"):
        find(own(folder), folder, task="movie-reviews")


def test_a_failed_write_leaves_the_old_file(folder: Path, monkeypatch) -> None:
    keep(own(folder), folder, entry(folder))
    before = (folder / "calibration.json").read_bytes()

    def fail(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.replace", fail)
    with pytest.raises(OSError, match="No space left"):
        keep(own(folder), folder, entry(folder, run_id="run-2"))
    assert (folder / "calibration.json").read_bytes() == before
    assert len(list(folder.iterdir())) == 3


@pytest.mark.parametrize(
    ("platform", "variables", "expected"),
    [
        ("linux", {"XDG_DATA_HOME": "/data"}, "/data/eexit"),
        ("linux", {}, "/home/me/.local/share/eexit"),
        ("darwin", {}, "/home/me/Library/Application Support/eexit"),
    ],
)
def test_the_platforms_place(monkeypatch, platform, variables, expected) -> None:
    monkeypatch.delenv("EEXIT_HOME")
    monkeypatch.delenv("XDG_DATA_HOME", raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr("sys.platform", platform)
    monkeypatch.setattr(Path, "home", lambda: Path("/home/me"))
    assert calibrations.home() == Path(expected)


def test_no_weights(tmp_path: Path) -> None:
    with pytest.raises(MissingArtifactError, match="no weights"):
        weights_digest(tmp_path)


def test_a_folder_that_cannot_be_written_to_uses_the_home(folder, home, monkeypatch) -> None:
    monkeypatch.setattr("os.access", lambda *_: False)
    assert place(own(folder), folder, "abc") == home / "calibrations" / "abc.json"


def test_what_a_decoder_may_write_is_part_of_the_model(folder: Path) -> None:
    before = weights_digest(folder)
    asked = folder / "generation_config.json"
    asked.write_text('{"forced_bos_token_id": 3}', encoding="utf-8")
    forced = weights_digest(folder)
    asked.write_text('{"forced_bos_token_id": 4}', encoding="utf-8")
    assert len({before, forced, weights_digest(folder)}) == 3
