"""The result store: ids, documents, atomic writes, looking runs up, user errors."""

from __future__ import annotations

import errno
import json
import math
import os
import re
import subprocess
import sys
from datetime import datetime, timedelta, timezone
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from eexit_cli.core.errors import EexitError, MissingArtifactError, UsageError
from eexit_cli.store import atomic, environment, results
from eexit_cli.store.records import encode, plain
from eexit_cli.store.results import ResultStore


@pytest.fixture
def store(tmp_path: Path) -> ResultStore:
    return ResultStore(tmp_path / "results")


def finished(store: ResultStore, command: str = "attack", **config: object) -> str:
    with store.create(command, {"model": "deebert", **config}) as run:
        run.finish(metrics={"accuracy": 0.5})
    return run.id


def test_a_run_is_written_and_read_back(store: ResultStore) -> None:
    config = {"model": "deebert", "recipe": "same-token", "seed": 7, "results_dir": Path("x")}
    before = datetime.now(timezone.utc)
    with store.create("attack", config) as run:
        assert run.document() is None
        run.append({"id": "0", "text": "schön \u2028 б"})
        run.append({"id": "1", "queries": np.int64(3)})
        document = run.finish(
            metrics={"mean_exit_layer": np.float32(2.5), "samples": 2},
            rows=[{"recipe": "same-token", "mean_exit_layer": 2.5}],
            timings={"total_seconds": 1.5},
        )

    again = store.open(run.id)
    assert again.document() == document
    assert list(document) == [
        "schema_version",
        "run_id",
        "command",
        "created",
        "config",
        "environment",
        "metrics",
        "timings",
        "rows",
    ]
    assert document["run_id"] == run.id == run.path.name
    assert document["command"] == "attack"
    assert document["config"] == {**config, "results_dir": "x"} == again.config
    assert document["metrics"] == {"mean_exit_layer": 2.5, "samples": 2}
    assert document["rows"] == [{"recipe": "same-token", "mean_exit_layer": 2.5}]
    assert document["timings"] == {"total_seconds": 1.5}
    created = datetime.fromisoformat(document["created"])
    assert created.utcoffset() == timedelta(0)
    assert before <= created <= datetime.now(timezone.utc)
    assert again.records() == [{"id": "0", "text": "schön \u2028 б"}, {"id": "1", "queries": 3}]
    # Nothing but what a reader needs stays behind: no temporary file, no lock.
    assert sorted(path.name for path in run.path.iterdir()) == [
        "all_results.json",
        "config.json",
        "records.jsonl",
    ]


@pytest.mark.parametrize(
    ("config", "middle"),
    [
        ({"model": "deebert", "recipe": "same-token"}, "attack-deebert-same-token"),
        ({"model": "mattymchen/deebert-base-sst2"}, "attack-deebert-base-sst2"),
        ({"model": "/data/My Models/größe:7/"}, "attack-gr-e-7"),
        ({"model": None}, "attack"),
        ({}, "attack"),
    ],
)
def test_ids_say_what_the_run_is(store: ResultStore, config: dict, middle: str) -> None:
    with store.create("attack", config) as run:
        match = re.fullmatch(r"(\d{8}-\d{6})-(.+)-[0-9a-f]{4}", run.id)
    assert match is not None
    assert match[2] == middle
    made = datetime.fromisoformat(run.created)
    assert match[1] == made.strftime("%Y%m%d-%H%M%S")


def test_an_id_that_is_taken_is_never_shared(
    store: ResultStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn = iter(["aaaa", "aaaa", "aaaa", "bbbb"])
    monkeypatch.setattr(results, "_new_id", lambda *_: f"run-{next(drawn)}")
    with store.create("attack", {}) as first, store.create("attack", {}) as second:
        assert (first.id, second.id) == ("run-aaaa", "run-bbbb")


def test_not_a_number_becomes_null_in_strict_json(store: ResultStore) -> None:
    with store.create("evaluate", {}) as run:
        run.append({"values": np.array([1.0, np.nan])})
        run.finish(metrics={"a": math.nan, "b": math.inf, "c": 1}, rows=[{"d": -math.inf}])
    document = store.open(run.id).document()
    assert document is not None
    assert document["metrics"] == {"a": None, "b": None, "c": 1}
    assert document["rows"] == [{"d": None}]
    assert run.records() == [{"values": [1.0, None]}]
    assert "NaN" not in (run.path / "all_results.json").read_text()


json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    # Lone surrogates too: adversarial text may hold anything that a Python string can.
    | st.text(st.characters(codec=None)),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@given(json_values)
def test_what_is_encoded_reads_back_the_same(value: object) -> None:
    assert json.loads(encode(value)) == value
    assert b"\n" not in encode(value)


def test_what_json_cannot_hold_is_a_bug_and_not_a_string() -> None:
    with pytest.raises(TypeError, match="object"):
        plain({"a": object()})
    with pytest.raises(TypeError, match="set"):
        plain({"a": {1, 2}})


def test_metrics_are_flat_numbers(store: ResultStore) -> None:
    with store.create("attack", {}) as run:
        with pytest.raises(TypeError, match="'task'"):
            run.finish(metrics={"task": "sst2"})
        with pytest.raises(TypeError, match="'exits'"):
            run.finish(metrics={"exits": [1, 2]})
        assert not run.finished


def test_a_report_goes_under_its_own_key(store: ResultStore) -> None:
    with store.create("calibrate", {}) as run:
        document = run.finish(metrics={}, report={"guarantee": "risk < 0.1", "bound": math.nan})
    assert document["report"] == {"guarantee": "risk < 0.1", "bound": None}
    assert store.open(run.id).document() == document


def test_a_run_is_finished_once_and_only_by_its_writer(store: ResultStore) -> None:
    with store.create("attack", {}) as run:
        run.finish(metrics={})
        with pytest.raises(RuntimeError, match="finished already"):
            run.finish(metrics={})
    reader = store.open(run.id)
    with pytest.raises(RuntimeError, match="reading only"):
        reader.append({"id": 1})
    with pytest.raises(RuntimeError, match="reading only"):
        run.append({"id": 1})  # closed: its lock is gone


def test_the_list_tells_finished_unfinished_and_damaged_apart(store: ResultStore) -> None:
    assert store.list() == []
    done = finished(store)
    with store.create("train", {"model": "pabee"}) as open_run:
        open_run.append({"stage": 1})
    damaged = finished(store, "evaluate")
    (store.results_dir / damaged / "all_results.json").write_text('{"metrics": ')
    (store.results_dir / "my-notes").mkdir()
    (store.results_dir / "file.txt").write_text("not a run")

    by_id = {summary.id: summary for summary in store.list()}
    assert {i: s.status for i, s in by_id.items()} == {
        done: "finished",
        open_run.id: "unfinished",
        damaged: "damaged",
    }
    assert by_id[done].metrics == {"accuracy": 0.5}
    assert by_id[done].command == "attack"
    assert by_id[open_run.id].config == {"model": "pabee"}
    assert by_id[open_run.id].metrics == {}


def test_latest_is_the_newest_finished_run_even_within_a_second(store: ResultStore) -> None:
    made = [finished(store) for _ in range(6)]
    evaluated = finished(store, "evaluate")
    store.create("attack", {}).close()
    assert store.latest("attack").id == made[-1]
    assert store.latest().id == store.open("latest").id == evaluated
    assert store.open("latest", command="attack").id == made[-1]
    assert [summary.id for summary in store.list()][:7] == [*made, evaluated]


def test_without_a_run_latest_names_the_command_that_makes_one(store: ResultStore) -> None:
    finished(store, "evaluate")
    with pytest.raises(MissingArtifactError, match="No finished attack run") as caught:
        store.latest("attack")
    assert caught.value.hint == "Run: eexit attack"
    assert caught.value.exit_code == 3


def test_runs_are_found_by_id_beginning_and_path(store: ResultStore, tmp_path: Path) -> None:
    run_id = finished(store)
    assert store.open(run_id).id == run_id
    assert store.open(run_id[:-1]).id == run_id
    elsewhere = ResultStore(tmp_path / "other")
    assert elsewhere.open(str(store.results_dir / run_id)).id == run_id
    assert elsewhere.open(f"{store.results_dir / run_id}/").id == run_id


def test_an_unknown_run_names_the_nearest(store: ResultStore) -> None:
    with pytest.raises(MissingArtifactError) as caught:
        store.open("nothing")
    assert caught.value.hint is not None
    assert "eexit attack" in caught.value.hint

    run_id = finished(store)
    with pytest.raises(MissingArtifactError) as caught:
        store.open(run_id[:-4] + "zzzz")
    assert caught.value.hint is not None
    assert run_id in caught.value.hint
    assert "\n" not in str(caught.value) + caught.value.hint
    with pytest.raises(MissingArtifactError):
        store.open("")


def test_an_ambiguous_beginning_lists_what_it_fits(store: ResultStore) -> None:
    ids = [finished(store), finished(store)]
    with pytest.raises(UsageError, match="beginning of 2 runs") as caught:
        store.open(ids[0][:6])
    assert caught.value.hint is not None
    assert all(run_id in caught.value.hint for run_id in ids)


@pytest.mark.parametrize("dots", ["…", "..."])
def test_an_id_shortened_in_its_middle_opens_its_run(store: ResultStore, dots: str) -> None:
    ids = [finished(store), finished(store)]
    for run_id in ids:
        assert store.open(f"{run_id[:15]}{dots}{run_id[-5:]}").id == run_id
    with pytest.raises(MissingArtifactError):
        store.open(f"{ids[0][:15]}{dots}-zzzz")
    with pytest.raises(UsageError, match="2 runs"):
        store.open(f"{ids[0][:6]}{dots}")


def test_a_run_of_another_command_is_refused(store: ResultStore) -> None:
    run_id = finished(store, "train")
    with pytest.raises(UsageError, match="a run of 'train', not of 'attack'"):
        store.open(run_id, command="attack")


@pytest.mark.parametrize("name", ["config.json", "all_results.json"])
@pytest.mark.parametrize(
    "content", [b"", b"{", b"[1]", b"{}", b"\xff\xfe\x00", b'{"schema_version": "one"}']
)
def test_a_damaged_file_is_one_clear_line(store: ResultStore, name: str, content: bytes) -> None:
    run_id = finished(store)
    (store.results_dir / run_id / name).write_bytes(content)
    with pytest.raises(EexitError, match=f"{name} is damaged") as caught:
        store.open(run_id).document()
    assert "\n" not in str(caught.value)
    assert caught.value.hint is not None


def test_a_document_of_a_newer_eexit_is_refused(store: ResultStore) -> None:
    run_id = finished(store)
    path = store.results_dir / run_id / "all_results.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "schema_version": 99}))
    with pytest.raises(EexitError, match="newer eexit"):
        store.open(run_id).document()


def test_a_full_disk_leaves_no_half_document(
    store: ResultStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_space(self: Path, data: bytes) -> int:
        with open(self, "wb") as stream:
            stream.write(data[:10])
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with store.create("attack", {}) as run:
        run.append({"id": 1})
        with monkeypatch.context() as patch:
            patch.setattr(Path, "write_bytes", no_space)
            with pytest.raises(OSError, match="No space left") as caught:
                run.finish(metrics={})
        assert caught.value.filename == str(run.path / "all_results.json")
        assert str(caught.value).endswith("all_results.json'")
        assert sorted(path.name for path in run.path.iterdir()) == [
            ".lock",
            "config.json",
            "records.jsonl",
        ]
        # The run goes on where it was once there is space.
        assert run.finish(metrics={})["run_id"] == run.id


def test_a_full_disk_at_the_start_leaves_no_folder(
    store: ResultStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_space(self: Path, data: bytes) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(Path, "write_bytes", no_space)
    with pytest.raises(OSError, match="No space left"):
        store.create("attack", {})
    assert list(store.results_dir.iterdir()) == []


@pytest.mark.skipif(os.name == "nt" or os.geteuid() == 0, reason="root may write everywhere")
def test_no_write_permission_names_the_folder(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    try:
        with pytest.raises(PermissionError, match="results"):
            ResultStore(tmp_path / "results").create("attack", {})
    finally:
        tmp_path.chmod(0o700)


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="needs a folder that nobody may fill")
def test_a_folder_that_nobody_may_write_to_names_itself() -> None:
    with pytest.raises(OSError, match="/proc/eexit-results") as caught:
        ResultStore("/proc/eexit-results").create("attack", {})
    assert str(caught.value.filename).startswith("/proc")


def test_a_results_dir_that_is_a_file_is_a_usage_error(tmp_path: Path) -> None:
    (tmp_path / "results").write_text("")
    for place in (tmp_path / "results", tmp_path / "results" / "below"):
        with pytest.raises(UsageError, match="is not a folder"):
            ResultStore(place).create("attack", {})


def test_atomic_write_keeps_the_old_file_until_the_new_one_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "file.json"
    atomic.write_atomically(path, b"old")

    def interrupted() -> None:
        with atomic.atomic_path(path) as temporary:
            temporary.write_bytes(b"half of the n")
            assert temporary.parent == path.parent
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]
    atomic.write_atomically(path, b"new")
    assert path.read_bytes() == b"new"


@settings(max_examples=25)
@given(st.lists(st.binary(max_size=50), min_size=1, max_size=3))
def test_the_last_atomic_write_wins_whole(
    tmp_path_factory: pytest.TempPathFactory, contents: list[bytes]
) -> None:
    path = tmp_path_factory.mktemp("atomic") / "file"
    for content in contents:
        atomic.write_atomically(path, content)
    assert path.read_bytes() == contents[-1]


def test_the_environment_says_versions_without_importing_them() -> None:
    code = (
        "import json, sys\n"
        "import eexit_cli.store.results\n"
        "from eexit_cli.store.environment import describe_environment\n"
        "found = describe_environment()\n"
        "heavy = {'torch', 'transformers', 'datasets', 'textattack', 'numpy', 'pandas'}\n"
        "print(json.dumps([found, sorted(heavy & set(sys.modules))]))"
    )
    answer = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    found, imported = json.loads(answer.stdout)
    assert imported == []
    assert found["packages"]["numpy"] == np.__version__
    assert set(found["packages"]) == {"torch", "transformers", "datasets", "textattack", "numpy"}
    assert found["python"] == ".".join(map(str, sys.version_info[:3]))
    assert found["cpu_count"] == os.cpu_count()
    assert found["threads"] >= 1


def test_a_package_that_is_not_there_has_no_version(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(environment, "PACKAGES", ("numpy", "no-such-package-anywhere"))
    assert environment.describe_environment()["packages"] == {
        "numpy": np.__version__,
        "no-such-package-anywhere": None,
    }


def git(folder: Path, *arguments: str) -> str:
    names = ["-c", "user.name=a", "-c", "user.email=a@b", "-c", "commit.gpgsign=false"]
    command = ["git", *names, *arguments]
    return subprocess.run(
        command, cwd=folder, capture_output=True, text=True, check=True
    ).stdout.strip()


def test_the_git_revision_is_that_of_the_eexit_checkout(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = tmp_path / "eexit_cli"
    package.mkdir()
    (package / "__init__.py").write_text("")
    monkeypatch.setattr(environment.eexit_cli, "__file__", str(package / "__init__.py"))
    try:
        environment.git_revision.cache_clear()
        assert environment.git_revision() is None  # not a checkout

        git(tmp_path, "init", "-q")
        git(tmp_path, "add", ".")
        git(tmp_path, "commit", "-qm", "first")
        commit = git(tmp_path, "rev-parse", "HEAD")
        environment.git_revision.cache_clear()
        assert environment.git_revision() == commit

        (package / "__init__.py").write_text("changed = True")
        environment.git_revision.cache_clear()
        assert environment.git_revision() == f"{commit}-dirty"

        # Without a git program: loose, packed and worktree references, read by hand.
        monkeypatch.setenv("PATH", "")
        environment.git_revision.cache_clear()
        assert environment.git_revision() == commit
        monkeypatch.undo()
        git(tmp_path, "pack-refs", "--all")
        assert environment._revision_from_files(tmp_path / ".git") == commit
        git(tmp_path, "worktree", "add", "-q", "-b", "side", str(tmp_path / "tree"))
        assert environment._revision_from_files(tmp_path / "tree" / ".git") == commit
        git(tmp_path, "checkout", "-q", "--detach", "-f")
        assert environment._revision_from_files(tmp_path / ".git") == commit
        assert environment._revision_from_files(tmp_path / "nowhere") is None
    finally:
        environment.git_revision.cache_clear()


def test_a_run_resumed_elsewhere_says_what_it_started_with(
    store: ResultStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    with store.create("attack", {}) as run:
        original = results.describe_environment()
        run_id = run.id
    moved = {**original, "python": "9.9.9"}
    monkeypatch.setattr(results, "describe_environment", lambda: moved)
    with store.resume(run_id) as again:
        document = again.finish(metrics={})
    assert document["environment"]["python"] == "9.9.9"
    assert document["environment"]["started_with"] == {"python": original["python"]}
