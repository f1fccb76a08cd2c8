"""Two workers against one, samples per second, start-up apart; and what padding costs.

    python tests/bench/bench_arena.py --model deebert --samples 60 --recipe same-token

Both attack the same samples, one torch thread per process, and must end with the same records. The
ratio is of the time between the first sample and the last; starting processes (importing torch and
TextAttack, loading the model) is printed beside it. The memory of a worker is read from the system
at a tenth, a quarter, a half and three quarters of the samples, and at the end.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from eexit_cli.config import AttackConfig
from eexit_cli.core.progress import SilentProgress, SilentTicker
from eexit_cli.engine import processes
from eexit_cli.engine.processes import Processes
from eexit_cli.pipelines.attack.run import run_attack


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="deebert")
    parser.add_argument("--recipe", default="same-token")
    parser.add_argument("--samples", type=int, default=60)
    parser.add_argument("--query-budget", type=int, default=1000)
    parser.add_argument(
        "--workers", type=int, default=2, help="1: no comparison, as for the memory alone"
    )
    parser.add_argument("--rounds", type=int, default=1, help="both ways so often, in turn")
    options = parser.parse_args()
    rates: dict[int, list[float]] = {1: [], options.workers: []}
    with tempfile.TemporaryDirectory() as folder:
        records: dict[int, Any] = {}
        for _ in range(options.rounds):
            for count in rates:
                config = AttackConfig(
                    model=options.model,
                    recipe=options.recipe,
                    limit=options.samples,
                    query_budget=options.query_budget,
                    workers=count,
                    results_dir=Path(folder),
                )
                rate, records[count] = measured(config)
                rates[count].append(rate)
        same = records[1] == records[options.workers]
    if options.workers == 1:
        return
    ratios = [many / one for one, many in zip(*rates.values(), strict=True)]
    print(f"same records: {same}")
    print(f"{options.workers} workers / 1: " + ", ".join(f"{ratio:.2f}x" for ratio in ratios))


def measured(config: AttackConfig) -> tuple[float, Any]:
    """Samples per second of attacking alone, and the records without their seconds."""
    memory = Memory(config.limit or 1)
    with pool_watched_by(memory):
        result = run_attack(config, progress=memory)
    timings, document = result.document["timings"], result.document
    count = len(config.recipe.split(",")) * (config.limit or 1)
    rate = count / timings["attack_seconds"]
    start = timings.get("workers_startup_seconds", timings["startup_seconds"])
    print(
        f"{config.workers} worker(s): {rate:.2f} samples/s, start-up {start:.1f} s, padding "
        f"{document['report'].get('padding_factor', 1.0):.3f}x, memory {memory.summary()}"
    )
    records = [json.loads(line) for line in (result.path / "records.jsonl").open()]
    plain = {
        (record["recipe"], record["id"]): {k: v for k, v in record.items() if k != "seconds"}
        for record in records
    }
    return rate, plain


class Memory(SilentProgress):
    """Reads the largest process's resident memory after every sample."""

    def __init__(self, samples: int) -> None:
        self.pool: Processes | None = None
        self.first = max(1, samples // 10)
        self.read: list[float] = []

    @contextmanager
    def task(self, title: str, total: int | None = None, done: int = 0) -> Iterator[SilentTicker]:
        memory = self

        class Ticker(SilentTicker):
            def advance(self, steps: int = 1, note: str | None = None) -> None:
                if note:
                    pids = memory.pool.pids if memory.pool else ["self"]
                    memory.read.append(max(map(resident, pids)))

        yield Ticker()

    def summary(self) -> str:
        if len(self.read) <= self.first:
            return "too few samples"
        last = len(self.read) - 1
        places = [self.first, last // 4, last // 2, 3 * last // 4, last]
        return " ".join(f"{self.read[place]:.0f}" for place in places) + " MB"


def resident(pid: int | str) -> float:
    """Megabytes; 0 where the system does not say."""
    path = Path(f"/proc/{pid}/status")
    if not path.exists():
        return 0.0
    lines = dict(line.split(":", 1) for line in path.read_text().splitlines() if ":" in line)
    return int(lines["VmRSS"].split()[0]) / 1000


@contextmanager
def pool_watched_by(memory: Memory) -> Iterator[None]:
    """Tell ``memory`` which processes attack."""

    class Watched(Processes):
        def __enter__(self) -> Processes:
            super().__enter__()
            memory.pool = self
            return self

    usual = processes.Processes
    processes.Processes = Watched  # type: ignore[misc]
    try:
        yield
    finally:
        processes.Processes = usual  # type: ignore[misc]


if __name__ == "__main__":
    main()
