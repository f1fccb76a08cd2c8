"""The options that several commands share, each written once.

An alias carries an option's name, type, help text and panel; its default is the value of the
field of the same name in ``eexit_cli.config``. ``ui.signature`` puts the two together, so a new
field of a configuration needs one alias and one line in :data:`OPTIONS`, here or in the
``options_<command>.py`` of the one command that has it.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Any

import typer

from eexit_cli.config.loader import read_config
from eexit_cli.ui import completion
from eexit_cli.ui.option_types import (
    DATA,
    EXITS,
    MODEL,
    OUTPUT,
    RUN,
    choice,
    device,
    names,
    option,
    threshold,
)


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


# Model -------------------------------------------------------------------------------------------

Model = Annotated[
    str,
    option(
        "--model",
        panel=MODEL,
        metavar="NAME|FOLDER|ID",
        help="A bundled name, a local folder, or a hub id.",
        autocompletion=completion.models,
    ),
]
LowerCase = Annotated[
    bool | None,
    option(
        "--lower-case/--no-lower-case",
        panel=MODEL,
        help="Overrides the tokenizer's own setting, for checkpoints that lack it.",
    ),
]
MaxLength = Annotated[
    int | None,
    option(
        "--max-length",
        panel=MODEL,
        metavar="N",
        min=1,
        help="Tokens per input, at most what the model takes.",
    ),
]
LabelNames = Annotated[
    str | None,
    option(
        "--label-names",
        panel=MODEL,
        metavar="A,B[,C...]",
        parser=names,
        help="What a classifier's outputs are called, in their order, where its checkpoint does "
        "not say or is wrong; when training, the classes in the order wanted.",
    ),
]

# Data --------------------------------------------------------------------------------------------

Task = Annotated[
    str | None,
    choice("task", "--task", panel=DATA, help="Which data; by default the model's own task."),
]
DataFile = Annotated[
    Path | None,
    option(
        "--data-file",
        panel=DATA,
        metavar="FILE",
        help="Your own CSV, TSV, JSONL or Parquet file, or a folder of eexit results export.",
    ),
]
DataDir = Annotated[
    Path | None,
    option(
        "--data-dir",
        panel=DATA,
        metavar="DIR",
        help="A folder of GLUE's TSV files in place of the hub's copy.",
    ),
]
TextColumn = Annotated[
    str | None,
    option(
        "--text-column",
        panel=DATA,
        metavar="NAME",
        help="Column of the text (--data-file); by default as in training, or text.",
    ),
]
TextPairColumn = Annotated[
    str | None,
    option(
        "--text-pair-column",
        panel=DATA,
        metavar="NAME",
        help="Column of the second text (--data-file).",
    ),
]
LabelColumn = Annotated[
    str | None,
    option(
        "--label-column",
        panel=DATA,
        metavar="NAME",
        help="Column of the label (--data-file); by default as in training, or label.",
    ),
]
SourceColumn = Annotated[
    str | None,
    option(
        "--source-column",
        panel=DATA,
        metavar="NAME",
        help="Column of the source text (--data-file, text generation); by default as in "
        "training, or source.",
    ),
]
TargetColumn = Annotated[
    str | None,
    option(
        "--target-column",
        panel=DATA,
        metavar="NAME",
        help="Column of the wanted text (--data-file, text generation); by default as in "
        "training, or target.",
    ),
]
IncludeTrainingRows = Annotated[
    bool,
    option(
        "--include-training-rows",
        panel=DATA,
        help="Keep samples that the model was trained on; nothing is then promised.",
    ),
]
SourcePrefix = Annotated[
    str | None,
    option(
        "--source-prefix",
        panel=DATA,
        metavar="TEXT",
        help="Put before every source text; by default the task's own.",
    ),
]
Split = Annotated[
    str | None,
    option(
        "--split",
        panel=DATA,
        metavar="NAME",
        help="train, validation or test; by default the command's own.",
        autocompletion=completion.of_catalog("split"),
    ),
]
Limit = Annotated[
    int | None,
    option(
        "--limit",
        panel=DATA,
        metavar="N",
        min=0,
        help="Use a seeded sample of N; 0 uses all.",
    ),
]

# Exits -------------------------------------------------------------------------------------------

Confidence = Annotated[
    str | None,
    choice("confidence measure", "--confidence", panel=EXITS, help="What --threshold is on."),
]
Threshold = Annotated[
    float | None,
    option(
        "--threshold",
        panel=EXITS,
        metavar="X|calibrated",
        parser=threshold,
        help="Leave at the first exit whose confidence passes X; 'calibrated' is the last that "
        "eexit calibrate certified, 'calibrated:RUN' that of a run.",
    ),
]
Patience = Annotated[
    int | None,
    option(
        "--patience",
        panel=EXITS,
        metavar="N",
        min=0,
        help="Leave when N layers in a row agree with the one before; 0 is the full model.",
    ),
]
RegressionTolerance = Annotated[
    float | None,
    option(
        "--regression-tolerance",
        panel=EXITS,
        metavar="X",
        min=0,
        help="With --patience on a regression task: layers agree when they differ by less than X.",
    ),
]
Voting = Annotated[
    float | None,
    option(
        "--voting",
        panel=EXITS,
        metavar="X",
        min=0,
        help="Leave when the exits' scaled votes reach X.",
    ),
]
StaticLayer = Annotated[
    int | None,
    option("--static-layer", panel=EXITS, metavar="N", min=1, help="Leave after layer N, always."),
]

# Stores ------------------------------------------------------------------------------------------

ModelName = Annotated[
    str,
    typer.Argument(
        metavar="MODEL",
        help="A bundled name, a local folder, or a cached hub id.",
        show_envvar=False,
        autocompletion=completion.models,
    ),
]
RunId = Annotated[
    str,
    typer.Argument(
        metavar="RUN",
        help="An id, the beginning of one, START...END of one, or latest.",
        show_envvar=False,
        autocompletion=completion.runs,
    ),
]
OfCommand = Annotated[
    str | None,
    choice("recorded command", "--command", panel=RUN, help="Only runs of this command."),
]

# Run ---------------------------------------------------------------------------------------------

Seed = Annotated[
    int,
    option("--seed", panel=RUN, metavar="N", min=0, help="Every random choice derives from it."),
]
Device = Annotated[
    str,
    option(
        "--device",
        panel=RUN,
        metavar="NAME",
        help="auto, cpu, cuda, cuda:1 or mps.",
        callback=device,
        autocompletion=completion.of_catalog("device"),
    ),
]
Dtype = Annotated[
    str,
    choice("dtype", "--dtype", panel=RUN, help="Precision of the computation.", show=True),
]
BatchSize = Annotated[
    int | None,
    option("--batch-size", panel=RUN, metavar="N", min=1, help="Samples per batch."),
]
ResultsDir = Annotated[
    Path,
    option("--results-dir", panel=RUN, metavar="DIR", help="Each run makes a folder below it."),
]

ConfigFile = Annotated[
    Path | None,
    option(
        "--config",
        panel=RUN,
        metavar="FILE",
        help="Defaults from a YAML, TOML or JSON file, or from a run's config.json.",
        is_eager=True,
        expose_value=False,
        callback=_fill_defaults,
    ),
]

# Output ------------------------------------------------------------------------------------------

Json = Annotated[
    bool, option("--json", panel=OUTPUT, help="Print the result as one JSON document, only.")
]
Quiet = Annotated[
    bool,
    option("--quiet", panel=OUTPUT, help="No progress and no hints; only ids and paths."),
]
Format = Annotated[
    str | None,
    choice("table format", "--format", panel=OUTPUT, help="How tables print.", show=True),
]
Debug = Annotated[
    bool,
    option(
        "--debug",
        panel=OUTPUT,
        help="Show the traceback of an error.",
        is_eager=True,
        expose_value=False,
        callback=_debug,
    ),
]
Help = Annotated[
    bool,
    option(
        "--help",
        "-h",
        panel=OUTPUT,
        help="Show this message and exit.",
        is_eager=True,
        expose_value=False,
        callback=_show_help,
    ),
]

EVERYWHERE: dict[str, Any] = {
    "json": Json,
    "quiet": Quiet,
    "format": Format,
    "debug": Debug,
    "help": Help,
}
"""The options of every command."""

OPTIONS: dict[str, Any] = {
    "model": Model,
    "lower_case": LowerCase,
    "label_names": LabelNames,
    "max_length": MaxLength,
    "task": Task,
    "data_file": DataFile,
    "data_dir": DataDir,
    "text_column": TextColumn,
    "text_pair_column": TextPairColumn,
    "label_column": LabelColumn,
    "source_column": SourceColumn,
    "target_column": TargetColumn,
    "source_prefix": SourcePrefix,
    "split": Split,
    "limit": Limit,
    "include_training_rows": IncludeTrainingRows,
    "confidence": Confidence,
    "threshold": Threshold,
    "patience": Patience,
    "regression_tolerance": RegressionTolerance,
    "voting": Voting,
    "static_layer": StaticLayer,
    "seed": Seed,
    "device": Device,
    "dtype": Dtype,
    "batch_size": BatchSize,
    "results_dir": ResultsDir,
}
"""Field of a configuration -> its option. A command adds its own, or puts another in
its place."""

EXCLUSIVE: tuple[tuple[str, ...], ...] = (
    ("threshold", "patience", "voting", "static_layer"),
    ("confidence", "patience"),
    ("confidence", "voting"),
    ("confidence", "static_layer"),
    ("regression_tolerance", "threshold"),
    ("regression_tolerance", "voting"),
    ("regression_tolerance", "static_layer"),
    ("data_file", "data_dir"),
    ("losses", "data_file"),
    ("losses", "data_dir"),
    ("verify_on", "under_attack"),
    ("json", "quiet"),
    ("json", "format"),
)
"""Options that contradict each other."""

NEEDS: dict[str, str] = {
    "vocabulary_keep": "vocabulary",
    "text_column": "data_file",
    "text_pair_column": "data_file",
    "label_column": "data_file",
    "source_column": "data_file",
    "target_column": "data_file",
    "exit_layers": "losses",
    "full_model": "losses",
    "num_layers": "losses",
    "attack_limit": "under_attack",
}
"""Options that say nothing without another one."""
