"""Settings of ``eexit plot``."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from eexit_cli.config.common import CommonConfig
from eexit_cli.config.field import FIGURE, like, opt


@dataclass(frozen=True, kw_only=True)
class PlotConfig:
    """A figure drawn from finished runs. The default size, in inches, is one column of a paper."""

    figure: str | None = opt(
        "slowdown", "Which figure: {{figure}}.", argument=True, names="figure", metavar="FIGURE"
    )
    runs: tuple[str, ...] = opt(
        (),
        "A run to draw; may be given again. By default the latest that fits.",
        FIGURE,
        flag="--run",
        completes="runs",
        metavar="RUN",
    )
    output: Path | None = opt(
        None, "A .png, .svg or .pdf file; by default in the run's folder.", FIGURE, metavar="FILE"
    )
    format: str | None = opt(
        None, "Where --output does not say it.", FIGURE, names="figure format", listed=True
    )
    results_dir: Path = like(CommonConfig, "results_dir")
    dpi: int = opt(300, "Dots per inch of a PNG.", FIGURE, least=1)
    width: float = opt(3.3, "Width.", FIGURE, least=0.1, metavar="INCHES")
    height: float | None = opt(
        None, "Height; by default from the number of panels.", FIGURE, least=0.1, metavar="INCHES"
    )
    title: str | None = opt(None, "Printed above; papers have captions.", FIGURE, metavar="TEXT")
