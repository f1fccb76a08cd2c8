"""From a configuration to a command's options.

``@from_config(AttackConfig)`` gives the decorated function one option per field of the
configuration: the alias from ``ui.options``, the default from the dataclass. The function itself
receives the finished configuration and the output::

    @from_config(AttackConfig)
    def attack(config: AttackConfig, output: Output) -> None:
        ...

A parameter ``explicit`` receives the names of the fields that were given, on the command line or
in the environment. Further parameters, annotated with an alias, stay options of their own.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Mapping
from dataclasses import MISSING, Field, fields
from functools import wraps
from typing import Any, get_args

import typer
from typer.models import ArgumentInfo, OptionInfo

from eexit_cli.core.errors import UsageError
from eexit_cli.ui import option_types, options
from eexit_cli.ui.errors import naming_the_resumption
from eexit_cli.ui.output import Output

ENVIRONMENT_PREFIX = "EEXIT_"
_PRIORITY = ("DEFAULT", "DEFAULT_MAP", "ENVIRONMENT", "COMMANDLINE")
_GIVEN = ("ENVIRONMENT", "COMMANDLINE")
"""A run's own file names every option, so that a file says nothing about what was meant."""


def from_config(
    config_class: type | None = None, **other_aliases: Any
) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Give a command the options of a configuration.

    Args:
        config_class: a dataclass of ``eexit_cli.config``; None for a command without one, which
            then has the output options only.
        other_aliases: field name -> alias, where this command's option differs from the shared one.

    Raises:
        TypeError: a field has no option: it could not be set from the command line.
    """

    def decorate(body: Callable[..., None]) -> Callable[..., None]:
        own = _own_parameters(body)
        tells_explicit = "explicit" in inspect.signature(body).parameters
        of_fields = _of_fields(config_class, other_aliases)
        taken = {parameter.name for parameter in of_fields}
        everywhere = [
            _parameter(name, alias)
            for name, alias in options.EVERYWHERE.items()
            if name not in taken
        ]
        if config_class is not None:
            everywhere.append(_parameter("config", options.ConfigFile))
        order = list({**other_aliases, **options.OPTIONS, **options.EVERYWHERE})
        parameters = sorted([*of_fields, *own, *everywhere], key=lambda p: _place(p, order))

        wanted = [p.name for p in parameters if not get_args(p.annotation)[1].is_eager]

        @wraps(body)
        def command(context: typer.Context, **given: Any) -> None:
            # Eager options (--help, --config, --debug) have done their work by now.
            given = _settle(context, {name: given[name] for name in wanted})
            arguments: dict[str, Any] = {}
            if config_class is not None:
                values = {name: _frozen(given.pop(name)) for name in taken}
                arguments["config"] = config_class(**values)
            if tells_explicit:
                arguments["explicit"] = frozenset(
                    name for name in taken if _source(context, name) in _GIVEN
                )
            # A figure's format is not a table's: it belongs to that command's configuration.
            arguments["output"] = Output(
                as_json=given.pop("json"),
                quiet=given.pop("quiet"),
                format=given.pop("format", None),
            )
            with naming_the_resumption(body.__name__, arguments.get("config")):
                body(**arguments, **given)

        context = inspect.Parameter("context", _KEYWORD, annotation=typer.Context)
        # typer reads both; the wrapped function's own would hide the generated ones.
        command.__signature__ = inspect.Signature([context, *parameters])  # type: ignore[attr-defined]
        command.__annotations__ = {p.name: p.annotation for p in (context, *parameters)}
        del command.__wrapped__  # type: ignore[attr-defined]
        return command

    return decorate


_KEYWORD = inspect.Parameter.KEYWORD_ONLY


def _own_parameters(body: Callable[..., None]) -> list[inspect.Parameter]:
    return [
        _parameter(parameter.name, parameter.annotation, parameter.default)
        for parameter in inspect.signature(body, eval_str=True).parameters.values()
        if parameter.name not in ("config", "output", "explicit")
    ]


def _of_fields(
    config_class: type | None, other_aliases: Mapping[str, Any]
) -> list[inspect.Parameter]:
    if config_class is None:
        return []
    aliases = {**options.OPTIONS, **other_aliases}
    missing = [item.name for item in fields(config_class) if item.name not in aliases]
    if missing:
        raise TypeError(
            f"{config_class.__name__}: no option in ui/options.py for {', '.join(missing)}"
        )
    return [
        _parameter(item.name, aliases[item.name], _default(item)) for item in fields(config_class)
    ]


def _default(item: Field[Any]) -> Any:
    if item.default is MISSING:
        return inspect.Parameter.empty
    return list(item.default) if isinstance(item.default, tuple) else item.default


def _parameter(name: str, alias: Any, default: Any = inspect.Parameter.empty) -> inspect.Parameter:
    """An option with its environment variable; an argument stays required."""
    kind, info = get_args(alias)
    if isinstance(info, ArgumentInfo):
        return inspect.Parameter(name, _KEYWORD, annotation=alias)
    assert isinstance(info, OptionInfo)
    if info.envvar is None and name not in ("help", "debug"):
        info.envvar = ENVIRONMENT_PREFIX + name.upper()
    if default is inspect.Parameter.empty:
        default = False if kind is bool else None
    return inspect.Parameter(name, _KEYWORD, annotation=alias, default=default)


def _place(parameter: inspect.Parameter, order: list[str]) -> tuple[int, int]:
    """Arguments first, then the panels in their order, and the aliases' order within a panel."""
    info = get_args(parameter.annotation)[1]
    if isinstance(info, ArgumentInfo):
        return (-1, 0)
    place = order.index(parameter.name) if parameter.name in order else len(order)
    return (option_types.PANELS.index(str(info.rich_help_panel)), place)


def _frozen(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


def _settle(context: typer.Context, given: dict[str, Any]) -> dict[str, Any]:
    """Resolve options that exclude or need each other; refuse numbers that are none.

    What the command line says overrides its rivals from the environment or a file; rivals from
    the same source are an error.

    Raises:
        UsageError: two options contradict each other, one says nothing without another, or a
            number is not finite.
    """
    rank = {name: _PRIORITY.index(_source(context, name)) for name in given}
    settled = dict(given)
    defaults = {parameter.name: parameter.default for parameter in context.command.params}
    for group in options.EXCLUSIVE:
        asked = [
            name
            for name in group
            if rank.get(name) and settled[name] is not None and settled[name] is not False
        ]
        strongest = max((rank[name] for name in asked), default=0)
        rivals = [name for name in asked if rank[name] == strongest]
        if len(rivals) > 1:
            flags = " and ".join(_flag(name) for name in rivals)
            raise UsageError(f"{flags} exclude each other", hint="Give one of them")
        for name in asked:
            if rank[name] < strongest:
                settled[name] = defaults[name]
    for name, needed in options.NEEDS.items():
        # Another command may have an option of the same name that stands alone.
        if needed not in settled:
            continue
        # A run's file names every option; one that stands at its default says nothing.
        by_default = _source(context, name) == "DEFAULT_MAP" and settled[name] == defaults[name]
        if not rank.get(name) or by_default:
            continue
        if settled[name] is not None and settled[needed] is None:
            raise UsageError(
                f"{_flag(name)} says nothing without {_flag(needed)}",
                hint=f"Add {_flag(needed)}, or drop {_flag(name)}",
            )
    for name, value in settled.items():
        values = value if isinstance(value, tuple) else (value,)
        if any(isinstance(number, float) and not math.isfinite(number) for number in values):
            raise UsageError(f"{_flag(name)} {value} is not a number", hint="Give a finite number")
    return settled


def _source(context: typer.Context, name: str) -> str:
    source = context.get_parameter_source(name)
    return source.name if source is not None and source.name in _PRIORITY else "DEFAULT"


def _flag(name: str) -> str:
    return f"--{name.replace('_', '-')}"
