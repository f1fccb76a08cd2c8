"""How the values of options are read where their type alone does not say."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from typing import Any

import typer

from eexit_cli.core.errors import UsageError
from eexit_cli.ui import catalogs

ALL = "all"
"""Stands for every recipe."""


def checked(kind: str) -> Callable[[Any], Any]:
    """A callback that replaces a name of a catalog by the registered one, or refuses it."""

    def check(value: Any) -> Any:
        return None if value is None else catalogs.check(kind, value)

    return check


def name_of(kind: str) -> Callable[[Any], str]:
    """A parser of a catalog's names."""
    return lambda value: catalogs.check(kind, str(value))


def device(value: str) -> str:
    """cuda:1 is a device; the rest must be a known name."""
    catalogs.check("device", "cuda" if re.fullmatch(r"cuda:\d+", value) else value)
    return value


def recipes(value: str | None) -> str | None:
    """Names with commas between them, each the registered one; ``all`` stands alone."""
    if value is None:
        return None
    names = [name.strip() for name in value.split(",") if name.strip()]
    if names == [ALL]:
        return ALL
    if ALL in names:
        raise UsageError("--recipe all stands alone", hint="Give all, or the names of some")
    return ",".join(dict.fromkeys(catalogs.check("recipe", name) for name in names or [value]))


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


def numbers(text: Any) -> tuple[float, ...]:
    """``1,0.95,0.9`` as numbers; a configuration file may hold a list."""
    parts = text.replace(",", " ").split() if isinstance(text, str) else text
    try:
        return tuple(float(part) for part in parts)
    except ValueError:
        raise typer.BadParameter(f"'{text}' is no list of numbers such as 1,0.95,0.9") from None


def top_k(value: Any) -> int:
    """K, or 0 for ``none``; whether K fits the vocabulary shows when the model is known."""
    return 0 if value == "none" else whole(0)(value)


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


def listed(parse: Callable[[Any], Any]) -> Callable[[Any], tuple[Any, ...]]:
    """The same, where one value is a list as well, and no value an empty one."""

    def parse_all(value: Any) -> tuple[Any, ...]:
        if value in ((), []):
            return ()
        found = several(parse)(value)
        return found if isinstance(found, tuple) else (found,)

    return parse_all


PARSERS: dict[str, Callable[[Any], Any]] = {
    "threshold": threshold,
    "top-k": top_k,
    "numbers": numbers,
    "names": listed(str),
    "layers": listed(whole(1)),
}
"""What ``config.field.Option.parse`` may name: from what was typed to the value."""

CHECKS: dict[str, Callable[[Any], Any]] = {"device": device, "recipes": recipes}
"""The same, for what is checked once it is text."""
