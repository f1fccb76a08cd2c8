"""From a configuration to a command.

``@from_config(AttackConfig)`` gives the decorated function the options of the configuration's
fields, those of ``config.results.OutputConfig``, and ``--config``, ``--debug`` and ``--help``. The
function itself receives the finished configuration and the output::

    @from_config(AttackConfig)
    def attack(config: AttackConfig, output: Output) -> None:
        ...

A parameter ``explicit`` receives the names of the fields that were given, on the command line or
in the environment. Further parameters, annotated for typer, stay options of their own.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import fields
from functools import wraps
from typing import Any, get_args

import typer
from typer.models import ArgumentInfo, OptionInfo

from eexit_cli.config.field import PANELS, Option, flag, option_of
from eexit_cli.config.results import OutputConfig
from eexit_cli.core.errors import UsageError
from eexit_cli.ui import catalogs, options
from eexit_cli.ui.errors import naming_the_resumption
from eexit_cli.ui.output import Output

_PRIORITY = ("DEFAULT", "DEFAULT_MAP", "ENVIRONMENT", "COMMANDLINE")
_GIVEN = ("ENVIRONMENT", "COMMANDLINE")
"""A run's own file names every option, so that a file says nothing about what was meant."""


def from_config(
    config_class: type | None = None,
) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Give a command the options of a configuration.

    Args:
        config_class: a dataclass of ``eexit_cli.config``; None for a command without one, which
            then has the output options only.

    Raises:
        TypeError: a field has no option: it could not be set from the command line.
    """

    def decorate(body: Callable[..., None]) -> Callable[..., None]:
        own = _own_parameters(body)
        tells_explicit = "explicit" in inspect.signature(body).parameters
        of_fields = [] if config_class is None else options.of_fields(config_class)
        taken = {parameter.name for parameter in of_fields}
        # A figure's format is not a table's: it belongs to that command's configuration.
        of_output = [p for p in options.of_fields(OutputConfig) if p.name not in taken]
        eager = [options.DEBUG, options.HELP]
        if any(isinstance(get_args(p.annotation)[1], OptionInfo) for p in of_fields):
            eager.insert(0, options.CONFIG)
        parameters = sorted([*of_fields, *own, *of_output, *eager], key=_place)
        wanted = [p.name for p in parameters if not get_args(p.annotation)[1].is_eager]
        rules = {
            item.name: option_of(item)
            for source in (OutputConfig, config_class)
            if source is not None
            for item in fields(source)
        }

        @wraps(body)
        def command(context: typer.Context, **given: Any) -> None:
            # Eager options (--help, --config, --debug) have done their work by now.
            given = _settle(context, {name: given[name] for name in wanted}, rules)
            arguments: dict[str, Any] = {}
            if config_class is not None:
                values = {name: _frozen(given.pop(name)) for name in taken}
                arguments["config"] = config_class(**values)
            if tells_explicit:
                arguments["explicit"] = frozenset(
                    name for name in taken if _source(context, name) in _GIVEN
                )
            arguments["output"] = Output(
                as_json=given.pop("json"),
                quiet=given.pop("quiet"),
                format=given.pop("format", None),
            )
            with (
                _telling_problems(arguments["output"]),
                naming_the_resumption(body.__name__, arguments.get("config")),
            ):
                body(**arguments, **given)

        context = inspect.Parameter("context", _KEYWORD, annotation=typer.Context)
        # typer reads both; the wrapped function's own would hide the generated ones.
        command.__signature__ = inspect.Signature([context, *parameters])  # type: ignore[attr-defined]
        command.__annotations__ = {p.name: p.annotation for p in (context, *parameters)}
        del command.__wrapped__  # type: ignore[attr-defined]
        return command

    return decorate


_KEYWORD = inspect.Parameter.KEYWORD_ONLY


@contextmanager
def _telling_problems(output: Output) -> Iterator[None]:
    """Say which entries of other packages cannot be used: at once, and what shows on the way."""
    said = catalogs.every_problem()
    for problem in said:
        output.hint(problem)
    for name, close in options.unknown_variables().items():
        meant = f"; did you mean {' or '.join(close)}?" if close else ""
        output.hint(f"The environment's {name} is no option of eexit and is not read{meant}")
    yield
    for problem in catalogs.every_problem():
        if problem not in said:
            output.hint(problem)


def _own_parameters(body: Callable[..., None]) -> list[inspect.Parameter]:
    return [
        parameter.replace(kind=_KEYWORD)
        for parameter in inspect.signature(body, eval_str=True).parameters.values()
        if parameter.name not in ("config", "output", "explicit")
    ]


def _place(parameter: inspect.Parameter) -> int:
    """Arguments first, then the panels in their order, and the fields' order within a panel."""
    info = get_args(parameter.annotation)[1]
    if isinstance(info, ArgumentInfo):
        return -1
    return PANELS.index(str(info.rich_help_panel))


def _frozen(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


def _settle(
    context: typer.Context, given: dict[str, Any], rules: Mapping[str, Option]
) -> dict[str, Any]:
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
    rivals = [(name, other) for name, told in rules.items() for other in told.excludes]
    for pair in sorted(rivals, key=lambda pair: -max(rank.get(name, 0) for name in pair)):
        if not all(_says_something(name, rank, settled) for name in pair):
            continue
        weaker, stronger = sorted(pair, key=lambda name: rank[name])
        if rank[weaker] == rank[stronger]:
            raise UsageError(
                f"{flag(pair[0])} and {flag(pair[1])} exclude each other", hint="Give one of them"
            )
        settled[weaker], rank[weaker] = defaults[weaker], 0
    for name, told in rules.items():
        # Another command may have an option of the same name that stands alone.
        if told.needs is None or told.needs not in settled:
            continue
        # A run's file names every option; one that stands at its default says nothing.
        by_default = _source(context, name) == "DEFAULT_MAP" and settled[name] == defaults[name]
        if not rank.get(name) or by_default:
            continue
        if settled[name] is not None and settled[told.needs] is None:
            raise UsageError(
                f"{flag(name)} says nothing without {flag(told.needs)}",
                hint=f"Add {flag(told.needs)}, or drop {flag(name)}",
            )
    for name, value in settled.items():
        values = value if isinstance(value, tuple) else (value,)
        if any(isinstance(number, float) and not math.isfinite(number) for number in values):
            raise UsageError(f"{flag(name)} {value} is not a number", hint="Give a finite number")
    return settled


def _says_something(name: str, rank: Mapping[str, int], settled: Mapping[str, Any]) -> bool:
    return bool(rank.get(name)) and settled[name] is not None and settled[name] is not False


def _source(context: typer.Context, name: str) -> str:
    source = context.get_parameter_source(name)
    return source.name if source is not None and source.name in _PRIORITY else "DEFAULT"
