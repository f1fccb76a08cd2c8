"""Counters of energy: the kernel's of processors and memory, the driver's of a GPU.

Linux counts the energy of each processor package, and of the memory where that has a counter (RAPL,
Intel's and AMD's, one tree), NVIDIA's driver that of each GPU. They count what every process uses.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

Joules = NDArray[np.float64]

POWERCAP = Path("/sys/class/powercap")
PROCESSOR, MEMORY, GPU = "processor", "memory", "gpu"

IDLE_SECONDS = 3.0
SETTLE_SECONDS = 1.0
"""Between work and the idle power's measurement, while clocks come down."""
MOST_WATTS = 1000.0
"""Of one counter: what no package or memory takes. How soon a counter may be back where it was."""

_PROBE_SECONDS = 0.3


class UnreadError(Exception):
    """A counter cannot be read, or lost count; the text says why."""


@dataclass(frozen=True)
class Counter:
    """Something that counts energy.

    Attributes:
        name: as the machine calls it.
        part: processor, memory or gpu.
        read: the count now.
        unit: joules of one count.
        wraps: the count after which it begins again at 0; None never does.
        least_seconds: of a pass, so that how often the counter moves makes little difference.
    """

    name: str
    part: str
    read: Callable[[], int]
    unit: float
    wraps: int | None
    least_seconds: float

    def joules(self, before: int, after: int, seconds: float) -> float:
        """Between two counts.

        Args:
            seconds: between them.

        Raises:
            UnreadError: it began anew, or may have wrapped more often than once.
        """
        if self.wraps is None:
            if after < before:
                raise UnreadError(f"the counter {self.name} began anew meanwhile")
            return (after - before) * self.unit
        longest = self.wraps * self.unit / MOST_WATTS
        if seconds >= longest:
            raise UnreadError(
                f"the counter {self.name} begins anew too often to be read every {seconds:.0f} s: "
                f"a single input must take less than {longest:.0f} s"
            )
        return (after - before + (self.wraps if after < before else 0)) * self.unit


@dataclass(frozen=True)
class Reading:
    """All counters at one time, in seconds."""

    at: float
    counts: tuple[int, ...]


@dataclass
class Meter:
    """Counters that are read together.

    Attributes:
        counters: those that can be read.
        lacking: part -> why it is not measured, and what helps.
        clock, sleep: the machine's.
    """

    counters: list[Counter]
    lacking: dict[str, str] = field(default_factory=dict)
    clock: Callable[[], float] = time.perf_counter
    sleep: Callable[[float], None] = time.sleep

    @property
    def parts(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(counter.part for counter in self.counters))

    @property
    def least_seconds(self) -> float:
        """Of a pass."""
        return max(counter.least_seconds for counter in self.counters)

    def read(self) -> Reading:
        """All counters now.

        Raises:
            UnreadError: one that could be read can no longer be.
        """
        return Reading(self.clock(), tuple(counter.read() for counter in self.counters))

    def between(self, before: Reading, after: Reading) -> Joules:
        """Joules by part. Shape: [parts].

        Raises:
            UnreadError: a counter lost count.
        """
        found = dict.fromkeys(self.parts, 0.0)
        seconds = after.at - before.at
        for counter, one, other in zip(self.counters, before.counts, after.counts, strict=True):
            found[counter.part] += counter.joules(one, other, seconds)
        return np.array(list(found.values()))

    def idle(self) -> Joules:
        """Watts by part while nothing is asked of the machine. Shape: [parts].

        Raises:
            UnreadError: a counter lost count.
        """
        self.sleep(SETTLE_SECONDS)
        before = self.read()
        self.sleep(IDLE_SECONDS)
        after = self.read()
        return self.between(before, after) / (after.at - before.at)

    def drop_standing(self) -> None:
        """Leave out each part of which a counter stands still, as some virtual machines' do."""
        if not self.counters:
            return
        before = self.read()
        self.sleep(_PROBE_SECONDS)
        after = self.read()
        for counter, one, other in zip(self.counters, before.counts, after.counts, strict=True):
            if one == other:
                self.lacking[counter.part] = f"the counter {counter.name} stands still"
        self.counters = [each for each in self.counters if each.part not in self.lacking]

    def told(self) -> dict[str, Any]:
        """What a document says of the counters."""
        found: dict[str, Any] = {
            "counters": [counter.name for counter in self.counters],
            "lacking": self.lacking,
        }
        if self.counters:
            found |= {"idle_seconds": IDLE_SECONDS, "least_seconds": self.least_seconds}
        return found


def open_meter(
    gpu: str | None = None,
    *,
    tree: Path = POWERCAP,
    clock: Callable[[], float] = time.perf_counter,
    sleep: Callable[[float], None] = time.sleep,
) -> Meter:
    """The counters of the processors, and of one GPU.

    Args:
        gpu: its UUID, as NVIDIA writes it.
        tree: where the kernel keeps the processors' counters.

    Returns:
        What can be read; a part of which anything cannot is in ``lacking`` as a whole, so that no
        sum leaves out a package.
    """
    meter = Meter([], clock=clock, sleep=sleep)
    found: dict[str, Callable[[], list[Counter]]] = {PROCESSOR: lambda: _powercap(tree)}
    if gpu is not None:
        found[GPU] = lambda: [_gpu(gpu)]
    for part, counters in found.items():
        try:
            meter.counters += counters()
        except UnreadError as error:
            meter.lacking[part] = str(error)
    try:
        meter.drop_standing()
    except UnreadError as error:
        meter.lacking |= dict.fromkeys(meter.parts, str(error))
        meter.counters = []
    return meter


def _powercap(tree: Path) -> list[Counter]:
    """Packages, and memory beside them. What a package holds (core, uncore) is in its count; psys,
    the whole board, and the same packages by another way (intel-rapl-mmio) would count it twice."""
    if not tree.is_dir():
        raise UnreadError(f"{tree} is not there (a virtual machine, a container, not Linux)")
    names = {zone: _said(zone / "name") for zone in sorted(tree.glob("intel-rapl:*"))}
    counters: list[Counter] = []
    for zone, name in names.items():
        if zone.name.count(":") == 1:
            if name in (counter.name for counter in counters):
                raise UnreadError(f"{tree} has two counters of {name}")
            if not name.startswith("psys"):
                counters.append(_zone(zone, name, PROCESSOR))
        elif name == "dram":
            package = names.get(zone.with_name(zone.name.rpartition(":")[0]), "")
            counters.append(_zone(zone, f"{name} of {package}", MEMORY))
    if not any(counter.part == PROCESSOR for counter in counters):
        raise UnreadError(
            f"{tree} counts no processor (a virtual machine, or: modprobe intel_rapl_msr)"
        )
    return counters


def _zone(zone: Path, name: str, part: str) -> Counter:
    counter = Counter(
        name,
        part,
        read=lambda: _number(zone / "energy_uj"),
        unit=1e-6,
        wraps=_number(zone / "max_energy_range_uj"),
        least_seconds=0.5,
    )
    counter.read()
    return counter


def _said(file: Path) -> str:
    try:
        return file.read_text(encoding="ascii").strip()
    except PermissionError:
        raise UnreadError(
            f"{file} is for root alone, until: sudo chmod a+r {file.parents[1]}/*/energy_uj"
        ) from None
    except OSError as error:
        raise UnreadError(f"{file} cannot be read: {error.strerror}") from None


def _number(file: Path) -> int:
    said = _said(file)
    if not said.isdigit():
        raise UnreadError(f"{file} holds no number")
    return int(said)


def _gpu(uuid: str) -> Counter:
    try:
        import pynvml
    except ImportError:
        raise UnreadError("nvidia-ml-py is not here: pip install 'eexit[energy]'") from None
    try:
        pynvml.nvmlInit()
        handle = pynvml.nvmlDeviceGetHandleByUUID(uuid)
        if _in_instances(pynvml, handle):
            raise UnreadError("the GPU is split into instances (MIG) and counts them all together")

        def read() -> int:
            try:
                return int(pynvml.nvmlDeviceGetTotalEnergyConsumption(handle))
            except pynvml.NVMLError as error:
                raise UnreadError(f"NVIDIA's driver does not count its energy: {error}") from None

        read()
        return Counter(str(pynvml.nvmlDeviceGetName(handle)), GPU, read, 1e-3, None, 2.0)
    except pynvml.NVMLError as error:
        raise UnreadError(f"NVIDIA's driver does not answer: {error}") from None


def _in_instances(pynvml: Any, handle: Any) -> bool:
    try:
        return bool(pynvml.nvmlDeviceGetMigMode(handle)[0])
    except pynvml.NVMLError:
        return False  # a GPU that cannot be split
