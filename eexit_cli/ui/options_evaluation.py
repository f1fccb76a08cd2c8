"""The options that only ``eexit evaluate`` and ``eexit predict`` have."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from eexit_cli.ui.option_types import DATA, EVALUATION, option

Sweep = Annotated[
    bool,
    option("--sweep", panel=EVALUATION, help="Every threshold from one pass, not one setting."),
]
LatencySamples = Annotated[
    int,
    option(
        "--latency-samples",
        panel=EVALUATION,
        metavar="N",
        min=0,
        help="Samples timed one by one against the full model; 0 skips the timing.",
    ),
]


Texts = Annotated[
    list[str], typer.Argument(metavar="TEXT", help="What to classify.", show_envvar=False)
]
TextPair = Annotated[
    str | None,
    option("--text-pair", panel=DATA, metavar="TEXT", help="The second text of a pair task."),
]

OPTIONS: dict[str, Any] = {
    "sweep": Sweep,
    "latency_samples": LatencySamples,
    "texts": Texts,
    "text_pair": TextPair,
}
"""Field of the configuration -> its option, where it is not one that other commands share."""
