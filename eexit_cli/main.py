"""The ``eexit`` command: one registration line per command, and what happens when one fails."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from typing import Annotated

import typer

from eexit_cli import __version__
from eexit_cli.commands import attack, calibrate, evaluate, models, plot, predict, results, train
from eexit_cli.core.errors import INTERRUPTED, EexitError
from eexit_cli.ui import errors, streams
from eexit_cli.ui.help import HelpCommand, HelpGroup

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

SETTINGS = {"help_option_names": ["-h", "--help"], "max_content_width": 110}


def _group(help: str, epilog: str, *, completion: bool = False) -> typer.Typer:
    return typer.Typer(
        cls=HelpGroup,
        help=help,
        epilog=epilog,
        context_settings=SETTINGS,
        no_args_is_help=False,
        invoke_without_command=True,
        add_completion=completion,
        pretty_exceptions_enable=False,
        rich_markup_mode=None,
    )


app = _group(
    "Train, attack, calibrate, evaluate and plot early-exit transformers.",
    ENVIRONMENT,
    completion=True,
)
model_app = _group("See the models that --model takes by name.", models.EXAMPLES)
result_app = _group("See the runs of the result folder.", results.EXAMPLES)

_COMMANDS = (
    (app, "train", train.train, train.EXAMPLES),
    (app, "attack", attack.attack, attack.EXAMPLES),
    (app, "calibrate", calibrate.calibrate, calibrate.EXAMPLES),
    (app, "evaluate", evaluate.evaluate, evaluate.EXAMPLES),
    (app, "predict", predict.predict, predict.EXAMPLES),
    (app, "plot", plot.plot, plot.EXAMPLES),
    (model_app, "list", models.list_models, models.EXAMPLES),
    (model_app, "show", models.show_model, models.EXAMPLES),
    (result_app, "list", results.list_runs, results.EXAMPLES),
    (result_app, "show", results.show_run, results.EXAMPLES),
    (result_app, "export", results.export_run, results.EXAMPLES),
)
for _app, _name, _body, _examples in _COMMANDS:
    _app.command(
        _name, cls=HelpCommand, epilog=_examples, add_help_option=False, context_settings=SETTINGS
    )(_body)
app.add_typer(model_app, name="models")
app.add_typer(result_app, name="results")


@model_app.callback()
@result_app.callback()
def _listing(context: typer.Context) -> None:
    if context.invoked_subcommand is None:
        typer.echo(context.get_help())


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
    if context.invoked_subcommand is None:
        typer.echo(context.get_help())


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
