"""Actors of a Ray cluster, or of a Ray that is started here: one for each worker.

A dead actor's place gets a new one, wherever there is room; the job that it had is handed out again
by the caller's side, which alone knows what is done.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import socket
import sys
import tempfile
import threading
from collections import deque
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from eexit_cli.core.errors import EexitError, MissingArtifactError, UsageError
from eexit_cli.engine import Died, Engine, EngineError, Event, Job, Raised, Work, Worker
from eexit_cli.engine.working import ONE_THREAD, environment

INSTALL = "pip install 'eexit[ray]'"

_PATIENCE = 15.0
"""Seconds in which a cluster answers."""

_LONGEST_TEMPORARY = 40
"""Characters of a path under which Ray's sockets, which have at most 107, find room."""


def require_ray() -> Any:
    """The module.

    Raises:
        MissingArtifactError: it is not installed.
    """
    try:
        import ray
    except ImportError as error:
        raise MissingArtifactError("--engine ray needs Ray", hint=INSTALL) from error
    return ray


class Actors(Engine):
    """See :class:`~eexit_cli.engine.Engine`.

    Args:
        address: of a cluster, such as ``ray://head:10001`` or ``auto``; None joins one that
            ``ray start`` began on this machine, or begins one for as long as this lasts.
        gpus: of each worker; may be a part of one.
    """

    name = "ray"
    silence = 10.0

    def __init__(
        self,
        work: Work,
        workers: int | None,
        *,
        address: str | None = None,
        gpus: float = 0.0,
        **others: Any,
    ) -> None:
        super().__init__(work, workers, **others)
        self._ray = require_ray()
        self._address, self._gpus = address, gpus
        self._pending: dict[Any, tuple[Worker, Any]] = {}
        self._done: deque[Any] = deque()
        self._own: str | None = None
        self._claim: FileLock | None = None
        self._ours = False
        self._lost = False
        self._work: Any = None
        self._folders: dict[str, Any] = {}

    def open(self) -> int:
        with _quiet_stdout():
            self._connect()
        sys.stdout = _Deaf(sys.stdout)
        nodes = [node for node in self._ray.nodes() if node["Alive"]]
        self.told.nodes = len(nodes)
        room = self._room([node["Resources"] for node in nodes])
        wanted = min(self.asked or room, self.most or room)
        if room < wanted:
            self.tell(f"The cluster has room for {room} of {wanted} workers at a time")
        self._work = self._ray.put(self.work)
        self._folders = {folder: self._ray.put(_packed(Path(folder))) for folder in self._shipped}
        options: dict[str, Any] = {"num_cpus": 1, "max_restarts": 0, "max_concurrency": 1}
        if self._gpus:
            options["num_gpus"] = self._gpus
        # NLTK's data lie here, and maybe nowhere else.
        variables = ONE_THREAD if self._own is None else environment()
        variables = {**variables, "HF_HUB_OFFLINE": os.environ.get("HF_HUB_OFFLINE", "0")}
        self._actor = self._ray.remote(_Actor).options(
            runtime_env={"env_vars": variables}, **options
        )
        return room

    @property
    def _shipped(self) -> tuple[str, ...]:
        """Folders that machines may lack; the Ray of this machine alone lacks none."""
        return () if self._own is not None else self.work.folders

    def _connect(self) -> None:
        quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": "error"}
        if self._ray.is_initialized():  # the caller's, and his to shut down
            return
        self._ours = True
        address = self._address or os.environ.get("RAY_ADDRESS")
        if address is None:
            if _started_here():
                # Not "auto": that takes another program's own Ray too, and ends with it.
                self._ray.init(**quiet)
                return
            self._own, self._claim = _temporary()
            self._ray.init(
                address="local",
                num_cpus=max(self.asked or 1, os.cpu_count() or 1),
                include_dashboard=False,
                _temp_dir=self._own,
                **quiet,
            )
            return
        try:
            self._ray.init(address=address, **quiet)
        except Exception as error:  # Ray's own, of many kinds
            raise _cannot_join(address, error) from error

    def _room(self, nodes: list[Mapping[str, float]]) -> int:
        """Workers that fit side by side.

        Raises:
            UsageError: none fits anywhere.
        """
        fits = []
        for node in nodes:
            by_gpus = node.get("GPU", 0.0) / self._gpus if self._gpus else float("inf")
            fits.append(int(min(node.get("CPU", 0.0), by_gpus)))
        if sum(fits) == 0:
            gpus = max((node.get("GPU", 0.0) for node in nodes), default=0.0)
            what = f"GPUs: {gpus:g}, and --gpus-per-worker asks for {self._gpus:g}"
            raise UsageError(
                f"No node of the cluster has room for a worker (the most {what})"
                if self._gpus
                else "No node of the cluster has a CPU for a worker",
                hint="Give a smaller --gpus-per-worker" if self._gpus else "ray start --num-cpus N",
            )
        return sum(fits)

    def fill(self, worker: Worker) -> None:
        worker.handle = self._actor.remote()
        self._await(worker, worker.handle.set_up.remote(self._work, self._folders))

    def give(self, worker: Worker, job: Job) -> None:
        self._await(worker, worker.handle.do.remote(job.payload))

    def _await(self, worker: Worker, reference: Any) -> None:
        self._pending[reference] = worker, worker.handle

    def hear(self, seconds: float) -> tuple[Worker, Event] | None:
        if not self._done:
            self._wait(seconds)
        while self._done:
            reference = self._done.popleft()
            worker, actor = self._pending.pop(reference)
            if worker.handle is actor:
                return worker, self._event(reference)
        return None

    def look(self) -> None:
        """Is the cluster there? A lost one lets questions hang, and Ray ends the program itself
        after a minute.

        Raises:
            EngineError: it does not answer.
        """
        asking = threading.Thread(target=self._ray.nodes, daemon=True)
        asking.start()
        asking.join(_PATIENCE)
        if asking.is_alive():
            self._lost = True
            # Said at once: the way to an error's own message is long where Ray ends the program.
            self.tell("The cluster does not answer any more; what is done is kept")
            raise EngineError(
                "The connection to the cluster is lost",
                hint="Go on with --resume, once it is back or with --engine local",
            )

    def _wait(self, seconds: float) -> None:
        """Gather what is done; one call costs as much as there are references, so it brings all."""
        pending = list(self._pending)
        done, _ = self._ray.wait(pending, num_returns=1, timeout=seconds)
        if done and len(pending) > 1:
            done, _ = self._ray.wait(pending, num_returns=len(pending), timeout=0)
        self._done.extend(done)

    def _event(self, reference: Any) -> Event:
        try:
            event: Event = self._ray.get(reference)
        except self._ray.exceptions.RayActorError as error:
            self.look()
            return Died(_first_line(error))
        except self._ray.exceptions.RayError as error:
            return Raised(EngineError(f"Ray: {_first_line(error)}"))
        except ConnectionError as error:
            return Raised(EngineError(f"The connection to the cluster is lost: {error}"))
        return event

    def empty(self, worker: Worker) -> None:
        if worker.handle is not None and not self._lost:
            with contextlib.suppress(Exception):  # it is dead, or the cluster is gone
                self._ray.kill(worker.handle)
        worker.handle = None

    def shut(self) -> None:
        if isinstance(sys.stdout, _Deaf):
            sys.stdout = sys.stdout.stream
        if self._ours and not self._lost:
            self._ours = False
            with _quiet_stdout():
                self._ray.shutdown()
        if self._own is not None and self._claim is not None:
            self._claim.release()
            shutil.rmtree(self._own, ignore_errors=True)

    @property
    def pids(self) -> list[int]:
        """The processes of workers that are idle, on whatever machine."""
        handles = [worker.handle for worker in self.workers if worker.handle and worker.ready]
        return [int(pid) for pid in self._ray.get([handle.pid.remote() for handle in handles])]


class _Actor:
    """One worker."""

    def set_up(self, work: Work, folders: Mapping[str, Any]) -> Event:
        import ray

        from eexit_cli.engine.working import set_up

        places = {}
        for folder, packed in folders.items():
            if not Path(folder).is_dir():
                places[folder] = _unpacked(ray.get(packed))
        return set_up(work, places)

    def do(self, payload: Any) -> Event:
        from eexit_cli.engine.working import do

        return do(payload)

    def pid(self) -> int:
        return os.getpid()


def _packed(folder: Path) -> dict[str, bytes]:
    """A folder's files by their names in it."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def _unpacked(files: Mapping[str, bytes]) -> str:
    """The folder again, once on each machine whatever the number of its workers."""
    digest = hashlib.sha256()
    for name, content in files.items():
        digest.update(f"{name}\0{len(content)}\0".encode())
        digest.update(content)
    place = Path(tempfile.gettempdir()) / f"eexit-folder-{digest.hexdigest()[:16]}"
    if not place.is_dir():
        made = Path(tempfile.mkdtemp(prefix="eexit-folder-"))
        for name, content in files.items():
            (made / name).parent.mkdir(parents=True, exist_ok=True)
            (made / name).write_bytes(content)
        try:
            made.rename(place)
        except OSError:  # another worker was faster
            shutil.rmtree(made, ignore_errors=True)
    return str(place)


def _started_here() -> bool:
    """Whether a cluster that ``ray start`` began on this machine is there still."""
    base = os.environ.get("RAY_TMPDIR") or os.environ.get("TMPDIR") or "/tmp"
    try:
        noted = (Path(base) / "ray" / "ray_current_cluster").read_text().strip()
        host, port = noted.rsplit(":", 1)
        # Ray itself would ask one that is gone for minutes.
        socket.create_connection((host.strip("[]"), int(port)), timeout=_PATIENCE).close()
    except (OSError, ValueError):
        return False
    return True


def _temporary() -> tuple[str, FileLock]:
    """A folder for a Ray of our own, which would else leave its sessions in /tmp/ray, and a lock in
    it that says that it is in use. What killed runs left is removed."""
    base = tempfile.gettempdir()
    if len(base) > _LONGEST_TEMPORARY and Path("/tmp").is_dir():
        base = "/tmp"
    for claim in Path(base).glob(f"{_OWN}*/{_CLAIM}"):
        with contextlib.suppress(Timeout, OSError), FileLock(claim, timeout=0):
            shutil.rmtree(claim.parent, ignore_errors=True)
    made = tempfile.mkdtemp(prefix=_OWN, dir=base)
    lock = FileLock(Path(made) / _CLAIM)
    lock.acquire()
    return made, lock


_OWN, _CLAIM = "eexit-ray-", "in-use"


def _cannot_join(address: str, error: Exception) -> EexitError:
    """In a line, what Ray says in many."""
    text = str(error)
    if "pip package" in text:  # of its client, which a plain `pip install ray` lacks
        return MissingArtifactError(f"{address} needs Ray's client", hint=INSTALL)
    if "ersion mismatch" in text:
        versions = f"Python {sys.version.split()[0]}, Ray {require_ray().__version__} here"
        return EexitError(
            f"The cluster at {address} has another Python or Ray: {' '.join(text.split())}",
            hint=f"{versions}; install the same on all machines",
        )
    hint = "On its head: ray start --head; leave --address out to use this machine alone"
    if "RAY_AUTH_MODE" not in os.environ and (Path.home() / ".ray" / "auth_token").exists():
        # A head that finds this file asks for what it holds; Ray looks there only when told to.
        hint = f"If it asks for a token: RAY_AUTH_MODE=token. {hint}"
    return EexitError(f"No Ray cluster answers at {address}: {_first_line(error)}", hint=hint)


def _first_line(error: BaseException) -> str:
    return str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__


@contextlib.contextmanager
def _quiet_stdout() -> Iterator[None]:
    """Ray's daemons write to this process's stdout, where results stand."""
    sys.stdout.flush()
    kept = os.dup(1)
    os.dup2(2, 1)
    try:
        yield
    finally:
        os.dup2(kept, 1)
        os.close(kept)


class _Deaf:
    """stdout without what Ray's own threads print of dead workers, which is told in a line."""

    def __init__(self, stream: Any) -> None:
        self.stream = stream

    def write(self, text: str) -> int:
        if threading.current_thread().name.startswith("ray_"):
            return len(text)
        return int(self.stream.write(text))

    def __getattr__(self, name: str) -> Any:
        return getattr(self.stream, name)
