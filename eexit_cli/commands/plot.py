"""``eexit plot``"""

from __future__ import annotations

from typing import Annotated

import typer

from eexit_cli.config.field import FIGURE
from eexit_cli.config.plot import PlotConfig
from eexit_cli.ui import catalogs
from eexit_cli.ui.output import Output
from eexit_cli.ui.signature import from_config

EXAMPLES = """
Examples:
  eexit plot --list
  eexit plot slowdown
  eexit plot tradeoff --run RUN --run OTHER-RUN --output tradeoff.svg
"""


def _list_figures(wanted: bool) -> None:
    """Before anything else is read: who asks which figures there are names none."""
    if not wanted:
        return
    from eexit_cli.ui.screens.listings import figures

    found = catalogs.entries("figure")
    Output().result({}, figures(found), *(figure.name for figure in found))
    raise typer.Exit


_LIST = typer.Option(
    "--list",
    rich_help_panel=FIGURE,
    show_envvar=False,
    is_eager=True,
    callback=_list_figures,
    help="Show what each figure shows and which runs it reads, and stop.",
)


@from_config(PlotConfig)
def plot(config: PlotConfig, output: Output, list_figures: Annotated[bool, _LIST] = False) -> None:
    """Draw a figure from finished runs, as PNG, SVG or PDF."""
    with output.progress() as progress:
        from eexit_cli.pipelines.plot import run_plot

        paths = [str(path) for path in run_plot(config, progress=progress)]
    if output.as_json:
        output.document({"figure": config.figure, "files": paths})
    else:
        output.lines(paths)
