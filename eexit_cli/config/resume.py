"""Going on with what was broken off, in one meaning for every command that can.

The stored options hold. An option that is given beside ``--resume`` must agree with the stored one,
also where it says what is the default; a few may differ, and then the given one holds.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import fields, replace
from pathlib import Path
from typing import Any, TypeVar

from eexit_cli.config.common import CommonConfig
from eexit_cli.core.errors import UsageError
from eexit_cli.core.option import flag

Config = TypeVar("Config", bound=CommonConfig)


def config_from(kind: type[Config], stored: Mapping[str, Any]) -> Config:
    """A configuration from its JSON form; what a pipeline noted beside it is left.

    Args:
        kind: the dataclass. What ``stored`` lacks is at its default.
    """
    values: dict[str, Any] = {}
    for item in fields(kind):
        if item.name not in stored:
            continue
        value = stored[item.name]
        if value is not None and "Path" in str(item.type):
            value = Path(value)
        values[item.name] = tuple(value) if isinstance(value, list) else value
    return kind(**values)


def resumed(
    config: Config,
    stored: Mapping[str, Any],
    *,
    what: str,
    repair: str,
    explicit: Collection[str] = (),
    free: Collection[str] = (),
) -> Config:
    """The configuration to go on with.

    Args:
        config: what was given beside ``resume``.
        stored: what was begun, in its JSON form.
        what: it, for the error: "run", "unfinished training".
        repair: how to go on or start anew, for the error's hint; follows "Leave it out to".
        explicit: options that were given, even where they say what is the default.
        free: options on which nothing depends that is stored: the given one holds.

    Raises:
        UsageError: a given option contradicts the stored one; names both values.
    """
    original, defaults = config_from(type(config), stored), type(config)()
    changes: dict[str, Any] = {}
    for item in fields(config):
        name = item.name
        given, before = getattr(config, name), getattr(original, name)
        said = name in explicit or given != getattr(defaults, name)
        if not said or _same(given, before):
            continue
        if name not in free:
            raise UsageError(
                f"{flag(name)} {_shown(given)} differs from the {what}'s {_shown(before)}",
                hint=f"Leave it out to {repair}",
            )
        changes[name] = given
    return replace(original, **changes)


def _same(one: Any, other: Any) -> bool:
    """Equal, or one file by two paths."""
    if isinstance(one, Path) and isinstance(other, Path):
        return one.expanduser().absolute() == other.expanduser().absolute()
    return bool(one == other)


def _shown(value: Any) -> str:
    """As it would be typed."""
    return ",".join(map(str, value)) if isinstance(value, tuple) else str(value)
