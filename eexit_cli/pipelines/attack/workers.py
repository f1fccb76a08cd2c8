"""Several processes that attack samples side by side, one torch thread each.

A record depends on the seed and its sample alone, so it does not matter who makes it. A worker that
dies is replaced and its sample is attacked again, a few times; the run that hands out the samples
writes the records, so whatever dies, it can be resumed.
"""

from __future__ import annotations

import contextlib
import json
import os
import queue
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import Any

from eexit_cli.config.attack import AttackConfig
from eexit_cli.core import errors
from eexit_cli.core.errors import EexitError
from eexit_cli.store.records import plain

MOST_DEATHS = 3
"""Workers that one sample, or one start, may cost."""


class DeadWorkersError(EexitError):
    """Workers die again and again; what they finished is kept."""


@dataclass
class Job:
    """A sample for a recipe.

    Attributes:
        recipe: its name.
        sample: as data sets hold it.
        deaths: workers that died at it.
    """

    recipe: str
    sample: Mapping[str, Any]
    deaths: int = 0


class _Worker:
    """One process, and a thread that hands over what it says."""

    def __init__(self, setup: str, inbox: queue.SimpleQueue[tuple[_Worker, dict[str, Any] | None]]):
        self.job: Job | None = None
        self.ready = False
        self.tokens = (0, 0)
        self._inbox = inbox
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115 - closed by stop()
        # What libraries put into the temporary directory would outlive a process that is killed.
        self._scratch = tempfile.TemporaryDirectory(
            prefix="eexit-worker-", ignore_cleanup_errors=True
        )
        folder = self._scratch.name
        self._process = subprocess.Popen(
            [sys.executable, "-m", "eexit_cli.pipelines.attack.worker", folder],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            env={**_environment(), **dict.fromkeys(("TMPDIR", "TEMP", "TMP"), folder)},
            text=True,
            encoding="utf-8",
        )
        self.say(setup)
        self._listener = threading.Thread(target=self._listen, daemon=True)
        self._listener.start()

    @property
    def pid(self) -> int:
        return self._process.pid

    def say(self, line: str) -> None:
        """Send a line; a worker that died meanwhile is reported by its silence."""
        assert self._process.stdin is not None
        with contextlib.suppress(OSError):
            self._process.stdin.write(line + "\n")
            self._process.stdin.flush()

    def start(self, job: Job) -> None:
        self.job = job
        self.say(json.dumps({"recipe": job.recipe, "sample": plain(job.sample)}))

    def _listen(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            # A process that is killed in the middle of a line leaves half of one.
            if line.endswith("\n"):
                self._inbox.put((self, json.loads(line)))
        self._process.wait()
        self._inbox.put((self, None))

    def how_it_ended(self) -> str:
        """The signal or exit code, and the last line of what it complained about."""
        code = self._process.wait()
        how = f"exit code {code}"
        if code < 0:
            how = f"killed by {signal.Signals(-code).name}"
        self._errors.seek(0)
        said = self._errors.read().decode(errors="replace").strip().splitlines()
        return f"{how}: {said[-1].strip()}" if said and code > 0 else how

    def stop(self) -> None:
        """End the process, finished or not."""
        assert self._process.stdin is not None
        with contextlib.suppress(OSError):
            self._process.stdin.close()
        self._process.kill()
        self._process.wait()
        self._listener.join()
        assert self._process.stdout is not None
        self._process.stdout.close()
        self._errors.close()
        self._scratch.cleanup()


class Workers:
    """A pool for one run; a context manager that leaves no process and no temporary file behind.

    Args:
        count: processes.
        config: the run's settings, with every exit option resolved.
        learned: what recipes learned once for all samples.
        tell: gets a line when a worker died and another takes its place.

    Attributes:
        start_up_seconds: from the first process's start until all could attack.
    """

    def __init__(
        self,
        count: int,
        config: AttackConfig,
        learned: Mapping[str, Any],
        *,
        tell: Callable[[str], None] | None = None,
    ) -> None:
        self._tell = tell
        self._setup = json.dumps(plain({"config": config.as_dict(), "learned": learned}))
        # A Queue's lock may stay taken where Ctrl-C interrupts its get, and then no listener ends.
        self._inbox: queue.SimpleQueue[tuple[_Worker, dict[str, Any] | None]] = queue.SimpleQueue()
        self._count = count
        self._workers: list[_Worker] = []
        self._false_starts = 0
        self._retired_tokens = (0, 0)
        self.start_up_seconds = 0.0

    def __enter__(self) -> Workers:
        started = time.perf_counter()
        try:
            for _ in range(self._count):
                self._add()
            while not all(worker.ready for worker in self._workers):
                worker, answer = self._inbox.get()
                self._hear(worker, answer)
        except BaseException:
            self.close()
            raise
        self.start_up_seconds = time.perf_counter() - started
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    @property
    def pids(self) -> list[int]:
        """The processes that run now."""
        return [worker.pid for worker in self._workers]

    @property
    def tokens(self) -> tuple[int, int]:
        """Tokens that the scored texts hold, and tokens computed with padding, by all workers."""
        parts = [self._retired_tokens, *(worker.tokens for worker in self._workers)]
        held, computed = (sum(part) for part in zip(*parts, strict=True))
        return held, computed

    def run(
        self, jobs: Iterable[tuple[str, Mapping[str, Any]]], take: Callable[[dict[str, Any]], None]
    ) -> None:
        """Attack samples; records come in the order in which they are finished.

        Args:
            jobs: recipe and sample.
            take: gets each record.

        Raises:
            EexitError: a worker said so, or kept dying at one sample.
        """
        waiting = deque(Job(recipe, sample) for recipe, sample in jobs)
        self._feed(waiting)
        while waiting or any(worker.job is not None for worker in self._workers):
            worker, answer = self._inbox.get()
            if answer is None and worker.job is not None:
                worker.job.deaths += 1
                self._check_deaths(worker.job, worker)
                waiting.appendleft(worker.job)
            record = self._hear(worker, answer)
            if record is not None:
                take(record)
            self._feed(waiting)

    def close(self) -> None:
        """End every process."""
        for worker in self._workers:
            worker.stop()
        self._workers.clear()

    def _add(self) -> None:
        self._workers.append(_Worker(self._setup, self._inbox))

    def _feed(self, waiting: deque[Job]) -> None:
        for worker in self._workers:
            if waiting and worker.ready and worker.job is None:
                worker.start(waiting.popleft())

    def _hear(self, worker: _Worker, answer: dict[str, Any] | None) -> dict[str, Any] | None:
        """What a worker said; the record, where it was one. A dead worker is replaced."""
        if answer is None:
            self._replace(worker)
            return None
        if "error" in answer:
            raise _as_error(answer["error"])
        if "bug" in answer:
            raise RuntimeError(f"a worker failed:\n{answer['bug']}")
        if "ready" in answer:
            worker.ready = True
            return None
        worker.job = None
        held, computed = answer["tokens"]
        worker.tokens = (held, computed)
        record: dict[str, Any] = answer["record"]
        return record

    def _replace(self, worker: _Worker) -> None:
        if not worker.ready:
            self._false_starts += 1
            if self._false_starts >= MOST_DEATHS:
                raise DeadWorkersError(
                    f"Workers die as they start ({worker.how_it_ended()})",
                    hint="Attack without them: leave --workers out",
                )
        if self._tell is not None:
            again = "" if worker.job is None else f"; sample '{worker.job.sample['id']}' goes again"
            self._tell(f"A worker died ({worker.how_it_ended()}); another takes its place{again}")
        self._workers.remove(worker)
        worker.stop()
        held, computed = self._retired_tokens
        self._retired_tokens = (held + worker.tokens[0], computed + worker.tokens[1])
        self._add()

    @staticmethod
    def _check_deaths(job: Job, worker: _Worker) -> None:
        if job.deaths >= MOST_DEATHS:
            raise DeadWorkersError(
                f"{job.deaths} workers died at sample '{job.sample['id']}' of {job.recipe} "
                f"({worker.how_it_ended()})",
                hint="The other records are kept; if memory is short, resume with fewer --workers",
            )


def _as_error(told: Mapping[str, Any]) -> EexitError:
    kind = getattr(errors, str(told["kind"]), EexitError)
    error: EexitError = kind(told["message"], hint=told["hint"])
    return error


def _environment() -> dict[str, str]:
    """One thread for each numeric library, and the same modules and NLTK data as here."""
    threads = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS"), "1")
    environment = {**os.environ, **threads, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    nltk = sys.modules.get("nltk")
    if nltk is not None:
        environment["NLTK_DATA"] = os.pathsep.join(nltk.data.path)
    return environment
