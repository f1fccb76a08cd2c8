"""``eexit plot``"""

from __future__ import annotations

from typing import Annotated

import typer

from eexit_cli.config.field import FIGURE, flag
from eexit_cli.config.plot import PlotConfig
from eexit_cli.core.errors import UsageError
from eexit_cli.ui import catalogs
from eexit_cli.ui.output import Output
from eexit_cli.ui.signature import from_config

EXAMPLES = """
Examples:
  eexit plot --list
  eexit plot slowdown
  eexit plot tradeoff --run RUN --run OTHER-RUN --output tradeoff.svg
"""


_LIST = typer.Option(
    "--list",
    rich_help_panel=FIGURE,
    show_envvar=False,
    help="Show what each figure shows and which runs it reads, and stop.",
)


@from_config(PlotConfig)
def plot(
    config: PlotConfig,
    output: Output,
    explicit: frozenset[str],
    list_figures: Annotated[bool, _LIST] = False,
) -> None:
    """Draw a figure from finished runs, as PNG, SVG or PDF."""
    if list_figures:
        _list_figures(output, explicit)
        return
    with output.progress() as progress:
        from eexit_cli.pipelines.plot import run_plot

        paths = [str(path) for path in run_plot(config, progress=progress)]
    if output.as_json:
        output.document({"figure": config.figure, "files": paths})
    else:
        output.lines(paths)


def _list_figures(output: Output, explicit: frozenset[str]) -> None:
    """Raise a usage error for options that say how a figure is drawn."""
    from eexit_cli.ui.screens.listings import figures

    beside = sorted(flag("run" if name == "runs" else name) for name in explicit - {"figure"})
    if beside:
        raise UsageError(f"--list draws nothing: {beside[0]} says nothing", hint="Drop one of them")
    found = catalogs.entries("figure")
    sheet = figures(found)
    output.result({"figures": list(sheet.rows)}, sheet, *(figure.name for figure in found))
