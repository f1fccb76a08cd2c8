"""The engine's promises, on processes of this machine; nothing is imitated."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from engine_work import dying, multiplying, refusing

from eexit_cli.core.errors import UsageError
from eexit_cli.engine import EngineError, Job, Work
from eexit_cli.engine.processes import Processes
from eexit_cli.engine.working import BugError

THREE = Work(multiplying, (3,))


def numbers(count: int) -> list[Job]:
    return [Job(f"number {number}", number) for number in range(count)]


@pytest.fixture
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr(tempfile, "tempdir", None)
    return tmp_path


def test_every_job_is_done_once_and_nothing_stays(temporary: Path) -> None:
    with Processes(THREE, 2) as engine:
        pids = engine.pids
        assert len(set(pids)) == 2
        done = [(job.payload, result) for job, result in engine.run(numbers(50))]
        assert sorted(done) == [(number, 3 * number) for number in range(50)]
        assert [result for _, result in engine.run(numbers(1))] == [0]
    assert engine.told.deaths == 0
    assert engine.told.startup_seconds > 0
    assert list(temporary.iterdir()) == []
    for pid in pids:
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)


def test_jobs_are_read_as_they_are_needed() -> None:
    read = []

    def endless() -> Iterator[Job]:
        for number in range(10**9):
            read.append(number)
            yield Job(str(number), number)

    with Processes(THREE, 2) as engine:
        for done, _ in enumerate(engine.run(endless()), start=1):
            assert len(read) <= done + 2
            if done == 20:
                break


def test_a_worker_that_dies_idle_or_at_work_is_replaced() -> None:
    heard: list[str] = []
    with Processes(THREE, 2, tell=heard.append) as engine:
        os.kill(engine.pids[0], signal.SIGKILL)
        results = sorted(result for _, result in engine.run(numbers(20)))
        assert results == [3 * number for number in range(20)]
        assert engine.told.deaths == 1
        assert heard[0].startswith("A worker died (killed by SIGKILL); another takes its place")


def test_a_job_that_kills_every_worker_is_given_up_and_the_others_are_done() -> None:
    heard: list[str] = []
    jobs = [Job("the deadly one", "die"), *numbers(5), Job("the one that leaves", "leave")]
    with Processes(THREE, 2, tell=heard.append) as engine:
        results = sorted(result for _, result in engine.run(jobs))
    assert results == [0, 3, 6, 9, 12]
    assert engine.told.deaths == 6
    assert engine.told.failed == {
        "the deadly one": "cost 3 workers, the last one killed by SIGKILL",
        "the one that leaves": "cost 3 workers, the last one exit code 7: the last thing it said",
    }
    assert "Given up: the deadly one cost 3 workers, the last one killed by SIGKILL" in heard


def test_a_job_past_its_time_fails_alone_and_costs_no_death() -> None:
    with Processes(THREE, 2, timeout=3.0) as engine:
        sleeping = engine.pids
        results = [r for _, r in engine.run([Job("the slow one", "sleep"), *numbers(4)])]
        assert sorted(results) == [0, 3, 6, 9]
        assert engine.told.failed == {"the slow one": "took longer than 3 s"}
        assert engine.told.deaths == 0
        (gone,) = set(sleeping) - set(engine.pids)
        with pytest.raises(ProcessLookupError):
            os.kill(gone, 0)


def test_errors_of_jobs_and_of_the_set_up_are_the_callers() -> None:
    with Processes(THREE, 1) as engine:
        with pytest.raises(UsageError, match="This cannot be") as raised:
            list(engine.run([Job("it", "refuse")]))
        assert raised.value.hint == "Do otherwise"
    with Processes(THREE, 1) as engine, pytest.raises(BugError, match="ZeroDivisionError: a bug"):
        list(engine.run([Job("it", "fail")]))
    with pytest.raises(UsageError, match="No such model"), Processes(Work(refusing), 2):
        pytest.fail("it was set up")


def test_workers_that_die_as_they_start_are_one_error(temporary: Path) -> None:
    with (
        pytest.raises(EngineError, match=r"die as they start \(killed by SIGKILL\)"),
        Processes(Work(dying), 2),
    ):
        pytest.fail("it was set up")
    assert list(temporary.iterdir()) == []


def test_a_worker_has_one_thread_and_no_terminal(capfd: pytest.CaptureFixture[str]) -> None:
    with Processes(THREE, 1) as engine:
        jobs = [Job("1", "threads"), Job("2", "print")]
        (_, (threads, pid)), (_, printed) = engine.run(jobs)
        assert (threads, pid, printed) == ("1", engine.pids[0], "printed")
    assert capfd.readouterr() == ("", "")
    assert os.environ.get("OMP_NUM_THREADS") is None or pid != os.getpid()


SCRIPT = """
from engine_work import multiplying
from eexit_cli.engine import Job, Work
from eexit_cli.engine.processes import Processes
print("begun")
with Processes(Work(multiplying, (2,)), 1) as engine:
    print([result for _, result in engine.run([Job("1", 21)])])
"""


def test_a_script_needs_no_guard(tmp_path: Path) -> None:
    (tmp_path / "script.py").write_text(SCRIPT)
    path = os.pathsep.join(filter(None, sys.path))
    done = subprocess.run(
        [sys.executable, tmp_path / "script.py"],
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == "begun\n[42]\n"
