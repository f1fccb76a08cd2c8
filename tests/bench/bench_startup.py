"""How long ``eexit --help`` takes, against importing typer and rich alone.

Run it: ``pytest tests/bench/bench_startup.py -m bench -s``, or as a script.
"""

from __future__ import annotations

import subprocess
import sys
import time

import pytest

ROUNDS = 15
TARGET = 2.0


def _seconds(*arguments: str) -> float:
    started = time.perf_counter()
    subprocess.run([sys.executable, *arguments], check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - started


def measure() -> tuple[float, float]:
    """Fastest of several runs in turn, which a busy machine disturbs least: help, imports."""
    pairs = [
        (_seconds("-m", "eexit_cli", "--help"), _seconds("-c", "import typer, rich"))
        for _ in range(ROUNDS)
    ]
    return min(help for help, _ in pairs), min(imports for _, imports in pairs)


@pytest.mark.bench
def test_startup_ratio() -> None:
    help_seconds, import_seconds = measure()
    print(
        f"\neexit --help {1000 * help_seconds:.0f} ms, import typer, rich "
        f"{1000 * import_seconds:.0f} ms: {help_seconds / import_seconds:.2f} times "
        f"(target: at most {TARGET})"
    )


if __name__ == "__main__":
    test_startup_ratio()
