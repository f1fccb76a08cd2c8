"""Models, data and the pipeline, for the tests that run it."""

from __future__ import annotations

from pathlib import Path

import pytest
from calibration_tiny import tiny_data, tiny_model

from eexit_cli.config.calibrate import CalibrateConfig
from eexit_cli.core.progress import SilentProgress
from eexit_cli.pipelines.calibrate.run import run_calibration


class Told(SilentProgress):
    """Remembers what it was told."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def message(self, text: str) -> None:
        self.lines.append(text)


@pytest.fixture
def told() -> Told:
    return Told()


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("EEXIT_HOME", str(tmp_path / "home"))


@pytest.fixture(scope="module")
def models(tmp_path_factory) -> Path:
    """Models and data, made once; tests that change them copy them."""
    root = tmp_path_factory.mktemp("models")
    for family in ("deebert", "pabee"):
        tiny_model(root / family, family=family, seed=3)
    tiny_model(root / "regression", classes=1, problem_type="regression")
    tiny_data(root / "data.csv", samples=240)
    return root


@pytest.fixture
def calibrate(tmp_path, models):
    def run(known: str | None = "deebert", **options):
        """Calibrate one of the models; None brings a model, or losses, of its own."""
        if known is not None:
            options["model"] = str(models / known)
            if "task" not in options:
                options.setdefault("data_file", models / "data.csv")
        options.setdefault("latency_samples", 0)
        options.setdefault("results_dir", tmp_path / "results")
        return run_calibration(CalibrateConfig(**options))

    run.data = models / "data.csv"
    return run
