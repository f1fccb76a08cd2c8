"""The engine's promises on a real Ray, started here."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from engine_work import dying, multiplying, reading

from eexit_cli.core.errors import EexitError, MissingArtifactError, UsageError
from eexit_cli.engine import EngineError, Job, Work
from eexit_cli.engine import ray as engine_ray
from eexit_cli.engine.ray import Actors
from eexit_cli.engine.working import environment

ray = pytest.importorskip("ray")

pytestmark = [
    pytest.mark.xdist_group("ray"),
    # Ray's own: a socket that its shutdown leaves to the garbage collector.
    pytest.mark.filterwarnings("ignore"),
]

THREE = Work(multiplying, (3,))


def numbers(count: int) -> list[Job]:
    return [Job(f"number {number}", number) for number in range(count)]


@pytest.fixture(scope="module")
def here() -> Iterator[Any]:
    """A Ray for all tests of this file: each start of one takes seconds."""
    folder = tempfile.mkdtemp(prefix="ray-", dir="/tmp")
    ray.init(
        address="local",
        num_cpus=3,
        include_dashboard=False,
        log_to_driver=False,
        _temp_dir=folder,
        runtime_env={"env_vars": environment()},
    )
    yield ray
    ray.shutdown()
    subprocess.run(["rm", "-rf", folder], check=True)


def test_jobs_deaths_and_time_limits(here: Any, capfd: pytest.CaptureFixture[str]) -> None:
    heard: list[str] = []
    jobs = [Job("the deadly one", "die"), *numbers(20), Job("the slow one", "sleep")]
    with Actors(THREE, 2, timeout=8.0, tell=heard.append) as engine:
        pids = engine.pids
        assert len(set(pids)) == 2
        os.kill(pids[0], signal.SIGKILL)
        results = sorted(result for _, result in engine.run(jobs))
        told = engine.told
    assert results == [3 * number for number in range(20)]
    assert told.nodes == 1
    # The killed worker may have had the deadly one in its hands.
    assert told.deaths in (3, 4)
    assert set(told.failed) == {"the deadly one", "the slow one"}
    assert told.failed["the deadly one"].startswith("cost 3 workers, the last one ")
    assert told.failed["the slow one"] == "took longer than 8 s"
    assert sum(line.startswith("A worker died") for line in heard) == told.deaths - 1
    assert capfd.readouterr().out == "", "what Ray says of dead workers would break --json"
    assert here.is_initialized(), "what the caller began is his to end"


def test_as_many_workers_as_there_is_room_for(here: Any) -> None:
    with Actors(THREE, None) as engine:
        assert engine.told.workers == 3
    heard: list[str] = []
    with Actors(THREE, 5, most=4, tell=heard.append) as engine:
        assert engine.told.workers == 4
        assert len(list(engine.run(numbers(9)))) == 9
    assert heard == ["The cluster has room for 3 of 4 workers at a time"]


def test_errors_are_the_callers(here: Any) -> None:
    with pytest.raises(EngineError, match="die as they start"), Actors(Work(dying), 2):
        pytest.fail("it was set up")
    with Actors(THREE, 1) as engine, pytest.raises(UsageError, match="This cannot be"):
        list(engine.run([Job("it", "refuse")]))


def test_more_gpus_than_a_node_has(here: Any) -> None:
    with (
        pytest.raises(UsageError, match=r"GPUs: 0, and --gpus-per-worker asks for 0\.5"),
        Actors(THREE, 1, gpus=0.5),
    ):
        pytest.fail("it was set up")


def test_a_folder_that_a_machine_lacks_is_sent(
    here: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Workers of another machine do not see it: here it is hidden once it has been packed."""
    folder = tmp_path / "model"
    (folder / "deep").mkdir(parents=True)
    (folder / "deep" / "weights").write_text("0.5")
    real = engine_ray._packed

    def pack_and_hide(place: Path) -> dict[str, bytes]:
        files = real(place)
        place.rename(tmp_path / "elsewhere")
        return files

    monkeypatch.setattr(engine_ray, "_packed", pack_and_hide)
    jobs = [Job(str(number), "deep/weights") for number in range(4)]
    with Actors(Work(reading, (str(folder),), (str(folder),)), 2) as engine:
        read = {result for _, result in engine.run(jobs)}
    ((content, place),) = read
    assert content == "0.5"
    assert place != str(folder)
    subprocess.run(["rm", "-rf", place], check=True)


@pytest.mark.parametrize("token", [True, False])
def test_no_cluster_at_an_address(
    token: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("RAY_AUTH_MODE", raising=False)
    if token:
        (tmp_path / ".ray").mkdir()
        (tmp_path / ".ray" / "auth_token").write_text("00")
    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    monkeypatch.setattr(ray, "init", _refusing("Could not find any running Ray instance"))
    with pytest.raises(EexitError, match="No Ray cluster answers at auto") as raised:
        Actors(THREE, 1, address="auto").__enter__()
    assert "ray start --head" in str(raised.value.hint)
    assert ("RAY_AUTH_MODE=token" in str(raised.value.hint)) == token
    monkeypatch.setattr(ray, "init", _refusing("Version mismatch: the cluster has Ray 1.0"))
    with pytest.raises(EexitError, match="another Python or Ray: Version mismatch") as raised:
        Actors(THREE, 1, address="auto").__enter__()
    assert f"Ray {ray.__version__} here" in str(raised.value.hint)
    monkeypatch.setattr(ray, "init", _refusing("Ray Client requires pip package `ray[client]`."))
    with pytest.raises(MissingArtifactError, match="needs Ray's client"):
        Actors(THREE, 1, address="ray://head:10001").__enter__()


def _refusing(said: str) -> Any:
    def init(**others: Any) -> None:
        raise RuntimeError(said)

    return init


def test_ray_that_is_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(MissingArtifactError, match="--engine ray needs Ray") as raised:
        Actors(THREE, 1)
    assert raised.value.hint == "pip install 'eexit[ray]'"


OWN = """
import os, sys, tempfile
from engine_work import multiplying
from eexit_cli.engine import Job, Work
from eexit_cli.engine.ray import Actors
if __name__ == "__main__":
    with Actors(Work(multiplying, (2,)), 1) as engine:
        own = engine._own
        assert os.path.isdir(own)
        print([result for _, result in engine.run([Job("1", 21), Job("2", "print")])])
    assert not os.path.exists(own)
"""


def test_a_ray_of_its_own_is_gone_afterwards(here: Any, tmp_path: Path) -> None:
    """It is begun beside one that another program has for itself, which is left alone."""
    (tmp_path / "own.py").write_text(OWN)
    variables = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    variables.pop("RAY_ADDRESS", None)
    done = subprocess.run(
        [sys.executable, tmp_path / "own.py"],
        env=variables,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout == "[42, 'printed']\n", done.stderr
    assert done.returncode == 0


def test_a_cluster_of_ray_start_is_joined(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_TMPDIR", str(tmp_path))
    noted = tmp_path / "ray" / "ray_current_cluster"
    assert not engine_ray._started_here()
    noted.parent.mkdir()
    with socket.create_server(("127.0.0.1", 0)) as listening:
        noted.write_text(f"127.0.0.1:{listening.getsockname()[1]}\n")
        assert engine_ray._started_here()
        called: list[dict[str, Any]] = []
        monkeypatch.setattr(ray, "is_initialized", lambda: False)
        monkeypatch.setattr(ray, "init", lambda **others: called.append(others))
        monkeypatch.delenv("RAY_ADDRESS", raising=False)
        engine = Actors(THREE, 1)
        engine._connect()
    assert engine._own is None
    assert [call.get("address") for call in called] == [None]
    assert not engine_ray._started_here(), "its file outlives a cluster that was killed"
    noted.write_text("nonsense")
    assert not engine_ray._started_here()


def test_what_a_killed_run_left_is_removed_by_the_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setattr(engine_ray, "_LONGEST_TEMPORARY", 1000)
    used, claim = engine_ray._temporary()
    left, other = engine_ray._temporary()
    (Path(left) / "session").mkdir()
    other.release()  # as the kernel does when a process is killed
    third, another = engine_ray._temporary()
    assert {str(path) for path in tmp_path.iterdir()} == {used, third}
    claim.release()
    another.release()


@pytest.mark.slow
def test_a_node_that_goes_takes_nothing_along(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two nodes, of which one is removed in mid-run."""
    if ray.is_initialized():
        ray.shutdown()
    from ray.cluster_utils import Cluster

    for name, value in environment().items():
        monkeypatch.setenv(name, value)
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1})
    try:
        second = cluster.add_node(num_cpus=1)
        cluster.wait_for_nodes()
        with Actors(THREE, 2, address=cluster.address) as engine:
            assert engine.told.nodes == 2
            names, pids = [], set()
            # Long enough that the lost node's worker has noticed before the last one.
            jobs = [Job(str(number), "nap") for number in range(80)]
            for done, (job, pid) in enumerate(engine.run(jobs), start=1):
                names.append(job.name)
                pids.add(pid)
                if done == 10:
                    cluster.remove_node(second, allow_graceful=False)
        assert sorted(names) == sorted(job.name for job in jobs)
        assert len(pids) == 2
        assert engine.told.deaths >= 1
        assert engine.told.failed == {}
    finally:
        ray.shutdown()
        cluster.shutdown()


@pytest.mark.slow
def test_through_a_client(monkeypatch: pytest.MonkeyPatch) -> None:
    """As from a laptop, which is no node of the cluster."""
    if ray.is_initialized():
        ray.shutdown()
    from ray.cluster_utils import Cluster

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    for name, value in environment().items():
        monkeypatch.setenv(name, value)
    head = {"num_cpus": 2, "ray_client_server_port": port}
    cluster = Cluster(initialize_head=True, head_node_args=head)
    try:
        with Actors(THREE, 2, address=f"ray://127.0.0.1:{port}") as engine:
            jobs = [*numbers(6), Job("the deadly one", "die")]
            assert sorted(result for _, result in engine.run(jobs)) == [0, 3, 6, 9, 12, 15]
        assert list(engine.failed) == ["the deadly one"]
        assert engine.told.deaths == 3
    finally:
        ray.shutdown()
        cluster.shutdown()
