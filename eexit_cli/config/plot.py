"""Settings of ``eexit plot``."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, kw_only=True)
class PlotConfig:
    """A figure drawn from finished runs. The default size is one column of a paper.

    Attributes:
        figure: a name of the figure catalog.
        runs: run ids, beginnings of ids, ``latest``, or folders; empty is the newest run that the
            figure can be drawn from.
        output: a file, whose extension decides the format, or an existing folder; None is the
            folder of the first run drawn.
        format: png, svg or pdf where ``output`` does not say; None is png.
        results_dir: where the runs are.
        dpi: dots per inch of a PNG.
        width: inches.
        height: inches; None follows from the number of panels.
        title: printed above the figure; None prints none, as papers have captions.
    """

    figure: str = "slowdown"
    runs: tuple[str, ...] = ()
    output: Path | None = None
    format: str | None = None
    results_dir: Path = Path("results")
    dpi: int = 300
    width: float = 3.3
    height: float | None = None
    title: str | None = None
