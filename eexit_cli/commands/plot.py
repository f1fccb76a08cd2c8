"""``eexit plot``"""

from __future__ import annotations

from eexit_cli.config.plot import PlotConfig
from eexit_cli.ui.output import Output
from eexit_cli.ui.signature import from_config

EXAMPLES = """
Examples:
  eexit plot slowdown
  eexit plot tradeoff --run RUN --run OTHER-RUN --output tradeoff.svg
"""


@from_config(PlotConfig)
def plot(config: PlotConfig, output: Output) -> None:
    """Draw a figure from finished runs, as PNG, SVG or PDF."""
    with output.progress() as progress:
        from eexit_cli.pipelines.plot import run_plot

        paths = [str(path) for path in run_plot(config, progress=progress)]
    if output.as_json:
        output.document({"figure": config.figure, "files": paths})
    else:
        output.lines(paths)
