"""Joules of a machine whose counters the test turns: what is reported is known beforehand."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from eexit_cli.core.progress import SilentProgress
from eexit_cli.families import stopwatch
from eexit_cli.metrics.counters import (
    IDLE_SECONDS,
    MOST_WATTS,
    SETTLE_SECONDS,
    Counter,
    Meter,
    Reading,
    UnreadError,
    open_meter,
)
from eexit_cli.metrics.energy import Energies, energy_figures, growth_figures, joules_in_turn

RANGE = 262_143_328_850
"""Microjoules, as Intel's counters have it."""

IDLE = {"package-0": 10.0, "package-1": 12.0, "dram": 2.0, "core": 5.0, "psys": 40.0}


class Machine:
    """Zones whose files say what was used until now; a clock that only work and sleep move."""

    def __init__(self, tree: Path, *, range: int = RANGE, begin: int = 0) -> None:
        self.tree, self.range, self.begin, self.now = tree, range, begin, 0.0
        self.used = dict.fromkeys(IDLE, 0.0)
        self.ran: list[str] = []
        for zone, name in (
            ("intel-rapl:0", "package-0"),
            ("intel-rapl:0:0", "core"),
            ("intel-rapl:0:1", "dram"),
            ("intel-rapl:1", "package-1"),
            ("intel-rapl:2", "psys"),
            ("intel-rapl-mmio:0", "package-0"),
        ):
            (tree / zone).mkdir(parents=True)
            (tree / zone / "name").write_text(f"{name}\n")
            (tree / zone / "max_energy_range_uj").write_text(f"{range}\n")
        (tree / "intel-rapl").mkdir()
        self.pass_time(0)

    def pass_time(self, seconds: float, **extra: float) -> None:
        self.now += seconds
        for name, watts in IDLE.items():
            self.used[name] += (watts + extra.get(name.replace("-", "_"), 0)) * seconds
        for zone in self.tree.glob("*:*"):
            used = self.used[(zone / "name").read_text().strip()]
            count = (self.begin + round(1e6 * used)) % self.range
            (zone / "energy_uj").write_text(f"{count}\n")

    def meter(self, gpu: str | None = None) -> Meter:
        return open_meter(gpu, tree=self.tree, clock=lambda: self.now, sleep=self.pass_time)

    def way(self, name: str, **extra: float) -> Callable[[float], None]:
        """Takes an item's seconds, and these watts above idle."""

        def run(item: float) -> None:
            self.ran.append(name)
            self.pass_time(item, **extra)

        return run


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path / "powercap")


def test_packages_and_memory_are_counted_once_each(machine: Machine) -> None:
    meter = machine.meter()
    found = [(counter.name, counter.part) for counter in meter.counters]
    assert found == [
        ("package-0", "processor"),
        ("dram of package-0", "memory"),
        ("package-1", "processor"),
    ]
    assert meter.parts == ("processor", "memory")
    assert meter.lacking == {}
    before = meter.read()
    machine.pass_time(2, package_0=100)
    np.testing.assert_allclose(meter.between(before, meter.read()), [2 * (22 + 100), 4])
    assert meter.told() == {
        "counters": ["package-0", "dram of package-0", "package-1"],
        "lacking": {},
        "idle_seconds": IDLE_SECONDS,
        "least_seconds": 0.5,
    }


def test_a_machine_without_a_counter_of_its_memory(machine: Machine, tmp_path: Path) -> None:
    (machine.tree / "intel-rapl:0:1" / "name").write_text("core")
    assert machine.meter().parts == ("processor",)
    assert machine.meter().lacking == {}
    for zone in ("intel-rapl:0", "intel-rapl:1"):
        (machine.tree / zone / "name").write_text("psys")
    assert "counts no processor" in machine.meter().lacking["processor"]


def test_known_watts_give_known_joules(machine: Machine) -> None:
    ways = {
        "full": machine.way("full", package_0=30, package_1=10, dram=5),
        "live": machine.way("live", package_0=20),
    }
    items = [0.02, 0.04]
    turns: list[int] = []
    found = joules_in_turn(ways, items, machine.meter(), repeats=6, on_pass=lambda: turns.append(1))
    assert found is not None
    assert len(turns) == 12
    np.testing.assert_allclose(found.idle_watts, [22, 2], rtol=1e-6)
    np.testing.assert_allclose(found.passes["full"], [[40 * 0.06, 5 * 0.06]] * 6, rtol=1e-4)
    np.testing.assert_allclose(found.passes["live"], [[20 * 0.06, 0]] * 6, rtol=1e-4, atol=1e-5)
    figures = energy_figures(found, full="full", live="live", inputs=2, tokens=4, tokens_full=6)
    for end in ("", "_low", "_high"):
        assert figures[f"joules_per_sample{end}"] == pytest.approx(0.6, rel=1e-4)
        assert figures[f"joules_per_token{end}"] == pytest.approx(0.3, rel=1e-4)
        assert figures[f"joules_share{end}"] == pytest.approx(1.2 / 2.7, rel=1e-4)
    assert figures["joules_per_sample_full"] == pytest.approx(1.35, rel=1e-4)
    assert figures["joules_per_token_full"] == pytest.approx(0.45, rel=1e-4)
    assert figures["processor_joules_per_sample"] == pytest.approx(0.6, rel=1e-4)
    assert figures["memory_joules_per_sample"] == pytest.approx(0, abs=1e-5)
    assert figures["idle_watts"] == pytest.approx(24, rel=1e-6)


def test_turns_are_whole_passes_of_some_length_and_alternate(machine: Machine) -> None:
    """0.06 s a pass: nine reach half a second, and each way's turns stand apart."""
    ways = {name: machine.way(name, package_0=9) for name in "abc"}
    joules_in_turn(ways, [0.02, 0.04], machine.meter(), repeats=6)
    assert len(machine.ran) == 6 * 3 * 9 * 2
    order = machine.ran[:: 9 * 2]
    assert [machine.ran.count(name) for name in "abc"] == [6 * 9 * 2] * 3
    assert order == [*"abc", *"cba", *"bca", *"acb", *"cab", *"bac"]


def test_short_passes_are_read_at_both_ends_alone(machine: Machine) -> None:
    """Reading takes energy and time as well."""
    meter, reads = machine.meter(), [0]
    read = meter.read

    def counted() -> Reading:
        reads[0] += 1
        return read()

    meter.read = counted  # type: ignore[method-assign]
    joules_in_turn({"full": machine.way("full")}, [0.02, 0.04], meter, repeats=7)
    assert reads == [2 + 7 * 2]


def test_what_waits_in_the_queue_is_counted_with_its_pass(machine: Machine) -> None:
    """A way only asks; the device works while its queue is drained."""
    asked: list[float] = []

    def drain() -> None:
        while asked:
            machine.pass_time(asked.pop(), package_0=50)

    ways = {"full": asked.append, "live": lambda item: asked.append(item / 2)}
    found = joules_in_turn(ways, [0.3], machine.meter(), synchronize=drain)
    assert found is not None
    np.testing.assert_allclose(found.passes["full"].sum(1), 15, rtol=1e-4)
    np.testing.assert_allclose(found.passes["live"].sum(1), 7.5, rtol=1e-4)


@given(begin=st.integers(0, RANGE - 1), used=st.integers(0, RANGE - 1))
def test_a_counter_may_begin_anew_between_two_readings(begin: int, used: int) -> None:
    counter = Counter("package-0", "processor", lambda: 0, 1e-6, RANGE, 0.5)
    seconds = used * 1e-6 / MOST_WATTS
    assert counter.joules(begin, (begin + used) % RANGE, seconds) == pytest.approx(1e-6 * used)


@pytest.mark.parametrize("begin", [RANGE - 1, RANGE - 10_000_000, RANGE - 130_000_000])
def test_a_measurement_does_not_see_where_the_counter_began(tmp_path: Path, begin: int) -> None:
    """Wraps in the probe, in the idle power and in a turn."""
    machine = Machine(tmp_path / "powercap", begin=begin)
    ways = {"full": machine.way("full", package_0=40), "live": machine.way("live", package_1=8)}
    found = joules_in_turn(ways, [0.5], machine.meter())
    assert found is not None
    np.testing.assert_allclose(found.passes["full"].sum(1), 20, rtol=1e-4)
    np.testing.assert_allclose(found.passes["live"].sum(1), 4, rtol=1e-4)


def test_long_passes_are_read_while_they_run(tmp_path: Path) -> None:
    """A pass of 40 s, in which a counter of 20 kJ could wrap twice, but no item of 2 s could."""
    machine = Machine(tmp_path / "powercap", range=20_000_000_000)
    ways = {"full": machine.way("full", package_0=900)}
    found = joules_in_turn(ways, [2.0] * 20, machine.meter())
    assert found is not None
    np.testing.assert_allclose(found.passes["full"].sum(1), 36_000, rtol=1e-4)


def test_a_counter_that_may_have_wrapped_twice_is_no_measurement(tmp_path: Path) -> None:
    machine = Machine(tmp_path / "powercap", range=20_000_000_000)
    meter = machine.meter()
    assert joules_in_turn({"full": machine.way("full")}, [20.0], meter) is None
    assert "must take less than 20 s" in meter.lacking["processor"]
    assert meter.counters == []
    # Nor is what comes after it.
    assert joules_in_turn({"full": machine.way("full")}, [0.1], meter) is None


def test_denied(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    """One package is enough: a sum without it would look like the machine's."""
    reads = Path.read_text

    def denied(path: Path, *args: Any, **others: Any) -> str:
        if path == machine.tree / "intel-rapl:1" / "energy_uj":
            raise PermissionError(13, "Permission denied")
        return reads(path, *args, **others)

    monkeypatch.setattr(Path, "read_text", denied)
    meter = machine.meter()
    assert meter.counters == []
    assert meter.lacking == {
        "processor": f"{machine.tree}/intel-rapl:1/energy_uj is for root alone, until: "
        f"sudo chmod a+r {machine.tree}/*/energy_uj"
    }


def test_not_there(tmp_path: Path, machine: Machine) -> None:
    def why(tree: Path) -> str:
        meter = open_meter(tree=tree, sleep=lambda seconds: pytest.fail("waits for nothing"))
        assert meter.counters == []
        assert meter.told() == {"counters": [], "lacking": meter.lacking}
        return meter.lacking["processor"]

    assert "nowhere is not there" in why(tmp_path / "nowhere")
    (tmp_path / "empty").mkdir()
    assert "counts no processor" in why(tmp_path / "empty")
    for file, text, reason in (
        ("intel-rapl:1/name", "package-0", "two counters of package-0"),
        ("intel-rapl:0/max_energy_range_uj", "", "holds no number"),
    ):
        (machine.tree / file).write_text(text)
        assert reason in why(machine.tree)
    (machine.tree / "intel-rapl:0:1" / "name").unlink()
    assert "No such file" in why(machine.tree)


def test_a_counter_that_stands_still_counts_nothing(machine: Machine, monkeypatch) -> None:
    monkeypatch.setitem(IDLE, "dram", 0.0)
    meter = machine.meter()
    assert meter.parts == ("processor",)
    assert meter.lacking == {"memory": "the counter dram of package-0 stands still"}
    monkeypatch.setitem(IDLE, "package-1", 0.0)
    assert machine.meter().counters == []


def test_a_counter_that_goes_is_no_measurement(machine: Machine) -> None:
    meter = machine.meter()

    def breaks(item: float) -> None:
        machine.pass_time(item)
        (machine.tree / "intel-rapl:0" / "energy_uj").unlink()

    assert joules_in_turn({"full": breaks}, [0.6], meter) is None
    assert set(meter.lacking) == {"processor", "memory"}
    assert "No such file" in meter.lacking["processor"]


def test_the_machine_settles_before_its_idle_power_is_measured(machine: Machine) -> None:
    slept: list[float] = []
    meter = machine.meter()
    meter.sleep = lambda seconds: (slept.append(seconds), machine.pass_time(seconds))[0]
    np.testing.assert_allclose(meter.idle(), [22, 2], rtol=1e-6)
    assert slept == [SETTLE_SECONDS, IDLE_SECONDS]


class NVMLError(Exception):
    pass


class Driver(SimpleNamespace):
    """Stands in for the module: GPUs by UUID, whose counts are the test's."""

    NVMLError = NVMLError

    def __init__(self, **millijoules: Any) -> None:
        super().__init__()
        self.counts = {f"GPU-{uuid}": count for uuid, count in millijoules.items()}
        self.split = False

    def nvmlInit(self) -> None:  # noqa: N802
        if not self.counts:
            raise NVMLError("Driver Not Loaded")

    def nvmlDeviceGetHandleByUUID(self, uuid: str) -> str:  # noqa: N802
        if uuid not in self.counts:
            raise NVMLError("Not Found")
        return uuid

    def nvmlDeviceGetMigMode(self, handle: str) -> list[int]:  # noqa: N802
        if self.split is None:
            raise NVMLError("Not Supported")
        return [int(self.split), 0]

    def nvmlDeviceGetName(self, handle: str) -> str:  # noqa: N802
        return f"H100 {handle}"

    def nvmlDeviceGetTotalEnergyConsumption(self, handle: str) -> int:  # noqa: N802
        if self.counts[handle] is None:
            raise NVMLError("Not Supported")
        return int(self.counts[handle]())


def test_one_gpu_beside_the_processors(machine: Machine, monkeypatch) -> None:
    """70 W idle, 300 W more while it works; millijoules; turns of two seconds."""
    busy = [0.0]
    driver = Driver(
        mine=lambda: 1000 * (70 * machine.now + 300 * busy[0]),
        other=lambda: 1000 * 500 * machine.now,
    )
    driver.split = None
    monkeypatch.setitem(sys.modules, "pynvml", driver)
    meter = machine.meter("GPU-mine")
    assert [counter.name for counter in meter.counters][-1] == "H100 GPU-mine"
    assert meter.parts == ("processor", "memory", "gpu")
    assert meter.least_seconds == 2

    def works(item: float) -> None:
        machine.pass_time(item, package_0=4)
        busy[0] += item

    found = joules_in_turn({"full": works}, [0.5], meter)
    assert found is not None
    np.testing.assert_allclose(found.idle_watts, [22, 2, 70], rtol=1e-4)
    np.testing.assert_allclose(found.passes["full"], [[2, 0, 150]] * 5, rtol=1e-3, atol=1e-3)
    figures = energy_figures(found, full="full", live="full", inputs=1)
    assert figures["gpu_joules_per_sample"] == pytest.approx(150, rel=1e-4)


def test_a_gpus_count_only_grows() -> None:
    counter = Counter("H100", "gpu", lambda: 0, 1e-3, None, 2.0)
    assert [counter.joules(7000, after, 1e6) for after in (7000, 7001)] == [0, 1e-3]
    with pytest.raises(UnreadError, match="began anew"):
        counter.joules(7000, 6999, 1)


def test_a_driver_that_is_loaded_anew_is_no_measurement(machine: Machine, monkeypatch) -> None:
    counts = iter([9000, 9000, 9500, 9900, 100, *range(200, 400)])
    monkeypatch.setitem(sys.modules, "pynvml", Driver(mine=lambda: next(counts)))
    meter = machine.meter("GPU-mine")
    assert joules_in_turn({"full": machine.way("full")}, [3.0], meter) is None
    assert meter.lacking["gpu"] == "the counter H100 GPU-mine began anew meanwhile"


@pytest.mark.parametrize(
    ("driver", "split", "reason"),
    [
        (None, False, "pip install 'eexit[energy]'"),
        (Driver(), False, "does not answer: Driver Not Loaded"),
        (Driver(other=lambda: 1), False, "does not answer: Not Found"),
        (Driver(mine=None), False, "does not count its energy: Not Supported"),
        (Driver(mine=lambda: 1), True, "MIG"),
        (Driver(mine=lambda: 1), False, "stands still"),
    ],
)
def test_a_gpu_that_is_not_measured(machine: Machine, monkeypatch, driver, split, reason) -> None:
    """The processors are, and the sum says whose it is."""
    if driver is not None:
        driver.split = split
    monkeypatch.setitem(sys.modules, "pynvml", driver)
    meter = machine.meter("GPU-mine")
    assert meter.parts == ("processor", "memory")
    assert set(meter.lacking) == {"gpu"}
    assert reason in meter.lacking["gpu"]


def test_the_gpu_that_torch_uses_is_the_one_that_is_read(monkeypatch) -> None:
    """By its UUID: torch's second visible GPU may be the driver's fifth."""
    asked: list[Any] = []
    monkeypatch.setattr(stopwatch, "open_meter", lambda gpu=None: asked.append(gpu) or Meter([]))
    monkeypatch.setattr(torch.version, "hip", None)
    monkeypatch.setattr(
        torch.cuda, "get_device_properties", lambda device: SimpleNamespace(uuid=f"u{device.index}")
    )
    for device in ("cpu", "cuda:1", "mps"):
        meter = stopwatch.meter_of(torch.device(device))
    assert asked == [None, "GPU-u1", None]
    assert "'mps'" in meter.lacking["gpu"]
    monkeypatch.setattr(torch.version, "hip", "6.0")
    assert "gpu" in stopwatch.meter_of(torch.device("cuda:0")).lacking


def test_ways_are_measured_under_a_bar(machine: Machine, monkeypatch) -> None:
    ways = {"full": machine.way("full", package_0=10), "live": machine.way("live")}
    told: dict[str, Any] = {
        "device": torch.device("cpu"),
        "repeats": 5,
        "progress": SilentProgress(),
    }
    found = stopwatch.measure_ways(ways, [0.6], machine.meter(), **told)
    assert found is not None
    np.testing.assert_allclose(found.passes["full"][:, 0], 6, rtol=1e-4)
    assert stopwatch.measure_ways(ways, [0.6], Meter([]), **told) is None


def test_a_spread_is_over_repeats_and_a_ratio_within_one() -> None:
    full = np.array([[10.0], [20.0], [10.0], [10.0], [10.0]])
    live = np.array([[5.0], [8.0], [6.0], [4.0], [5.0]])
    found = Energies(("processor",), np.array([3.0]), {"full": full, "live": live})
    figures = energy_figures(found, full="full", live="live", inputs=2, suffix="_before")
    assert figures == pytest.approx(
        {
            "joules_per_sample_before": 2.5,
            "joules_per_sample_low_before": 2,
            "joules_per_sample_high_before": 4,
            "joules_per_sample_full_before": 5,
            "joules_share_before": 0.5,
            "joules_share_low_before": 0.4,
            "joules_share_high_before": 0.6,
            "idle_watts": 3,
        }
    )
    assert growth_figures(found, "live", "full") == pytest.approx(
        {"joules_growth": 2.0, "joules_growth_low": 10 / 6, "joules_growth_high": 2.5}
    )


def test_no_ratio_to_what_did_not_rise_above_idle() -> None:
    full = np.array([[1.0], [1.0], [0.0], [1.0], [1.0]])
    found = Energies(("processor",), np.array([3.0]), {"full": full, "live": full})
    figures = energy_figures(found, full="full", live="live", inputs=1)
    assert figures["joules_share"] is None
    assert figures["joules_per_sample"] == 1
    little = Energies(found.parts, found.idle_watts, {"full": full + 1e-3, "live": full / 2})
    assert energy_figures(little, full="full", live="live", inputs=1)["joules_share"] == (
        pytest.approx(0.5 / 1.001)
    )
    assert set(growth_figures(found, "full", "live").values()) == {None}


def test_nothing_measured_is_nothing_and_never_nought() -> None:
    figures = energy_figures(None, full="full", live="live", inputs=3, tokens=2, tokens_full=2)
    assert set(figures.values()) == {None}
    assert {"joules_per_sample", "joules_per_token", "joules_share", "idle_watts"} <= set(figures)
    assert set(growth_figures(None, "full", "live").values()) == {None}


def test_a_reading_that_fails_says_why() -> None:
    def fails() -> int:
        raise UnreadError("gone")

    counter = Counter("package-0", "processor", fails, 1e-6, RANGE, 0.5)
    with pytest.raises(UnreadError, match="gone"):
        Meter([counter]).read()
    assert MOST_WATTS * 260 < RANGE * 1e-6
