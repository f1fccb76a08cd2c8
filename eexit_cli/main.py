"""The ``eexit`` command: one registration line per command, and what happens when one fails."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from typing import Annotated, ClassVar

import typer

from eexit_cli import __version__
from eexit_cli.core.errors import INTERRUPTED, EexitError
from eexit_cli.ui import errors, streams
from eexit_cli.ui.groups import LazyGroup, group, show_help

ENVIRONMENT = """
Options can also come from a file (--config FILE) or from the environment
(EEXIT_MODEL for --model, EEXIT_TOP_N for --top-n). The command line wins over
the environment, the environment over the file.

Examples:
  eexit attack --model deebert
  eexit evaluate --model deebert --sweep
  eexit predict --model deebert "a gripping, beautifully shot film"
  eexit plot slowdown
"""


class Commands(LazyGroup):
    """Every command of ``eexit``."""

    summaries: ClassVar[Mapping[str, str]] = {
        "train": "Train a model with an exit after every layer.",
        "attack": "Slow a model down: change a few words so that its early exits stay shut.",
        "calibrate": (
            "Choose the exit threshold that saves most, with a guarantee on what it may cost."
        ),
        "evaluate": "Measure quality against speed, at one setting or at all of them.",
        "predict": (
            "Show what each exit thinks of a text, and where the text, or each token, leaves."
        ),
        "plot": "Draw a figure from finished runs, as PNG, SVG or PDF.",
        "report": (
            "Write finished runs as one page: tables, figures and samples, to read, print or send."
        ),
        "tasks": "List the data sets that --task takes by name.",
        "models": "See the models that --model takes by name.",
        "results": "See the runs of the result folder.",
    }


app = group(
    "Train, attack, calibrate, evaluate and plot early-exit transformers.",
    ENVIRONMENT,
    cls=Commands,
    completion=True,
)


def _show_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"eexit {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    context: typer.Context,
    version: Annotated[
        bool, typer.Option("--version", help="Show the version.", callback=_show_version)
    ] = False,
) -> None:
    show_help(context)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line.

    Args:
        arguments: without the program's name; None takes the process's.

    Returns:
        The exit code: 0 done, 1 failed, 2 usage, 3 missing artifact, 4 risk not controlled,
            130 interrupted.
    """
    streams.prepare()
    _quieten_libraries()
    try:
        code = app(args=arguments, prog_name="eexit", standalone_mode=False)
    except errors.Interrupted as error:
        errors.show_interrupted(error)
        return INTERRUPTED
    except (KeyboardInterrupt, typer.Abort):
        errors.show_interrupted(errors.Interrupted("Interrupted"))
        return INTERRUPTED
    except Exception as error:
        known = _as_user_error(error)
        if known is None:
            raise
        if errors.debugging():
            errors.bug(error)
        errors.show(known)
        return known.exit_code
    if code == INTERRUPTED:
        errors.show_interrupted(errors.Interrupted("Interrupted"))
    return code if isinstance(code, int) else 0


def run() -> None:
    """The entry point of the installed command."""
    sys.exit(main())


def _as_user_error(error: Exception) -> EexitError | None:
    if isinstance(error, EexitError):
        return error
    if isinstance(error, errors.CommandLineError):
        return errors.from_command_line(error)
    return errors.from_environment(error)


def _quieten_libraries() -> None:
    """Libraries talk on stderr between our lines; who wants that sets the variables himself."""
    for name, value in (
        ("TRANSFORMERS_VERBOSITY", "error"),
        ("HF_DATASETS_DISABLE_PROGRESS_BARS", "1"),
        ("TOKENIZERS_PARALLELISM", "false"),
    ):
        os.environ.setdefault(name, value)
