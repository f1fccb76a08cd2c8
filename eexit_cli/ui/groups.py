"""Groups of commands, whose modules are imported when one of them is asked for."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Any, ClassVar

import typer
from typer.main import get_command

from eexit_cli.ui.help import HelpCommand, HelpGroup

SETTINGS = {"help_option_names": ["-h", "--help"], "max_content_width": 110}


class LazyGroup(HelpGroup):
    """A group that knows its commands by name and summary.

    Attributes:
        summaries: what the help screen says of each command. Command ``x`` is the function ``x`` of
            ``eexit_cli.commands.x``, shown with that module's ``EXAMPLES``, or that module's
            ``app`` if it is a group itself.
    """

    summaries: ClassVar[Mapping[str, str]] = {}

    def list_commands(self, ctx: Any) -> list[str]:
        return list(self.summaries)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        if cmd_name not in self.summaries:
            return None
        if cmd_name not in self.commands:
            module = import_module(f"eexit_cli.commands.{cmd_name}")
            app = getattr(module, "app", None)
            if app is None:
                app = typer.Typer(add_completion=False, rich_markup_mode=None)
                add(app, cmd_name, getattr(module, cmd_name), module.EXAMPLES)
            self.commands[cmd_name] = get_command(app)
            self.commands[cmd_name].name = cmd_name
        return self.commands[cmd_name]

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        if args and args[0] not in self.summaries:
            for name in self.summaries:  # the nearest name is looked for among what was loaded
                self.get_command(ctx, name)
        return super().resolve_command(ctx, args)

    def summary(self, ctx: Any, name: str) -> str | None:
        return self.summaries.get(name)


def group(
    help: str, epilog: str, *, cls: type[HelpGroup] = HelpGroup, completion: bool = False
) -> typer.Typer:
    """A group that shows its help where no command is given."""
    return typer.Typer(
        cls=cls,
        help=help,
        epilog=epilog,
        context_settings=SETTINGS,
        no_args_is_help=False,
        invoke_without_command=True,
        add_completion=completion,
        pretty_exceptions_enable=False,
        rich_markup_mode=None,
        callback=None if completion else show_help,
    )


def add(app: typer.Typer, name: str, body: Callable[..., None], examples: str) -> None:
    """Register a command made by ``ui.signature.from_config``, which brings its own ``--help``."""
    app.command(
        name, cls=HelpCommand, epilog=examples, add_help_option=False, context_settings=SETTINGS
    )(body)


def show_help(context: typer.Context) -> None:
    """What a group does where no command is given."""
    if context.invoked_subcommand is None:
        typer.echo(context.get_help())
