"""Kills, locks and races: what other processes can and cannot do to a run."""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from eexit_cli.core.errors import EexitError, MissingArtifactError, UsageError
from eexit_cli.store.locking import RunLock
from eexit_cli.store.records import RecordFile
from eexit_cli.store.results import ResultStore

WRITER = """
import sys
from eexit_cli.store.results import ResultStore
store = ResultStore(sys.argv[1])
run = store.resume(sys.argv[2]) if len(sys.argv) > 2 else store.create("attack", {"model": "m"})
number = len(run.records())
print(run.id, flush=True)
while True:
    run.append({"id": number, "text": "x" * 200})
    number += 1
"""

needs_posix = pytest.mark.skipif(os.name == "nt", reason="kill -9 and os.write are POSIX")


def start_writer(store: ResultStore, *run_id: str) -> tuple[subprocess.Popen[str], str]:
    process = subprocess.Popen(
        [sys.executable, "-c", WRITER, str(store.results_dir), *run_id],
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    return process, process.stdout.readline().strip()


def wait_for_records(store: ResultStore, run_id: str, more_than: int) -> None:
    deadline = time.monotonic() + 60
    while len(store.open(run_id).records()) <= more_than:
        assert time.monotonic() < deadline
        time.sleep(0.02)


@needs_posix
def test_a_killed_run_keeps_its_records_frees_its_lock_and_goes_on(tmp_path: Path) -> None:
    store = ResultStore(tmp_path)
    process, run_id = start_writer(store)
    try:
        wait_for_records(store, run_id, 20)
        with pytest.raises(EexitError, match=f"written by process {process.pid}"):
            store.resume(run_id)
    finally:
        process.send_signal(signal.SIGKILL)
        process.communicate()

    survived = len(store.open(run_id).records())
    again, same_id = start_writer(store, run_id)
    try:
        assert same_id == run_id
        wait_for_records(store, run_id, survived)
    finally:
        again.send_signal(signal.SIGKILL)
        again.communicate()

    with store.resume("latest") as run:
        assert run.id == run_id
        ids = [record["id"] for record in run.records()]
        assert ids == list(range(len(ids)))
        assert len(ids) > survived > 20
        run.finish(metrics={"samples": len(ids)})
    with pytest.raises(UsageError, match="nothing to resume"):
        store.resume(run_id)
    with pytest.raises(MissingArtifactError, match="No unfinished run"):
        store.resume("latest")


@settings(max_examples=50)
@given(
    records=st.lists(st.fixed_dictionaries({"text": st.text()}), min_size=1, max_size=4),
    data=st.data(),
)
def test_wherever_the_last_line_is_torn_the_whole_ones_stay(
    tmp_path_factory: pytest.TempPathFactory, records: list[dict[str, str]], data: st.DataObject
) -> None:
    path = tmp_path_factory.mktemp("torn") / "records.jsonl"
    writer = RecordFile(path)
    ends = []
    for record in records:
        writer.append(record)
        ends.append(path.stat().st_size)
    writer.close()
    cut = data.draw(st.integers(0, ends[-1]))
    os.truncate(path, cut)
    whole = sum(end <= cut for end in ends)

    reopened = RecordFile(path)
    assert reopened.read() == records[:whole]
    reopened.repair()
    reopened.append({"text": "next"})
    assert reopened.read() == [*records[:whole], {"text": "next"}]
    reopened.close()


@pytest.mark.parametrize("tail", [b"\0" * 100, b'{"id": 2', b"\0\0\n", b"[1, 2]\n", b"\xff\xfe\n"])
def test_resuming_cuts_off_whatever_a_crash_left_at_the_end(tmp_path: Path, tail: bytes) -> None:
    store = ResultStore(tmp_path)
    with store.create("attack", {}) as run:
        run.append({"id": 1})
    with (run.path / "records.jsonl").open("ab") as stream:
        stream.write(tail)
    assert store.open(run.id).records() == [{"id": 1}]
    with store.resume(run.id) as resumed:
        resumed.append({"id": 2})
        assert resumed.records() == [{"id": 1}, {"id": 2}]


def test_damage_before_the_last_line_is_an_error_that_names_it(tmp_path: Path) -> None:
    store = ResultStore(tmp_path)
    with store.create("attack", {}) as run:
        run.append({"id": 1})
    with (run.path / "records.jsonl").open("ab") as stream:
        stream.write(b'{"id": \n{"id": 3}\n')
    with pytest.raises(EexitError, match=r"records\.jsonl is damaged at line 2"):
        store.open(run.id).records()
    with pytest.raises(EexitError, match=r"damaged at line 2"):
        store.resume(run.id)
    # The failed attempt holds no lock.
    (run.path / "records.jsonl").write_bytes(b'{"id": 1}\n')
    store.resume(run.id).close()


@needs_posix
def test_a_disk_that_fills_up_within_a_record_takes_the_record_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = ResultStore(tmp_path)
    with store.create("attack", {}) as run:
        run.append({"id": 1})
        real_write, calls = os.write, []

        def fills_up(descriptor: int, data: bytes) -> int:
            calls.append(len(data))
            if len(calls) == 1:
                return real_write(descriptor, bytes(data)[:5])
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

        with monkeypatch.context() as patch:
            patch.setattr(os, "write", fills_up)
            with pytest.raises(OSError, match="No space left") as caught:
                run.append({"id": 2})
        assert len(calls) == 2
        assert caught.value.filename == str(run.path / "records.jsonl")
        run.append({"id": 3})
        assert (run.path / "records.jsonl").read_text() == '{"id": 1}\n{"id": 3}\n'


def test_two_cannot_write_to_one_run(tmp_path: Path) -> None:
    store = ResultStore(tmp_path)
    run = store.create("attack", {})
    with pytest.raises(EexitError, match=f"is being written by process {os.getpid()}") as caught:
        store.resume(run.id)
    assert caught.value.hint is not None
    run.close()
    run.close()
    with store.resume(run.id) as second, pytest.raises(EexitError, match="is being written"):
        store.resume(second.id)
    # An exception releases it too.
    with pytest.raises(ZeroDivisionError), store.resume(run.id):
        raise ZeroDivisionError
    store.resume(run.id).close()


CREATOR = """
import itertools, sys, time
from eexit_cli.store import results
drawn = itertools.count()
results.secrets.token_hex = lambda size: f"{next(drawn) // 3:04x}"
store = results.ResultStore(sys.argv[1])
time.sleep(max(0.0, float(sys.argv[2]) - time.time()))
for _ in range(15):
    with store.create("attack", {"model": "same"}) as run:
        run.append({"writer": sys.argv[3]})
        run.finish(metrics={"writer": int(sys.argv[3])})
        print(run.id, flush=True)
"""


def test_parallel_processes_never_share_a_folder(tmp_path: Path) -> None:
    """Every process draws the same few suffixes at the same time, so that they must collide."""
    start = time.time() + 2.0
    arguments = [
        [sys.executable, "-c", CREATOR, str(tmp_path / "results"), str(start), str(number)]
        for number in range(4)
    ]
    with ThreadPoolExecutor(4) as pool:
        done = list(
            pool.map(lambda a: subprocess.run(a, capture_output=True, text=True), arguments)
        )
    assert [process.stderr for process in done] == [""] * 4
    ids = [process.stdout.split() for process in done]
    assert sum(map(len, ids)) == 60
    assert len({run_id for made in ids for run_id in made}) == 60
    store = ResultStore(tmp_path / "results")
    for number, made in enumerate(ids):
        for run_id in made:
            run = store.open(run_id)
            assert run.records() == [{"writer": str(number)}]
            document = run.document()
            assert document is not None
            assert document["metrics"] == {"writer": number}


@needs_posix
def test_where_the_file_system_knows_no_locks_a_claim_file_stands_in(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import fcntl

    def no_locks(descriptor: int, operation: int) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", no_locks)
    store = ResultStore(tmp_path)
    run = store.create("attack", {})
    with pytest.raises(EexitError, match=f"written by process {os.getpid()}") as caught:
        store.resume(run.id)
    assert caught.value.hint is not None
    assert str(run.path / ".lock.claim") in caught.value.hint
    run.close()
    with store.resume(run.id) as again:
        again.finish(metrics={})
    assert sorted(path.name for path in run.path.iterdir()) == ["all_results.json", "config.json"]


@needs_posix
def test_other_lock_failures_are_not_swallowed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import fcntl

    def broken(descriptor: int, operation: int) -> None:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(fcntl, "flock", broken)
    lock = RunLock(tmp_path / "lock")
    with pytest.raises(OSError, match="Input/output"):
        lock.acquire()
    assert not lock.held


def test_records_are_lines_of_json_that_other_tools_read(tmp_path: Path) -> None:
    store = ResultStore(tmp_path)
    with store.create("attack", {}) as run:
        run.append({"text": "line\nbreak\u2028and\x85more"})
        run.append({"text": "\ud800 alone"})
    lines = (run.path / "records.jsonl").read_bytes().split(b"\n")
    assert lines.pop() == b""
    assert [json.loads(line) for line in lines] == run.records()
    assert len(lines) == 2
