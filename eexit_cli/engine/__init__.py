"""Jobs in processes of this machine or on a Ray cluster: one seam for every long command.

Each worker is set up once (a model, a data set) and does one job at a time; results come in any
order. A job that failed with its worker is done again, up to three times; one that takes longer
than a limit ends its worker and counts as failed. What a job gives must not depend on who does it.
"""

from __future__ import annotations

import math
import time
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any

from eexit_cli.core.errors import EexitError

MOST_DEATHS = 3
"""Workers that one job, or the start of them all, may cost."""


class EngineError(EexitError):
    """The engine cannot go on; what is done is kept."""


@dataclass(frozen=True)
class Work:
    """What workers do.

    Attributes:
        make: called once in each worker, with ``arguments``; what it returns is called with each
            job's payload. It, they, payloads and results are pickled.
        arguments: of ``make``.
        folders: of this machine, that ``arguments`` name. Where a worker's machine lacks one it
            gets a copy, and ``make`` also gets ``places``, from folders here to those there.
    """

    make: Callable[..., Callable[[Any], Any]]
    arguments: tuple[Any, ...] = ()
    folders: tuple[str, ...] = ()


@dataclass
class Job:
    """One piece of work.

    Attributes:
        name: for messages, such as "sample '12' of waffle".
        payload: what the worker is given.
        size: samples in it, each of which may take the time limit.
        deaths: workers that died at it.
    """

    name: str
    payload: Any
    size: int = 1
    deaths: int = 0


@dataclass(frozen=True)
class Ready:
    """A worker is set up."""


@dataclass(frozen=True)
class Result:
    """What a job gave."""

    value: Any


@dataclass(frozen=True)
class Raised:
    """A job, or the set-up, raised an error; it is the caller's now."""

    error: BaseException


@dataclass(frozen=True)
class Died:
    """A worker ended by itself.

    Attributes:
        how: such as "killed by SIGKILL".
    """

    how: str


Event = Ready | Result | Raised | Died


@dataclass(eq=False)
class Worker:
    """A place that one process at a time fills.

    Attributes:
        job: what it does now.
        ready: it is set up.
        deadline: when its job is given up, of ``time.monotonic()``.
        handle: the engine's own.
    """

    job: Job | None = None
    ready: bool = False
    deadline: float | None = None
    handle: Any = None


@dataclass
class Told:
    """What a run remembers of its engine.

    Attributes:
        engine: its name.
        workers: as many as ran side by side.
        nodes: machines.
        deaths: workers that died.
        failed: names of jobs that were given up, with the reason.
        startup_seconds: until all that there was room for could begin.
    """

    engine: str
    workers: int
    nodes: int = 1
    deaths: int = 0
    failed: dict[str, str] = field(default_factory=dict)
    startup_seconds: float = 0.0

    @property
    def side_by_side(self) -> str:
        """``2 workers``, or where they are spread ``8 workers on 2 nodes``."""
        words = f"{self.workers} worker{'s' * (self.workers > 1)}"
        return f"{words} on {self.nodes} nodes" if self.nodes > 1 else words


class Engine(ABC):
    """A context manager that leaves no process and no temporary file behind.

    Args:
        work: what workers do.
        workers: how many; None is as many as there is room for.
        most: that may be of use.
        timeout: seconds that a job may take; None is no limit.
        tell: gets a line when a worker died or a job is given up.

    Raises:
        ValueError: ``work.make`` is of the main program.

    Attributes:
        silence: seconds without news after which it looks for itself.
        told: what is worth remembering.
    """

    name: str
    silence: float

    def __init__(
        self,
        work: Work,
        workers: int | None,
        *,
        most: int | None = None,
        timeout: float | None = None,
        tell: Callable[[str], None] = lambda line: None,
    ) -> None:
        if work.make.__module__ == "__main__":
            raise ValueError(
                f"{work.make.__name__} is of the main program, which no worker imports"
            )
        self.work = work
        self.asked = workers
        self.most = most
        self.timeout = timeout
        self.tell = tell
        self.told = Told(self.name, workers or 0)
        self.workers: list[Worker] = []
        self._false_starts = 0

    @abstractmethod
    def open(self) -> int:
        """Make ready to fill places; as many of them can be filled at a time."""

    @abstractmethod
    def fill(self, worker: Worker) -> None:
        """Begin a process in a place, and its set-up."""

    @abstractmethod
    def give(self, worker: Worker, job: Job) -> None:
        """Hand a job to a worker that is ready."""

    @abstractmethod
    def hear(self, seconds: float) -> tuple[Worker, Event] | None:
        """What happened next; None where nothing did for so long."""

    @abstractmethod
    def look(self) -> tuple[Worker, Event] | None:
        """After :attr:`silence`: what happened that nobody tells of; None where nothing did.

        Raises:
            EngineError: nobody is there any more.
        """

    @abstractmethod
    def empty(self, worker: Worker) -> None:
        """End the process in a place, whatever it does; after it nothing is heard of it."""

    @abstractmethod
    def shut(self) -> None:
        """Undo :meth:`open`."""

    def __enter__(self) -> Engine:
        started = time.perf_counter()
        try:
            room = self.open()
            count = min(self.asked or room, self.most or self.asked or room)
            room, self.told.workers = min(room, count), count
            self.workers = [Worker() for _ in range(count)]
            for worker in self.workers:
                self.fill(worker)
            while sum(worker.ready for worker in self.workers) < room:
                self._take(*self._next())
        except BaseException:
            self.close()
            raise
        self.told.startup_seconds = time.perf_counter() - started
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """End every process."""
        for worker in self.workers:
            self.empty(worker)
        self.workers = []
        self.shut()

    def run(self, jobs: Iterable[Job]) -> Iterator[tuple[Job, Any]]:
        """Do jobs; no more of them are read than are needed to keep the workers busy.

        Yields:
            Each job with its result, in the order in which they are done. Jobs that are given up
            are in ``told.failed``.

        Raises:
            EngineError: no worker can be set up, or a cluster is lost.
            Exception: what a job raised.
        """
        waiting, again = iter(jobs), deque[Job]()
        while True:
            for worker in self.workers:
                if worker.ready and worker.job is None:
                    job = again.popleft() if again else next(waiting, None)
                    if job is None:
                        break
                    self._give(worker, job)
            if not again and all(worker.job is None for worker in self.workers):
                last = next(waiting, None)
                if last is None:
                    return
                again.append(last)
            worker, event = self._next()
            job = worker.job
            result = self._take(worker, event)
            if job is None:
                continue
            if isinstance(event, Died) and job.deaths < MOST_DEATHS and job.name not in self.failed:
                again.append(job)
            elif isinstance(event, Result):
                yield job, result

    @property
    def failed(self) -> dict[str, str]:
        return self.told.failed

    def _give(self, worker: Worker, job: Job) -> None:
        worker.job = job
        worker.deadline = (
            None if self.timeout is None else time.monotonic() + self.timeout * job.size
        )
        self.give(worker, job)

    def _next(self) -> tuple[Worker, Event]:
        """What happened next; a worker past its deadline is ended."""
        while True:
            deadlines = [each.deadline for each in self.workers if each.deadline is not None]
            left = max(0.0, min(deadlines) - time.monotonic()) if deadlines else math.inf
            heard = self.hear(min(left, self.silence))
            if heard is None and left > self.silence:
                heard = self.look()
            if heard is not None:
                return heard
            now = time.monotonic()
            for worker in self.workers:
                if (
                    worker.job is not None
                    and worker.deadline is not None
                    and worker.deadline <= now
                ):
                    allowed = (self.timeout or 0.0) * worker.job.size
                    self._give_up(worker.job, f"took longer than {allowed:g} s")
                    self.empty(worker)
                    return worker, Died("over its time")

    def _take(self, worker: Worker, event: Event) -> Any:
        """Note an event; a dead worker is replaced. The result, where it is one."""
        if isinstance(event, Raised):
            raise event.error
        if isinstance(event, Ready):
            worker.ready = True
            return None
        job, worker.job, worker.deadline = worker.job, None, None
        if isinstance(event, Result):
            return event.value
        if job is None or job.name not in self.failed:
            self._mourn(worker, job, event.how)
        self.empty(worker)
        worker.ready = False
        self.fill(worker)
        return None

    def _mourn(self, worker: Worker, job: Job | None, how: str) -> None:
        self.told.deaths += 1
        if not worker.ready:
            self._false_starts += 1
            if self._false_starts >= MOST_DEATHS and not any(each.ready for each in self.workers):
                raise EngineError(f"Workers die as they start ({how})", hint="Leave --workers out")
        if job is None:
            self.tell(f"A worker died ({how}); another takes its place")
            return
        job.deaths += 1
        if job.deaths < MOST_DEATHS:
            self.tell(f"A worker died ({how}); another takes its place; {job.name} goes again")
        else:
            self._give_up(job, f"cost {job.deaths} workers, the last one {how}")

    def _give_up(self, job: Job, why: str) -> None:
        self.failed[job.name] = why
        self.tell(f"Given up: {job.name} {why}")
