"""Help screens: plain text in groups, in the manner of uv and ruff.

Drawn without rich, whose import would take longer than everything else that ``eexit --help``
does.
"""

from __future__ import annotations

import os
import re
from collections import defaultdict
from typing import Any

import typer
from typer.core import TyperCommand, TyperGroup

from eexit_cli.ui import catalogs

_MARK = re.compile(r"\{\{(.+?)\}\}")
_OBVIOUS_RANGE = re.compile(r"(; | {2}\[)x>=[01](\])")


def mention(kind: str) -> str:
    """Stands for a catalog's names in a help text until the text is drawn."""
    return "{{" + kind + "}}"


def _expand(text: str) -> str:
    """Fill in catalogs' names; drop ranges that go without saying."""
    text = _OBVIOUS_RANGE.sub(lambda match: "]" if match[1] == "; " else "", text)
    return _MARK.sub(lambda match: ", ".join(catalogs.names(match[1])), text)


def _heading(text: str) -> str:
    return text if "NO_COLOR" in os.environ else typer.style(text, fg="green", bold=True)


def _name(text: str) -> str:
    return text if "NO_COLOR" in os.environ else typer.style(text, fg="cyan", bold=True)


def _write_usage(command: Any, ctx: Any, formatter: Any) -> None:
    arguments = [_argument(parameter) for parameter in _arguments(command, ctx)]
    pieces = " ".join(["[OPTIONS]", *arguments])
    if isinstance(command, TyperGroup):
        pieces += " COMMAND [ARGS]..."
    formatter.write(f"{_heading('Usage:')} {_name(ctx.command_path)} {pieces}\n")


def _arguments(command: Any, ctx: Any) -> list[Any]:
    return [p for p in command.get_params(ctx) if p.param_type_name == "argument"]


def _argument(parameter: Any) -> str:
    return f"{parameter.metavar}..." if parameter.nargs == -1 else str(parameter.metavar)


def _write_text(text: str | None, formatter: Any) -> None:
    if text:
        formatter.write_paragraph()
        formatter.write_text(text)


def _write_parameters(command: Any, ctx: Any, formatter: Any) -> None:
    """Every group of options under its panel's name, in the order of the signature."""
    groups: dict[str, list[tuple[str, str]]] = defaultdict(list)
    for parameter in _arguments(command, ctx):
        groups["Arguments"].append((_name(_argument(parameter)), _expand(parameter.help or "")))
    for parameter in command.get_params(ctx):
        record = parameter.get_help_record(ctx)
        if record is not None and parameter.param_type_name != "argument":
            panel = getattr(parameter, "rich_help_panel", None) or "Options"
            groups[panel].append((_name(record[0]), _expand(record[1])))
    for panel, rows in groups.items():
        with formatter.section(_heading(panel)):
            formatter.write_dl(rows, col_max=34)


def _write_epilog(command: Any, formatter: Any) -> None:
    if not command.epilog:
        return
    formatter.write_paragraph()
    for line in command.epilog.strip("\n").splitlines():
        is_heading = line.endswith(":") and not line.startswith(" ")
        formatter.write(f"{_heading(line) if is_heading else line}\n")


class HelpCommand(TyperCommand):
    """A command whose help screen is this module's."""

    def format_help(self, ctx: Any, formatter: Any) -> None:
        _write_text(self.help, formatter)
        formatter.write_paragraph()
        _write_usage(self, ctx, formatter)
        _write_parameters(self, ctx, formatter)
        _write_epilog(self, formatter)


class HelpGroup(TyperGroup):
    """A group whose help screen is this module's; commands stand before options."""

    def format_help(self, ctx: Any, formatter: Any) -> None:
        _write_text(self.help, formatter)
        formatter.write_paragraph()
        _write_usage(self, ctx, formatter)
        rows = []
        for name in self.list_commands(ctx):
            said = self.summary(ctx, name)
            if said is not None:
                rows.append((_name(name), said))
        with formatter.section(_heading("Commands")):
            formatter.write_dl(rows)
        _write_parameters(self, ctx, formatter)
        _write_epilog(self, formatter)

    def summary(self, ctx: Any, name: str) -> str | None:
        """What a command does, in a line; None where it is hidden."""
        command = self.get_command(ctx, name)
        return None if command is None or command.hidden else command.get_short_help_str(limit=100)
