"""Help screens: complete, grouped, readable at 80 columns."""

from __future__ import annotations

import re
import subprocess
import sys
from typing import Any

import pytest
import typer
from typer.main import get_command

from eexit_cli import __version__
from eexit_cli.config.field import PANELS
from eexit_cli.main import Commands, app

COMMANDS = [
    "train",
    "attack",
    "calibrate",
    "evaluate",
    "predict",
    "plot",
    "report",
    "tasks",
    "models list",
    "models show",
    "results list",
    "results show",
    "results export",
]


def test_no_arguments_show_help(eexit) -> None:
    done = eexit()
    assert (done.code, done.err) == (0, "")
    assert done.out == eexit("--help").out
    words = "Train, attack, calibrate, evaluate and plot early-exit transformers."
    assert done.out.split("\n")[0].strip() == words
    for command in COMMANDS:
        assert f"  {command.split()[0]} " in done.out


@pytest.mark.parametrize("group", ["models", "results"])
def test_groups_show_their_commands(eexit, group) -> None:
    done = eexit(group)
    assert (done.code, done.err) == (0, "")
    assert "list" in done.out
    assert "show" in done.out


def test_version(eexit) -> None:
    assert eexit("--version").out == f"eexit {__version__}\n"


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("flag", ["--help", "-h"])
def test_help_of_every_command(eexit, command, flag) -> None:
    done = eexit(*command.split(), flag)
    assert (done.code, done.err) == (0, "")
    first, _, rest = done.out.partition("\n")
    assert first.endswith(".")
    assert f"Usage: eexit {command} [OPTIONS]" in rest
    assert "Examples:\n  eexit " in rest
    for option in ("--json", "--quiet", "--help"):
        assert option in rest


@pytest.mark.parametrize("command", COMMANDS)
def test_panels_come_in_their_order(eexit, command) -> None:
    out = eexit(*command.split(), "--help").out
    headings = re.findall(r"^(\w+):$", out, flags=re.MULTILINE)
    panels = [heading for heading in headings if heading in PANELS]
    assert panels == sorted(panels, key=PANELS.index)
    assert "Options" not in headings


@pytest.mark.parametrize("command", COMMANDS)
def test_help_fits_80_columns(eexit, command, monkeypatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    body = eexit(*command.split(), "--help").out.partition("Examples:")[0]
    assert max(map(len, body.splitlines())) <= 80


@pytest.mark.parametrize("command", COMMANDS)
def test_examples_are_real_command_lines(eexit, command) -> None:
    """Every option in an example is one that the command has."""
    out = eexit(*command.split(), "--help").out
    body, _, examples = out.partition("Examples:")
    for line in examples.splitlines():
        if line.startswith(f"  eexit {command}"):
            for option in re.findall(r"--[a-z-]+", line):
                assert option in body, line


def test_no_colors_when_not_wanted(eexit, monkeypatch) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
    assert "\x1b" not in eexit("attack", "--help").out


def test_same_option_has_the_same_words_everywhere(eexit) -> None:
    """One alias per option: its help does not drift apart between commands."""
    seen: dict[str, str] = {}
    everywhere = ["--device", "--dtype", "--seed", "--results-dir"]
    for command in ("attack", "evaluate", "predict"):
        out = eexit(command, "--help").out
        # Those of evaluate take several values, and say so.
        names = everywhere if command == "evaluate" else [*everywhere, "--threshold"]
        for name in names:
            match = re.search(rf"^  {name} .*$", out, flags=re.MULTILINE)
            assert match is not None
            words = " ".join(match.group().split())
            # Where a line ends depends on the longest name beside it.
            before = seen.setdefault(name, words)
            assert words.startswith(before) or before.startswith(words)


def test_list_recipes(eexit) -> None:
    from eexit_cli.attacks import ATTACKS

    done = eexit("attack", "--list-recipes", "--format", "csv")
    assert done.code == 0
    assert [line.split(",")[0] for line in done.out.splitlines()] == ["recipe", *ATTACKS]
    assert eexit("attack", "--list-recipes", "--quiet").out.split() == list(ATTACKS)


def test_the_first_screen_says_of_a_command_what_it_says_itself() -> None:
    """The summaries stand apart so that no command is imported to list them."""
    group: Any = get_command(app)
    context = typer.Context(group)
    assert list(Commands.summaries) == group.list_commands(context)
    for name, summary in Commands.summaries.items():
        command = group.get_command(context, name)
        assert command.name == name
        assert command.get_short_help_str(limit=1000) == summary
    assert group.get_command(context, "nothing") is None


def test_the_first_screen_imports_no_command() -> None:
    said = subprocess.run(
        [sys.executable, "-X", "importtime", "-m", "eexit_cli", "--help"],
        check=True,
        capture_output=True,
        text=True,
    ).stderr
    assert "eexit_cli.ui.groups" in said
    assert "eexit_cli.commands" not in said
    assert "eexit_cli.config" not in said
