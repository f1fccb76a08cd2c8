"""Calibrated thresholds: kept with the model, found again, and stale when anything changed."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest

from eexit_cli.core.errors import EexitError, MissingArtifactError, UsageError
from eexit_cli.store import calibrations
from eexit_cli.store.calibrations import (
    StoredCalibration,
    find,
    keep,
    keeping,
    listed,
    place,
    weights_digest,
)
from eexit_cli.store.conditions import generation_digest, not_noted, tokenizer_digest
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


def test_what_is_calibrated_again_replaces_itself(folder: Path) -> None:
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


# Several -----------------------------------------------------------------------------------------


def test_whatever_was_asked_otherwise_is_kept_beside(folder: Path) -> None:
    changes = [
        {},
        {"delta": 0.05},
        {"epsilon": 0.1},
        {"consistency": "risk"},
        {"p_value_name": "betting"},
        {"procedure": "holm"},
        {"metric": "exact-match"},
        {"texts": ["0a"]},
        {"task": "tweets"},
        {"conditions": {"dtype": "bfloat16"}},
        {"certified": False},
    ]
    for number, change in enumerate(changes):
        keep(own(folder), folder, entry(folder, run_id=f"run-{number}", **change))
    keep(own(folder), folder, entry(folder, run_id="again", created="2026-02-02T00:00:00+00:00"))
    kept = [found.run_id for found, _ in listed(own(folder), folder)]
    assert kept == [*(f"run-{number}" for number in range(1, len(changes))), "again"]


def test_the_last_certified_one_is_taken(folder: Path) -> None:
    def failed(run: str) -> StoredCalibration:
        return entry(folder, run_id=run, delta=0.001, certified=False)

    ref = own(folder)
    keep(ref, folder, failed("failed-1"))
    assert find(ref, folder, task="movie-reviews").run_id == "failed-1"
    keep(ref, folder, entry(folder, run_id="good-1"))
    keep(ref, folder, entry(folder, run_id="good-2", delta=0.2))
    keep(ref, folder, failed("failed-2"))
    assert find(ref, folder, task="movie-reviews").run_id == "good-2"
    states = {found.run_id: state for found, state in listed(ref, folder)}
    # The two failures say the same, so the second replaced the first.
    assert states == {"good-1": "kept", "good-2": "taken", "failed-2": "kept"}


def test_another_is_named_by_its_run(folder: Path) -> None:
    ref = own(folder)
    ids = ("20261121-1-calibrate-mine-ab12", "20261121-2-calibrate-mine-cd34")
    for number, run in enumerate(ids):
        keep(ref, folder, entry(folder, run_id=run, delta=0.1 + number / 100))
    for name, expected in (
        (ids[0], ids[0]),
        ("20261121-1", ids[0]),
        ("20261121-2…-cd34", ids[1]),
        ("20261121…-ab12", ids[0]),
    ):
        assert find(ref, folder, task=None, run=name).run_id == expected
    with pytest.raises(UsageError, match="beginning of 2 calibrations") as several:
        find(ref, folder, task=None, run="20261121")
    assert all(run in several.value.hint for run in ids)
    with pytest.raises(MissingArtifactError, match="keeps no calibration of run 'other'") as no:
        find(ref, folder, task=None, run="other")
    assert no.value.hint == "See what it keeps: eexit models show mine"
    with pytest.raises(MissingArtifactError, match="for task 'movie-reviews', not for 'tweets'"):
        find(ref, folder, task="tweets", run=ids[0])


def test_an_error_puts_the_old_file_back(folder: Path) -> None:
    path = folder / "calibration.json"

    def interrupted() -> None:
        with keeping(own(folder), folder, entry(folder, run_id="new", delta=0.3)) as written:
            assert b'"new"' in written.read_bytes()
            raise KeyboardInterrupt

    for before in (None, b"kept"):
        if before is not None:
            keep(own(folder), folder, entry(folder))
            before = path.read_bytes()
        with pytest.raises(KeyboardInterrupt):
            interrupted()
        assert (path.read_bytes() if path.exists() else None) == before
    with keeping(own(folder), folder, entry(folder, run_id="new", delta=0.3)):
        pass
    assert find(own(folder), folder, task=None).run_id == "new"


# Conditions --------------------------------------------------------------------------------------

MADE = {
    "max_length": 64,
    "dtype": "float32",
    "lower_case": True,
    "source_prefix": "",
    "tokenizer": "aa",
    "generation": None,
}


@pytest.mark.parametrize(
    ("changes", "said", "repair"),
    [
        ({"max_length": 32}, "--max-length 64, not 32", " --max-length 32"),
        ({"dtype": "bfloat16"}, "--dtype float32, not bfloat16", " --dtype bfloat16"),
        ({"lower_case": False}, "--lower-case, not --no-lower-case", " --no-lower-case"),
        ({"source_prefix": "zz: "}, "--source-prefix '', not 'zz: '", " --source-prefix 'zz: '"),
        ({"tokenizer": "bb"}, "another tokenizer", ""),
        ({"generation": "cc"}, "another generation_config.json", ""),
        (
            {"dtype": "float16", "tokenizer": "bb"},
            "--dtype float32, not float16; another tokenizer",
            " --dtype float16",
        ),
    ],
)
def test_other_conditions_make_it_stale(folder: Path, changes, said, repair) -> None:
    keep(own(folder), folder, entry(folder, conditions=MADE))
    assert find(own(folder), folder, task=None, conditions=MADE).run_id == "run-1"
    with pytest.raises(MissingArtifactError) as stale:
        find(own(folder), folder, task=None, conditions={**MADE, **changes})
    assert stale.value.message == (
        f"The calibration of 'mine' is stale: run run-1 was made with {said}"
    )
    assert stale.value.hint == f"Run: eexit calibrate --model mine{repair}"


def test_weights_that_an_older_eexit_did_not_note_were_float(folder: Path) -> None:
    keep(own(folder), folder, entry(folder, conditions=MADE))
    now = {**MADE, "weights": "float"}
    assert find(own(folder), folder, task=None, conditions=now).run_id == "run-1"
    assert not_noted(MADE, now) == []
    with pytest.raises(MissingArtifactError) as stale:
        find(own(folder), folder, task=None, conditions={**now, "weights": "int8"})
    assert stale.value.message.endswith(" was made with --weights float, not int8")
    assert stale.value.hint == "Run: eexit calibrate --model mine --weights int8"


def test_int8_weights_are_those_of_a_kind_of_processor(folder: Path) -> None:
    made = {**MADE, "weights": "int8", "weight_width": 127}
    keep(own(folder), folder, entry(folder, conditions=made))
    with pytest.raises(MissingArtifactError) as stale:
        find(own(folder), folder, task=None, conditions={**made, "weight_width": 63})
    assert stale.value.message.endswith(
        " was made with another kind of processor, which rounds int8 weights otherwise"
    )
    assert stale.value.hint == "Run: eexit calibrate --model mine"


def test_the_one_of_the_conditions_is_taken(folder: Path) -> None:
    for length in (64, 32, 16):
        conditions = {**MADE, "max_length": length}
        keep(own(folder), folder, entry(folder, run_id=f"cut-{length}", conditions=conditions))
    for length in (64, 32, 16):
        conditions = {**MADE, "max_length": length}
        found = find(own(folder), folder, task=None, conditions=conditions)
        assert found.run_id == f"cut-{length}"


def test_the_first_schema_is_read_and_says_what_it_did_not_note(folder: Path) -> None:
    old = dataclasses.asdict(entry(folder))
    del old["conditions"], old["metric"]
    content = {"schema_version": 1, "calibrations": [{**old, "limits": {"max_length": 64}}]}
    (folder / "calibration.json").write_text(json.dumps(content), encoding="utf-8")
    found = find(own(folder), folder, task=None, conditions=MADE)
    assert found == entry(folder, conditions={"max_length": 64})
    assert not_noted(found.conditions, MADE) == [
        "--dtype", "--lower-case", "--source-prefix", "tokenizer", "generation_config.json",
    ]  # fmt: skip
    with pytest.raises(MissingArtifactError, match="--max-length 64, not 32"):
        find(own(folder), folder, task=None, conditions={**MADE, "max_length": 32})
    keep(own(folder), folder, entry(folder, run_id="run-2", conditions=MADE))
    assert [e.run_id for e, _ in listed(own(folder), folder)] == ["run-1", "run-2"]


def test_a_tokenizer_is_its_files(folder: Path) -> None:
    seen = {tokenizer_digest(folder)}
    for name, content in (
        ("tokenizer.json", "{}"),
        ("tokenizer.json", "{ }"),
        ("vocab.txt", "a"),
        ("tokenizer_config.json", '{"do_lower_case": true}'),
        ("special_tokens_map.json", "{}"),
        ("added_tokens.json", "{}"),
        ("spiece.model", "a"),
    ):
        (folder / name).write_text(content, encoding="utf-8")
        seen.add(tokenizer_digest(folder))
    assert len(seen) == 8
    now = tokenizer_digest(folder)
    (folder / "README.md").write_text("read me", encoding="utf-8")
    assert tokenizer_digest(folder) == now


def test_what_a_decoder_may_write_is_part_of_the_promise(folder: Path) -> None:
    before = generation_digest(folder)
    asked = folder / "generation_config.json"
    asked.write_text('{"forced_bos_token_id": 3}', encoding="utf-8")
    forced = generation_digest(folder)
    asked.write_text('{"forced_bos_token_id": 4}', encoding="utf-8")
    assert len({before, forced, generation_digest(folder)}) == 3


def test_generation_settings_are_what_they_set(folder: Path) -> None:
    assert generation_digest(folder) is None
    path = folder / "generation_config.json"
    path.write_text('{"eos_token_id": 1, "num_beams": 1}', encoding="utf-8")
    one = generation_digest(folder)
    path.write_text(
        '{"num_beams": 1, "transformers_version": "5.0", "eos_token_id": 1}', encoding="utf-8"
    )
    assert generation_digest(folder) == one
    path.write_text('{"num_beams": 1, "eos_token_id": 2}', encoding="utf-8")
    assert generation_digest(folder) != one


def test_a_list_says_what_is_stale(folder: Path) -> None:
    (folder / "tokenizer.json").write_text("{}", encoding="utf-8")
    conditions = {**MADE, "tokenizer": tokenizer_digest(folder)}
    keep(own(folder), folder, entry(folder, conditions=conditions))
    keep(own(folder), folder, entry(folder, run_id="run-2", conditions=MADE))
    states = [state for _, state in listed(own(folder), folder)]
    assert states == ["taken", "stale"]
    (folder / "config.json").write_text("{ }", encoding="utf-8")
    assert {state for _, state in listed(own(folder), folder)} == {"stale"}
