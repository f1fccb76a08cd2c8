"""Processes of this machine, one pool of a single process for each worker.

So nothing is shared by workers: whatever kills one, the others' pipes and locks are whole.
"""

from __future__ import annotations

import contextlib
import os
import queue
import signal
import sys
import tempfile
import threading
import types
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future
from multiprocessing.context import SpawnContext, SpawnProcess
from pathlib import Path
from typing import Any

import pebble

from eexit_cli.core.environment import environment_kept
from eexit_cli.engine import Died, Engine, Event, Job, Raised, Worker
from eexit_cli.engine.working import do, environment, set_up_process

_STARTING = threading.Lock()


class Processes(Engine):
    """See :class:`~eexit_cli.engine.Engine`."""

    name = "local"
    silence = 1.0

    def open(self) -> int:
        # A Queue's lock may stay taken where Ctrl-C interrupts its get.
        self._inbox: queue.SimpleQueue[tuple[Worker, _Place, Future[Any]]] = queue.SimpleQueue()
        return self.asked or os.cpu_count() or 1

    def fill(self, worker: Worker) -> None:
        worker.handle = _Place()
        self._schedule(worker, set_up_process, self.work, str(worker.handle.log))

    def give(self, worker: Worker, job: Job) -> None:
        self._schedule(worker, do, job.payload)

    def _schedule(self, worker: Worker, function: Callable[..., Any], *args: Any) -> None:
        place = worker.handle
        future: Future[Any]
        try:
            future = place.pool.schedule(function, args)
        except RuntimeError as error:  # it died while nobody asked anything of it
            future = Future()
            future.set_exception(error)
        future.add_done_callback(lambda done: self._inbox.put((worker, place, done)))

    def hear(self, seconds: float) -> tuple[Worker, Event] | None:
        try:
            worker, place, future = self._inbox.get(timeout=seconds)
        except queue.Empty:
            return None
        if worker.handle is not place:
            return self.hear(seconds)  # of a process that was ended
        if future.cancelled() or isinstance(error := future.exception(), RuntimeError | OSError):
            return worker, Died(place.how_it_ended())
        return worker, Raised(error) if error is not None else future.result()

    def look(self) -> tuple[Worker, Event] | None:
        """One that dies before it has taken its job is none that pebble tells of."""
        for worker in self.workers:
            if worker.handle is not None and worker.handle.gone:
                return worker, Died(worker.handle.how_it_ended())
        return None

    def empty(self, worker: Worker) -> None:
        if worker.handle is not None:
            worker.handle.close()
            worker.handle = None

    def shut(self) -> None:
        pass

    @property
    def pids(self) -> list[int]:
        """The processes that run now."""
        return [pid for worker in self.workers if worker.handle for pid in worker.handle.pids]


class _Place:
    """A process and its temporary folder: what libraries put there would outlive a killed one."""

    def __init__(self) -> None:
        self._scratch = tempfile.TemporaryDirectory(
            prefix="eexit-worker-", ignore_cleanup_errors=True
        )
        self.log = Path(self._scratch.name) / "log"
        self._context = _Context(self._scratch.name)
        self.pool = pebble.ProcessPool(1, context=self._context)

    @property
    def pids(self) -> list[int]:
        return [each.pid for each in self._context.made[-1:] if each.pid and each.is_alive()]

    @property
    def gone(self) -> bool:
        """Whether its process has ended: pebble then begins another, or breaks.

        A pool that breaks fails the jobs that its threads have seen; one that they had not yet
        would wait for ever.
        """
        return len(self._context.made) > 1 or not self.pool.active

    def how_it_ended(self) -> str:
        """The signal or exit code, and the last line of what it complained about."""
        # The first that ended is the one; the pool has begun another since.
        ended = next((each for each in self._context.made if each.exitcode), None)
        code = 0 if ended is None or ended.exitcode is None else ended.exitcode
        if code < 0:
            return f"killed by {signal.Signals(-code).name}"
        said = []
        with contextlib.suppress(OSError):
            said = self.log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
        return f"exit code {code}: {said[-1].strip()}" if said and code else f"exit code {code}"

    def close(self) -> None:
        self.pool.stop()
        for process in self._context.made:
            if process.is_alive():
                process.kill()
        self.pool.join()
        self._scratch.cleanup()


class _Context(SpawnContext):
    """Starts processes with an environment and a temporary folder of their own.

    The program's main module stays out of them: a script that calls this without a guard would
    else run anew in each.
    """

    def __init__(self, scratch: str) -> None:
        super().__init__()
        folders = dict.fromkeys(("TMPDIR", "TEMP", "TMP"), scratch)
        self.environment = {**environment(), **folders}
        self.made: list[SpawnProcess] = []

    def Process(self, *args: Any, **kwargs: Any) -> SpawnProcess:  # type: ignore[override]  # noqa: N802
        made = _Process(*args, **kwargs)
        made.environment = self.environment
        self.made.append(made)
        return made


class _Process(SpawnProcess):
    environment: Mapping[str, str]

    def start(self) -> None:
        with _STARTING, environment_kept(self.environment), _without_main():
            os.environ.update(self.environment)
            super().start()


@contextlib.contextmanager
def _without_main() -> Iterator[None]:
    main = sys.modules["__main__"]
    sys.modules["__main__"] = types.ModuleType("__main__")
    try:
        yield
    finally:
        sys.modules["__main__"] = main
