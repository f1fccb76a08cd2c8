"""Calibration runs made through the real pipeline from losses whose means are known."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from eexit_cli.config.calibrate import CalibrateConfig
from eexit_cli.pipelines.calibrate.run import run_calibration
from eexit_cli.store.results import ResultStore, Run

THRESHOLDS = tuple(round(1 - 0.05 * step, 2) for step in range(20))


def calibration_run(
    store: ResultStore,
    *,
    name: str = "margin",
    power: float = 1.6,
    layers: bool = True,
    names: bool = False,
    samples: int = 600,
    seed: int = 0,
    **options: Any,
) -> Run:
    """A calibration of simulated losses.

    Args:
        name: of the table, and so of the line in a figure.
        power: how slowly losses rise along the sequence.
        layers: the table has exit layers.
        names: thresholds are names and not numbers.
    """
    rng = np.random.default_rng(seed)
    difficulty = rng.beta(1.2, 4, (samples, 1))
    eagerness = np.linspace(0, 1, len(THRESHOLDS))
    losses = np.clip(1.3 * eagerness**power * difficulty, 0, 1)
    columns = [f"step {i}" if names else str(value) for i, value in enumerate(THRESHOLDS)]
    table = pd.DataFrame(losses, columns=columns)
    if layers:
        depth = 6 - 5 * eagerness**0.5 * (1 - 0.7 * difficulty)
        table[[f"exit_layer_{column}" for column in columns]] = depth
    folder = Path(store.results_dir).parent / "losses"
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}.parquet"
    table.to_parquet(path)
    settings: dict[str, Any] = {"curves": True, "repeats": 8, "test_share": 0.5, **options}
    config = CalibrateConfig(losses=path, results_dir=store.results_dir, **settings)
    return store.open(run_calibration(config).path.name)
