"""How an option is made: its panel, and a check for those whose values are names."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from typing import Any

import typer

from eexit_cli.ui import catalogs, completion
from eexit_cli.ui.help import mention

MODEL = "Model"
DATA = "Data"
EXITS = "Exits"
DECODER = "Decoder (CALM)"
TRAINING = "Training"
ATTACK = "Attack"
EVALUATION = "Evaluation"
CALIBRATION = "Calibration"
LOSSES = "Losses of your own"
UNDER_ATTACK = "Under attack"
FIGURE = "Figure"
RUN = "Run"
OUTPUT = "Output"
PANELS = (
    MODEL,
    DATA,
    EXITS,
    DECODER,
    TRAINING,
    ATTACK,
    EVALUATION,
    CALIBRATION,
    LOSSES,
    UNDER_ATTACK,
    FIGURE,
    RUN,
    OUTPUT,
)
"""The order of the help screen's groups."""


def option(*names: str, panel: str, help: str, **settings: Any) -> Any:
    """An option of a panel; ``settings`` are those of ``typer.Option``."""
    return typer.Option(*names, rich_help_panel=panel, help=help, show_envvar=False, **settings)


def choice(
    kind: str, *names: str, panel: str, help: str, show: bool = False, **settings: Any
) -> Any:
    """An option whose values are the names of a catalog: checked, suggested and completed."""
    if show:
        help = f"{help} One of {mention(kind)}."
    return option(
        *names,
        panel=panel,
        help=help,
        metavar="NAME",
        callback=checked(kind),
        autocompletion=completion.of_catalog(kind),
        **settings,
    )


def checked(kind: str) -> Callable[[Any], Any]:
    """A callback that replaces a name of a catalog by the registered one, or refuses it."""

    def check(value: Any) -> Any:
        return None if value is None else catalogs.check(kind, value)

    return check


def device(value: str) -> str:
    """cuda:1 is a device; the rest must be a known name."""
    catalogs.check("device", "cuda" if re.fullmatch(r"cuda:\d+", value) else value)
    return value


def whole(minimum: int) -> Callable[[Any], int]:
    """A parser of whole numbers, at least ``minimum``."""

    def parse(value: Any) -> int:
        try:
            number = float(value)
        except (TypeError, ValueError):
            number = math.nan
        if not number.is_integer():
            raise typer.BadParameter(f"'{value}' is not a valid integer.")
        if number < minimum:
            raise typer.BadParameter(f"{value} is not in the range x>={minimum}.")
        return int(number)

    return parse


def number(value: Any) -> float:
    """A number, at least 0."""
    try:
        found = float(value)
    except (TypeError, ValueError):
        raise typer.BadParameter(f"'{value}' is not a valid float.") from None
    if found < 0:
        raise typer.BadParameter(f"{value} is not in the range x>=0.")
    return found


def top_k(value: Any) -> int:
    """K, or 0 for ``none``; whether K fits the vocabulary shows when the model is known."""
    return 0 if value == "none" else whole(0)(value)


def several(parse: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """A parser of one value, or of several with commas between (a list in a file).

    Several are returned as a tuple, one as itself.
    """

    def parse_all(value: Any) -> Any:
        parts = value if isinstance(value, (list, tuple)) else str(value).split(",")
        found = [part.strip() if isinstance(part, str) else part for part in parts]
        if not found or "" in found:
            raise typer.BadParameter(f"'{value}' has an empty value between its commas.")
        if len(found) == 1:
            return parse(value if isinstance(value, (int, float)) else found[0])
        return tuple(parse(part) for part in found)

    return parse_all


def names(value: Any) -> tuple[str, ...]:
    """Names with commas between, or a list in a file."""
    found = several(str)(value)
    return found if isinstance(found, tuple) else (found,)


def name_of(kind: str) -> Callable[[Any], str]:
    """A parser of a catalog's names."""
    return lambda value: catalogs.check(kind, str(value))


def threshold(value: Any) -> float | str:
    """A number, at least 0, or the word for the stored one, with a run's id or without."""
    if re.fullmatch(r"calibrated(:[^:\s]+)?", str(value)):
        return str(value)
    try:
        number = float(value)
    except ValueError:
        raise typer.BadParameter(
            f"'{value}' is no number, not 'calibrated' and not 'calibrated:RUN'"
        ) from None
    if number < 0:
        raise typer.BadParameter(f"{value} is not in the range x>=0.")
    return number
