"""Settings of ``eexit report``."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from eexit_cli.config.field import OUTPUT, opt
from eexit_cli.config.results import ResultsConfig


@dataclass(frozen=True, kw_only=True)
class ReportConfig(ResultsConfig):
    """Which runs become a page, and where it goes."""

    runs: tuple[str, ...] = opt(
        (),
        "Ids, beginnings of one, paths, or latest; by default the latest finished run.",
        argument=True,
        metavar="RUN",
        completes="runs",
    )
    output: Path = opt(
        Path("report.html"), "An .html file, or a folder for it.", OUTPUT, metavar="FILE"
    )
    title: str | None = opt(None, "Printed above; by default what was run.", OUTPUT, metavar="TEXT")
    limit: int = opt(500, "Show the first N samples of each run; 0 shows all.", OUTPUT, least=0)
