"""Options given as keywords from Python, held to what the command line holds them to."""

from __future__ import annotations

import dataclasses
import math
import types
import typing
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

from eexit_cli.config.field import option_of
from eexit_cli.core.catalog import unknown_name
from eexit_cli.core.errors import UsageError

Config = TypeVar("Config")


def config_of(kind: type[Config], options: Mapping[str, Any]) -> Config:
    """A configuration from keywords.

    A path may be a string, several values a list.

    Args:
        kind: the dataclass of a command.
        options: field names to values.

    Raises:
        UsageError: an unknown option, a value of another type or outside its range, or options
            that exclude or need each other.
    """
    known = {item.name: item for item in dataclasses.fields(kind)}  # type: ignore[arg-type]
    hints = typing.get_type_hints(kind)
    values: dict[str, Any] = {}
    for name, value in options.items():
        if name not in known:
            raise unknown_name("option", name, known)
        values[name] = _value(name, value, hints[name])
        _check_range(name, values[name], option_of(known[name]))
    given = {name for name in values if values[name] not in (None, False, known[name].default)}
    for name in given:
        told = option_of(known[name])
        for other in told.excludes:
            if other in given:
                raise UsageError(f"{name} and {other} exclude each other", hint="Give one of them")
        if told.needs is not None and values.get(told.needs) is None:
            raise UsageError(
                f"{name} says nothing without {told.needs}",
                hint=f"Add {told.needs}, or drop {name}",
            )
    return kind(**values)


def _value(name: str, value: Any, hint: Any) -> Any:
    accepted = _types(hint)
    if isinstance(value, list):
        value = tuple(value)
    if isinstance(value, str) and Path in accepted and str not in accepted:
        return Path(value)
    whole = isinstance(value, int) and not isinstance(value, bool)
    if whole and float in accepted and int not in accepted:
        return float(value)
    if isinstance(value, bool) and bool not in accepted:
        fits = False  # True is no number, though Python counts with it
    else:
        fits = (value is None and type(None) in accepted) or isinstance(value, tuple(accepted))
    if not fits:
        wanted = " or ".join(sorted(each.__name__ for each in accepted))
        raise UsageError(f"{name} is {value!r}", hint=f"Give {wanted.replace('NoneType', 'None')}")
    return value


def _types(hint: Any) -> set[type]:
    """The classes that a field's annotation names, of several values the tuple."""
    origin = typing.get_origin(hint)
    if origin in (typing.Union, types.UnionType):
        return set().union(*(_types(part) for part in typing.get_args(hint)))
    if origin is typing.Literal:
        return {type(value) for value in typing.get_args(hint)}
    return {origin or hint}


def _check_range(name: str, value: Any, told: Any) -> None:
    for number in value if isinstance(value, tuple) else (value,):
        if not isinstance(number, (int, float)) or isinstance(number, bool):
            continue
        low = -math.inf if told.least is None else told.least
        high = math.inf if told.most is None else told.most
        if not (math.isfinite(number) and low <= number <= high):
            raise UsageError(
                f"{name} {number} is outside its range", hint=f"Give a number from {low} to {high}"
            )
