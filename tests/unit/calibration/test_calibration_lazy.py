"""Families whose columns are dear (decoders): a pass per threshold, as few as can be, resumed."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from calibration_tiny import THRESHOLDS, graded_losses

from eexit_cli.calibration.report import Subject
from eexit_cli.calibration.sources import Column
from eexit_cli.config.calibrate import CalibrateConfig
from eexit_cli.core.errors import UsageError
from eexit_cli.pipelines.calibrate import run as pipeline
from eexit_cli.pipelines.calibrate.run import run_calibration
from eexit_cli.store.results import ResultStore


class DearSource:
    """Counts the passes that it makes; breaks down at one of them when told to."""

    cheap = False
    full_model = True
    thresholds = THRESHOLDS

    def __init__(self, losses: np.ndarray, breaks_at: int | None = None) -> None:
        self._losses = losses
        self._breaks_at = breaks_at
        self.samples = len(losses)
        self.passes: list[int] = []

    def column(self, index: int) -> Column:
        if index == self._breaks_at:
            raise KeyboardInterrupt
        self.passes.append(index)
        return Column(self._losses[:, index], np.full(self.samples, 6 - 0.2 * index))


@dataclass
class Decoder:
    """As much of a decoder as a calibration asks for."""

    breaks_at: int | None = None
    samples: int = 300
    calibration: DearSource = field(init=False)
    test: DearSource = field(init=False)
    subject = Subject(knob="softmax threshold", num_layers=6)

    def __post_init__(self) -> None:
        self.calibration = DearSource(graded_losses(self.samples), self.breaks_at)
        self.test = DearSource(graded_losses(200, seed=1))

    @property
    def ids(self) -> dict[str, list[str]]:
        return {
            "calibration": [f"c{row}" for row in range(self.samples)],
            "test": [f"t{row}" for row in range(200)],
        }

    described: Any = field(default_factory=dict)
    measure = "softmax"
    notes: Any = field(default_factory=list)

    def restore(self, part: str, columns: Any) -> None:
        pass

    def settings(self, index: int) -> dict[str, Any]:
        return {"criterion": "threshold", "confidence": "softmax", "threshold": THRESHOLDS[index]}

    def speed(self, index: int) -> dict[str, Any]:
        return {}

    def quality(self, index: int, part: str) -> None:
        return None

    def provenance(self) -> None:
        return None


@pytest.fixture
def calibrate(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def run(decoder: Decoder, **options: Any):
        monkeypatch.setattr(
            pipeline, "prepare", lambda config, progress: nullcontext(([decoder], dict))
        )
        return run_calibration(CalibrateConfig(results_dir=tmp_path / "results", **options))

    return run


def test_it_stops_at_the_first_failure_and_tests_one_threshold(calibrate):
    decoder = Decoder()
    document = calibrate(decoder).document
    chosen = document["metrics"]["threshold_index"]
    assert 0 < chosen < 18
    assert decoder.calibration.passes == list(range(chosen + 2))
    assert decoder.test.passes == [0, chosen]
    assert len(document["rows"]) == chosen + 2
    named = {row["p_value"]: row for row in document["report"]["alternatives"]}
    assert named["naive"]["at_least"] is True
    assert named["hoeffding"]["at_least"] is False


def test_curves_run_everything_once_for_every_delta_and_p_value(calibrate):
    decoder = Decoder()
    result = calibrate(decoder, curves=True, repeats=3)
    assert decoder.calibration.passes == list(range(20))
    assert decoder.test.passes == list(range(20))
    sweeps = [record for record in result.records() if record["kind"] == "sweep"]
    assert len({record["p_value"] for record in sweeps}) > 4


def test_a_sweep_runs_no_more_than_the_answer_needs(calibrate):
    decoder = Decoder()
    result = calibrate(decoder, delta=0.1)
    swept = [
        record["delta"]
        for record in result.records()
        if record["kind"] == "sweep" and record["p_value"] == "hoeffding-bentkus"
    ]
    assert swept == [0.01, 0.02, 0.03, 0.05, 0.075, 0.1]
    assert len(decoder.test.passes) == 2


@pytest.mark.parametrize("options", [{}, {"curves": True, "repeats": 3}])
def test_an_interrupted_run_goes_on_where_it_was(calibrate, tmp_path, options):
    unbroken = calibrate(Decoder(), **options)
    with pytest.raises(KeyboardInterrupt):
        calibrate(Decoder(breaks_at=3), **options)
    (left,) = [
        item for item in ResultStore(tmp_path / "results").list() if item.status == "unfinished"
    ]
    rest = Decoder()
    resumed = calibrate(rest, resume=left.id)
    assert rest.calibration.passes[0] == 3
    assert resumed.document["metrics"] == unbroken.document["metrics"]
    assert resumed.document["rows"] == unbroken.document["rows"]
    assert list(resumed.records()) == list(unbroken.records())
    with pytest.raises(UsageError, match="is finished"):
        calibrate(Decoder(), resume=left.id)


def test_a_run_with_other_samples_or_options_is_not_resumed(calibrate, tmp_path):
    with pytest.raises(KeyboardInterrupt):
        calibrate(Decoder(breaks_at=2), delta=0.2)
    (left,) = ResultStore(tmp_path / "results").list()
    with pytest.raises(UsageError, match="started with other samples"):
        calibrate(Decoder(samples=299), resume=left.id)
    with pytest.raises(UsageError, match=r"--delta 0.3 differs from the run's 0.2"):
        calibrate(Decoder(), resume=left.id, delta=0.3)
    assert calibrate(Decoder(), resume=left.id).document["metrics"]["delta"] == 0.2


def test_an_option_said_at_its_default_must_agree_with_the_run(calibrate, tmp_path):
    with pytest.raises(KeyboardInterrupt):
        calibrate(Decoder(breaks_at=2), delta=0.2)
    (left,) = ResultStore(tmp_path / "results").list()
    config = CalibrateConfig(resume=left.id, results_dir=tmp_path / "results")
    with pytest.raises(UsageError, match=r"--delta 0.1 differs from the run's 0.2"):
        run_calibration(config, explicit={"delta"})
