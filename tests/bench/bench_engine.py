"""What the driver alone can do: records per second that are written durably, and its memory.

    python tests/bench/bench_engine.py --jobs 100000 --workers 2

Workers return a real record of an attack at once, or after ``--sleep`` seconds, so that all the
time is the engine's and the store's. The driver's memory is read at a tenth of the jobs and at the
end. With ``--engine ray`` a Ray is started here.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Callable, Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

from eexit_cli.config import AttackConfig
from eexit_cli.engine import Engine, Job, Work
from eexit_cli.pipelines.attack.run import run_attack
from eexit_cli.store.results import ResultStore


def returning(record: dict[str, Any], seconds: float) -> Callable[[Any], Any]:
    """A worker that has the answer already."""

    def answer(number: Any) -> dict[str, Any]:
        time.sleep(seconds)
        return {**record, "id": str(number)}

    return answer


def resident() -> float:
    """Megabytes of this process."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1000 for line in lines if line.startswith("VmRSS"))


def jobs(count: int) -> Iterator[Job]:
    for number in range(count):
        yield Job(str(number), number)


def engine(name: str, work: Work, workers: int) -> Engine:
    if name == "ray":
        from eexit_cli.engine.ray import Actors

        return Actors(work, workers)
    from eexit_cli.engine.processes import Processes

    return Processes(work, workers)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--engine", choices=["local", "ray"], default="local")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--jobs", type=int, default=100_000)
    parser.add_argument("--sleep", type=float, default=0.0)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        attacked = run_attack(
            AttackConfig(recipe="random", limit=1, latency_samples=0, results_dir=Path(folder))
        )
        (record,) = attacked.records()
        print(f"a record: {len(json.dumps(record))} bytes")
        # By the name that workers can import it by: they know no main program.
        work = Work(import_module("bench_engine").returning, (record, options.sleep))
        memory = []
        with (
            ResultStore(Path(folder)).create("attack", {}) as run,
            engine(options.engine, work, options.workers) as crew,
        ):
            started = time.perf_counter()
            for done, (_, made) in enumerate(crew.run(jobs(options.jobs)), start=1):
                run.append(made)
                if done in (options.jobs // 10, options.jobs):
                    memory.append(resident())
            seconds = time.perf_counter() - started
        print(
            f"{options.engine}, {options.workers} workers: {options.jobs / seconds:.0f} records/s, "
            f"start-up {crew.told.startup_seconds:.1f} s, driver's memory "
            + " to ".join(f"{size:.0f} MB" for size in memory)
        )


if __name__ == "__main__":
    main()
