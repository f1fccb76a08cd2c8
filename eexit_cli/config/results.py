"""Settings of ``eexit results``."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, kw_only=True)
class ResultsConfig:
    """Where runs are looked for.

    Attributes:
        results_dir: each run is one folder below it.
    """

    results_dir: Path = Path("results")
