"""The options that only ``eexit plot`` has."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from eexit_cli.ui import completion
from eexit_cli.ui.help import mention
from eexit_cli.ui.option_types import FIGURE, checked, choice, option

Figure = Annotated[
    str,
    typer.Argument(
        metavar="FIGURE",
        help=f"Which figure: {mention('figure')}.",
        show_envvar=False,
        callback=checked("figure"),
        autocompletion=completion.of_catalog("figure"),
    ),
]
RunIds = Annotated[
    list[str],
    option(
        "--run",
        panel=FIGURE,
        metavar="RUN",
        help="A run to draw; may be given again. By default the latest that fits.",
        autocompletion=completion.runs,
    ),
]
FigureFile = Annotated[
    Path | None,
    option(
        "--output",
        panel=FIGURE,
        metavar="FILE",
        help="A .png, .svg or .pdf file; by default in the run's folder.",
    ),
]

FigureFormat = Annotated[
    str | None,
    choice(
        "figure format",
        "--format",
        panel=FIGURE,
        help="Where --output does not say it.",
        show=True,
    ),
]
Dpi = Annotated[
    int, option("--dpi", panel=FIGURE, metavar="N", min=1, help="Dots per inch of a PNG.")
]
Width = Annotated[float, option("--width", panel=FIGURE, metavar="INCHES", min=0.1, help="Width.")]
Height = Annotated[
    float | None,
    option(
        "--height",
        panel=FIGURE,
        metavar="INCHES",
        min=0.1,
        help="Height; by default from the number of panels.",
    ),
]
Title = Annotated[
    str | None,
    option("--title", panel=FIGURE, metavar="TEXT", help="Printed above; papers have captions."),
]

OPTIONS: dict[str, Any] = {
    "figure": Figure,
    "runs": RunIds,
    "output": FigureFile,
    "format": FigureFormat,
    "dpi": Dpi,
    "width": Width,
    "height": Height,
    "title": Title,
}
"""Field of the configuration -> its option, where it is not one that other commands share."""
