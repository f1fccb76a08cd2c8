"""The command line's options, made from the fields of ``eexit_cli.config``.

A field says its help, panel, bounds and names itself (``config.field``); its type and its default
say the rest. Three options are no field of any configuration, as they have done their work before
a command runs: ``--config``, ``--debug`` and ``--help``.
"""

from __future__ import annotations

import dataclasses
import inspect
import os
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Annotated, Any, Union, get_args, get_origin, get_type_hints

import typer

from eexit_cli.config.field import OUTPUT, RUN, Option, flag, option_of
from eexit_cli.config.loader import read_config
from eexit_cli.core.catalog import nearest
from eexit_cli.ui import completion
from eexit_cli.ui.help import mention
from eexit_cli.ui.option_types import CHECKS, PARSERS, checked, name_of, number, several, whole

ENVIRONMENT_PREFIX = "EEXIT_"

_CONFIGURATIONS = ("attack", "calibrate", "evaluate", "plot", "report", "results", "train")

_OTHER_VARIABLES = {
    f"{ENVIRONMENT_PREFIX}{name}"
    for name in ("CONFIG", "DEBUG", "HOME", "LIST_RECIPES", "MODELS_DIR")
}
"""Read from the environment although they are no field of a configuration."""


def of_fields(config_class: type) -> list[inspect.Parameter]:
    """A parameter for each field, annotated as typer reads it.

    Raises:
        TypeError: a field that says nothing about its option.
    """
    hints = get_type_hints(config_class)
    return [_parameter(item, hints[item.name]) for item in dataclasses.fields(config_class)]


def unknown_variables() -> dict[str, list[str]]:
    """Environment variables that look like options and are none, with the nearest that are."""
    asked = {name for name in os.environ if name.startswith(ENVIRONMENT_PREFIX)} - _OTHER_VARIABLES
    if not asked:
        return {}
    known = {ENVIRONMENT_PREFIX + name.upper() for name in _every_option()} | _OTHER_VARIABLES
    return {name: nearest(name, sorted(known)) for name in sorted(asked - known)}


def _every_option() -> set[str]:
    """The fields of every command's configuration that the environment can set."""
    modules = [import_module(f"eexit_cli.config.{name}") for name in _CONFIGURATIONS]
    classes = [kind for module in modules for kind in vars(module).values()]
    return {
        item.name
        for kind in classes
        if isinstance(kind, type) and dataclasses.is_dataclass(kind)
        for item in dataclasses.fields(kind)
        if "option" in item.metadata and not option_of(item).argument
    }


def _parameter(item: dataclasses.Field[Any], hint: Any) -> inspect.Parameter:
    told = option_of(item)
    kind = _plain_type(hint)
    settings = _settings(told, kind)
    if told.argument:
        info = typer.Argument(show_envvar=False, **settings)
        # Several may be none, one may be left out: the rest is the command's business.
        optional = None if type(None) in get_args(hint) else inspect.Parameter.empty
        default: Any = [] if item.default == () else optional
    else:
        if (
            told.parse not in PARSERS
            and not told.several
            and (told.least, told.most) != (None,) * 2
        ):
            settings |= {"min": told.least, "max": told.most}
        info = typer.Option(
            _flags(item, hint, told),
            rich_help_panel=told.panel,
            show_envvar=False,
            envvar=ENVIRONMENT_PREFIX + item.name.upper(),
            show_default=told.show_default,
            **settings,
        )
        default = list(item.default) if isinstance(item.default, tuple) else item.default
    return inspect.Parameter(
        item.name,
        inspect.Parameter.KEYWORD_ONLY,
        annotation=Annotated[kind, info],  # type: ignore[valid-type]
        default=default,
    )


def _settings(told: Option, kind: Any) -> dict[str, Any]:
    """What an option and an argument have in common."""
    settings: dict[str, Any] = {"help": told.help, "metavar": told.metavar}
    if told.listed:
        settings["help"] += f" One of {mention(told.names or '')}."
    if told.metavar is None:
        settings["metavar"] = _metavar(told, kind)
    if told.several or told.parse in PARSERS:
        parse = _parser(told, kind)
        settings["parser"] = several(parse) if told.several else parse
    elif told.names is not None:
        settings["callback"] = CHECKS[told.parse] if told.parse else checked(told.names)
    suggested = told.names or told.suggests
    if told.completes is not None:
        settings["autocompletion"] = getattr(completion, told.completes)
    elif suggested is not None:
        complete = completion.of_catalog_list if told.several else completion.of_catalog
        settings["autocompletion"] = complete(suggested)
    return settings


def _metavar(told: Option, kind: Any) -> str | None:
    base = _base(kind)
    name = "NAME" if told.names else {int: "N", float: "X"}.get(base)
    return f"{name}[,{name}...]" if told.several else name


def _parser(told: Option, kind: Any) -> Callable[[Any], Any]:
    if told.parse is not None:
        return PARSERS[told.parse]
    if told.names is not None:
        return name_of(told.names)
    return whole(int(told.least or 0)) if _base(kind) is int else number


def _flags(item: dataclasses.Field[Any], hint: Any, told: Option) -> str:
    """``--x``, or ``--x/--no-x`` for what may also be switched off."""
    name = told.flag or flag(item.name)
    switch = _base(hint) is bool and item.default is not False
    return f"{name}/--no-{name.removeprefix('--')}" if switch else name


def _plain_type(hint: Any) -> Any:
    """The type that typer reads: one value's, where a field holds one or several."""
    if get_origin(hint) is tuple:
        return list[str] if get_args(hint)[0] is str else str
    single = [member for member in get_args(hint) if get_origin(member) is not tuple]
    if not single:
        return hint
    # What is read by a parser may be annotated as anything that is one value.
    kind = next((member for member in single if member is not type(None)), str)
    return Union[kind, None] if type(None) in single else kind  # noqa: UP007


def _base(hint: Any) -> Any:
    """A type without None and without several of it."""
    members = get_args(hint) if get_origin(hint) is not tuple else ()
    return members[0] if members else hint


def _fill_defaults(context: typer.Context, path: Path | None) -> None:
    """``--config``: the file's values become the options' defaults."""
    if path is not None:
        known = [p.name for p in context.command.params if p.name and not p.is_eager]
        settings = read_config(path, known, command=context.info_name or "")
        context.default_map = {**(context.default_map or {}), **settings}


def _show_help(context: typer.Context, wanted: bool) -> None:
    if wanted and not context.resilient_parsing:
        typer.echo(context.get_help())
        raise typer.Exit


def _debug(wanted: bool) -> None:
    if wanted:
        os.environ["EEXIT_DEBUG"] = "1"


def _eager(
    name: str, kind: Any, default: Any, *flags: str, panel: str, **settings: Any
) -> inspect.Parameter:
    info = typer.Option(
        *flags,
        rich_help_panel=panel,
        show_envvar=False,
        is_eager=True,
        expose_value=False,
        **settings,
    )
    annotation = Annotated[kind, info]  # type: ignore[valid-type]
    return inspect.Parameter(
        name, inspect.Parameter.KEYWORD_ONLY, annotation=annotation, default=default
    )


CONFIG = _eager(
    "config",
    Path | None,
    None,
    "--config",
    panel=RUN,
    metavar="FILE",
    envvar=f"{ENVIRONMENT_PREFIX}CONFIG",
    help="Defaults from a YAML, TOML or JSON file, or from a run's config.json.",
    callback=_fill_defaults,
)
DEBUG = _eager(
    "debug",
    bool,
    False,
    "--debug",
    panel=OUTPUT,
    help="Show the traceback of an error.",
    callback=_debug,
)
HELP = _eager(
    "help",
    bool,
    False,
    "--help",
    "-h",
    panel=OUTPUT,
    help="Show this message and exit.",
    callback=_show_help,
)
