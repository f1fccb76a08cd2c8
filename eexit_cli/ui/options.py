"""Every option of ``eexit``, written once.

An alias carries an option's name, type, help text and panel; its default is the value of the
field of the same name in ``eexit_cli.config``. ``ui.signature`` puts the two together, so a new
field of a configuration needs one alias and one line in :data:`OPTIONS` here.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from eexit_cli.config.loader import read_config
from eexit_cli.ui import catalogs, completion
from eexit_cli.ui.help import mention

MODEL = "Model"
DATA = "Data"
EXITS = "Exits"
TRAINING = "Training"
ATTACK = "Attack"
EVALUATION = "Evaluation"
CALIBRATION = "Calibration"
LOSSES = "Losses of your own"
UNDER_ATTACK = "Under attack"
FIGURE = "Figure"
RUN = "Run"
OUTPUT = "Output"
PANELS = (
    MODEL,
    DATA,
    EXITS,
    TRAINING,
    ATTACK,
    EVALUATION,
    CALIBRATION,
    LOSSES,
    UNDER_ATTACK,
    FIGURE,
    RUN,
    OUTPUT,
)
"""The order of the help screen's groups."""


def _option(*names: str, panel: str, help: str, **settings: Any) -> Any:
    return typer.Option(*names, rich_help_panel=panel, help=help, show_envvar=False, **settings)


def _choice(
    kind: str, *names: str, panel: str, help: str, show: bool = False, **settings: Any
) -> Any:
    """An option whose values are the names of a catalog: checked, suggested and completed."""
    if show:
        help = f"{help} One of {mention(kind)}."
    return _option(
        *names,
        panel=panel,
        help=help,
        metavar="NAME",
        callback=_checked(kind),
        autocompletion=completion.of_catalog(kind),
        **settings,
    )


def _checked(kind: str) -> Callable[[Any], Any]:
    def check(value: Any) -> Any:
        return None if value is None else catalogs.check(kind, value)

    return check


def _device(value: str) -> str:
    """cuda:1 is a device; the rest must be a known name."""
    catalogs.check("device", "cuda" if re.fullmatch(r"cuda:\d+", value) else value)
    return value


def _threshold(value: Any) -> float | str:
    """A number, at least 0, or the word for the stored one."""
    if value == "calibrated":
        return "calibrated"
    try:
        number = float(value)
    except ValueError:
        raise typer.BadParameter(f"'{value}' is no number and not 'calibrated'") from None
    if number < 0:
        raise typer.BadParameter(f"{value} is not in the range x>=0.")
    return number


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


# Model -----------------------------------------------------------------------------------------

Model = Annotated[
    str,
    _option(
        "--model",
        panel=MODEL,
        metavar="NAME|FOLDER|ID",
        help="A bundled name, a local folder, or a hub id.",
        autocompletion=completion.models,
    ),
]
Family = Annotated[str, _choice("model family", "--model", panel=MODEL, help="The kind of exits.")]
Backbone = Annotated[
    str | None,
    _option(
        "--backbone",
        panel=MODEL,
        metavar="FOLDER|ID",
        help="The pretrained encoder: a folder or a hub id; by default an installed MiniLM.",
    ),
]
Pooling = Annotated[
    str,
    _choice(
        "pooling",
        "--pooling",
        panel=MODEL,
        help="What the exits read: the first token (the papers') or the mean of all tokens.",
        show=True,
    ),
]
Vocabulary = Annotated[
    int | None,
    _option(
        "--vocabulary",
        panel=MODEL,
        metavar="N",
        min=1,
        help="Keep only the N most frequent word pieces of the backbone.",
    ),
]
VocabularyKeep = Annotated[
    str,
    _choice(
        "vocabulary rule",
        "--vocabulary-keep",
        panel=MODEL,
        help="With --vocabulary: those of the training texts first, or the most frequent alone.",
        show=True,
    ),
]
LowerCase = Annotated[
    bool | None,
    _option(
        "--lower-case/--no-lower-case",
        panel=MODEL,
        help="Overrides the tokenizer's own setting, for checkpoints that lack it.",
    ),
]
MaxLength = Annotated[
    int | None,
    _option(
        "--max-length",
        panel=MODEL,
        metavar="N",
        min=1,
        help="Tokens per input, at most what the model takes.",
    ),
]

# Data ------------------------------------------------------------------------------------------

Task = Annotated[
    str | None,
    _choice("task", "--task", panel=DATA, help="Which data; by default the model's own task."),
]
TrainTask = Annotated[
    str | None,
    _choice(
        "task",
        "--task",
        panel=DATA,
        help="Which data; movie-reviews where no file or folder is given.",
    ),
]
DataFile = Annotated[
    Path | None,
    _option(
        "--data-file",
        panel=DATA,
        metavar="FILE",
        help="Your own CSV, TSV, JSONL or Parquet file.",
    ),
]
DataDir = Annotated[
    Path | None,
    _option(
        "--data-dir",
        panel=DATA,
        metavar="DIR",
        help="A folder of GLUE's TSV files in place of the hub's copy.",
    ),
]
TextColumn = Annotated[
    str,
    _option("--text-column", panel=DATA, metavar="NAME", help="Column of the text (--data-file)."),
]
TextPairColumn = Annotated[
    str | None,
    _option(
        "--text-pair-column",
        panel=DATA,
        metavar="NAME",
        help="Column of the second text (--data-file).",
    ),
]
LabelColumn = Annotated[
    str,
    _option(
        "--label-column", panel=DATA, metavar="NAME", help="Column of the label (--data-file)."
    ),
]
Split = Annotated[
    str | None,
    _option(
        "--split",
        panel=DATA,
        metavar="NAME",
        help="train, validation or test; by default the command's own.",
        autocompletion=completion.of_catalog("split"),
    ),
]
Limit = Annotated[
    int | None,
    _option(
        "--limit",
        panel=DATA,
        metavar="N",
        min=0,
        help="Use a seeded sample of N; 0 uses all.",
    ),
]

# Exits -----------------------------------------------------------------------------------------

Confidence = Annotated[
    str | None,
    _choice("confidence measure", "--confidence", panel=EXITS, help="What --threshold is on."),
]
Threshold = Annotated[
    float | None,
    _option(
        "--threshold",
        panel=EXITS,
        metavar="X|calibrated",
        parser=_threshold,
        help="Leave at the first exit whose confidence passes X; 'calibrated' is the one that "
        "eexit calibrate stored.",
    ),
]
Patience = Annotated[
    int | None,
    _option(
        "--patience",
        panel=EXITS,
        metavar="N",
        min=0,
        help="Leave when N layers in a row agree with the one before; 0 is the full model.",
    ),
]
RegressionTolerance = Annotated[
    float | None,
    _option(
        "--regression-tolerance",
        panel=EXITS,
        metavar="X",
        min=0,
        help="With --patience on a regression task: layers agree when they differ by less than X.",
    ),
]
Voting = Annotated[
    float | None,
    _option(
        "--voting",
        panel=EXITS,
        metavar="X",
        min=0,
        help="Leave when the exits' scaled votes reach X.",
    ),
]
StaticLayer = Annotated[
    int | None,
    _option("--static-layer", panel=EXITS, metavar="N", min=1, help="Leave after layer N, always."),
]

# Training --------------------------------------------------------------------------------------

Strategy = Annotated[
    str | None,
    _choice(
        "training strategy",
        "--strategy",
        panel=TRAINING,
        help="How the exits are trained; by default the family's own.",
        show=True,
    ),
]
Epochs = Annotated[
    float,
    _option(
        "--epochs", panel=TRAINING, metavar="N", min=0, help="Passes over the data, per stage."
    ),
]
LearningRate = Annotated[
    float,
    _option("--learning-rate", panel=TRAINING, metavar="X", min=0, help="Peak learning rate."),
]
WeightDecay = Annotated[
    float, _option("--weight-decay", panel=TRAINING, metavar="X", min=0, help="AdamW's decay.")
]
WarmupRatio = Annotated[
    float,
    _option(
        "--warmup-ratio",
        panel=TRAINING,
        metavar="X",
        min=0,
        max=1,
        help="Share of the steps in which the learning rate rises.",
    ),
]
HeadDropout = Annotated[
    float,
    _option(
        "--head-dropout",
        panel=TRAINING,
        metavar="X",
        min=0,
        max=1,
        help="Dropout before each classifier.",
    ),
]
Licence = Annotated[
    str | None,
    _option(
        "--licence", panel=TRAINING, metavar="NAME", help="Of the weights, for the model card."
    ),
]
EvaluationsPerEpoch = Annotated[
    int,
    _option(
        "--evaluations-per-epoch",
        panel=TRAINING,
        metavar="N",
        min=1,
        help="How often every exit is measured, and a checkpoint kept.",
    ),
]
GradientAccumulation = Annotated[
    int,
    _option(
        "--gradient-accumulation",
        panel=TRAINING,
        metavar="N",
        min=1,
        help="Batches per step of the optimizer.",
    ),
]
FreezeEmbeddings = Annotated[
    bool,
    _option("--freeze-embeddings", panel=TRAINING, help="Keep the word embeddings as pretrained."),
]
SaveDtype = Annotated[
    str | None,
    _choice(
        "dtype",
        "--save-dtype",
        panel=TRAINING,
        help="Precision of the stored weights; by default the training's.",
    ),
]
ModelFolder = Annotated[
    Path | None,
    _option("--output", panel=TRAINING, metavar="DIR", help="Where the finished model goes."),
]
ResumeTraining = Annotated[
    bool,
    _option("--resume", panel=TRAINING, help="Go on from the newest checkpoint in --output."),
]

# Attack ----------------------------------------------------------------------------------------

Recipe = Annotated[
    str,
    _choice("recipe", "--recipe", panel=ATTACK, help="The attack; see --list-recipes."),
]
Lam = Annotated[
    float,
    _option(
        "--lam",
        panel=ATTACK,
        metavar="X",
        min=0,
        max=1,
        help='Weight of "neighbouring exits disagree" against "every exit is unsure".',
    ),
]
TopN = Annotated[
    int,
    _option("--top-n", panel=ATTACK, metavar="N", min=1, help="Candidates per text and round."),
]
BeamWidth = Annotated[
    int, _option("--beam-width", panel=ATTACK, metavar="N", min=1, help="Texts kept per round.")
]
PerSize = Annotated[
    int, _option("--per-size", panel=ATTACK, metavar="N", min=1, help="Rounds at most.")
]
ChangeRate = Annotated[
    float,
    _option(
        "--change-rate",
        panel=ATTACK,
        metavar="X",
        min=0,
        max=1,
        help="Change at most this share of the words (but up to 3 words always).",
    ),
]
QueryBudget = Annotated[
    int | None,
    _option(
        "--query-budget",
        panel=ATTACK,
        metavar="N",
        min=1,
        help="Most queries per sample: one per text that the model scores or takes a gradient of.",
    ),
]
ResumeRun = Annotated[
    str | None,
    _option(
        "--resume",
        panel=RUN,
        metavar="RUN",
        help="Go on with an interrupted run.",
        autocompletion=completion.runs,
    ),
]
ListRecipes = Annotated[
    bool, _option("--list-recipes", panel=ATTACK, help="Show the recipes and stop.")
]

# Evaluation ------------------------------------------------------------------------------------

Sweep = Annotated[
    bool,
    _option("--sweep", panel=EVALUATION, help="Every threshold from one pass, not one setting."),
]
LatencySamples = Annotated[
    int,
    _option(
        "--latency-samples",
        panel=EVALUATION,
        metavar="N",
        min=0,
        help="Samples timed one by one against the full model; 0 skips the timing.",
    ),
]

# Prediction ------------------------------------------------------------------------------------

Texts = Annotated[
    list[str], typer.Argument(metavar="TEXT", help="What to classify.", show_envvar=False)
]
TextPair = Annotated[
    str | None,
    _option("--text-pair", panel=DATA, metavar="TEXT", help="The second text of a pair task."),
]

# Figures ---------------------------------------------------------------------------------------

Figure = Annotated[
    str,
    typer.Argument(
        metavar="FIGURE",
        help=f"Which figure: {mention('figure')}.",
        show_envvar=False,
        callback=_checked("figure"),
        autocompletion=completion.of_catalog("figure"),
    ),
]
RunIds = Annotated[
    list[str],
    _option(
        "--run",
        panel=FIGURE,
        metavar="RUN",
        help="A run to draw; may be given again. By default the latest that fits.",
        autocompletion=completion.runs,
    ),
]
FigureFile = Annotated[
    Path | None,
    _option(
        "--output",
        panel=FIGURE,
        metavar="FILE",
        help="A .png, .svg or .pdf file; by default in the run's folder.",
    ),
]

FigureFormat = Annotated[
    str | None,
    _choice(
        "figure format",
        "--format",
        panel=FIGURE,
        help="Where --output does not say it.",
        show=True,
    ),
]
Dpi = Annotated[
    int, _option("--dpi", panel=FIGURE, metavar="N", min=1, help="Dots per inch of a PNG.")
]
Width = Annotated[float, _option("--width", panel=FIGURE, metavar="INCHES", min=0.1, help="Width.")]
Height = Annotated[
    float | None,
    _option(
        "--height",
        panel=FIGURE,
        metavar="INCHES",
        min=0.1,
        help="Height; by default from the number of panels.",
    ),
]
Title = Annotated[
    str | None,
    _option("--title", panel=FIGURE, metavar="TEXT", help="Printed above; papers have captions."),
]

# Stores ----------------------------------------------------------------------------------------

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
        help="An id, the beginning of one, or latest.",
        show_envvar=False,
        autocompletion=completion.runs,
    ),
]
OfCommand = Annotated[
    str | None,
    _choice("recorded command", "--command", panel=RUN, help="Only runs of this command."),
]

# Run -------------------------------------------------------------------------------------------

Seed = Annotated[
    int,
    _option("--seed", panel=RUN, metavar="N", min=0, help="Every random choice derives from it."),
]
Device = Annotated[
    str,
    _option(
        "--device",
        panel=RUN,
        metavar="NAME",
        help="auto, cpu, cuda, cuda:1 or mps.",
        callback=_device,
        autocompletion=completion.of_catalog("device"),
    ),
]
Dtype = Annotated[
    str,
    _choice("dtype", "--dtype", panel=RUN, help="Precision of the computation.", show=True),
]
BatchSize = Annotated[
    int | None,
    _option("--batch-size", panel=RUN, metavar="N", min=1, help="Samples per batch."),
]
ResultsDir = Annotated[
    Path,
    _option("--results-dir", panel=RUN, metavar="DIR", help="Each run makes a folder below it."),
]

ConfigFile = Annotated[
    Path | None,
    _option(
        "--config",
        panel=RUN,
        metavar="FILE",
        help="Defaults from a YAML, TOML or JSON file, or from a run's config.json.",
        is_eager=True,
        expose_value=False,
        callback=_fill_defaults,
    ),
]

# Output ----------------------------------------------------------------------------------------

Json = Annotated[
    bool, _option("--json", panel=OUTPUT, help="Print the result as one JSON document, only.")
]
Quiet = Annotated[
    bool,
    _option("--quiet", panel=OUTPUT, help="No progress and no hints; only ids and paths."),
]
Format = Annotated[
    str | None,
    _choice("table format", "--format", panel=OUTPUT, help="How tables print.", show=True),
]
Debug = Annotated[
    bool,
    _option(
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
    _option(
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
    "backbone": Backbone,
    "pooling": Pooling,
    "vocabulary": Vocabulary,
    "vocabulary_keep": VocabularyKeep,
    "lower_case": LowerCase,
    "max_length": MaxLength,
    "task": Task,
    "data_file": DataFile,
    "data_dir": DataDir,
    "text_column": TextColumn,
    "text_pair_column": TextPairColumn,
    "label_column": LabelColumn,
    "split": Split,
    "limit": Limit,
    "confidence": Confidence,
    "threshold": Threshold,
    "patience": Patience,
    "regression_tolerance": RegressionTolerance,
    "voting": Voting,
    "static_layer": StaticLayer,
    "strategy": Strategy,
    "epochs": Epochs,
    "learning_rate": LearningRate,
    "weight_decay": WeightDecay,
    "warmup_ratio": WarmupRatio,
    "head_dropout": HeadDropout,
    "evaluations_per_epoch": EvaluationsPerEpoch,
    "gradient_accumulation": GradientAccumulation,
    "freeze_embeddings": FreezeEmbeddings,
    "save_dtype": SaveDtype,
    "licence": Licence,
    "recipe": Recipe,
    "lam": Lam,
    "top_n": TopN,
    "beam_width": BeamWidth,
    "per_size": PerSize,
    "change_rate": ChangeRate,
    "query_budget": QueryBudget,
    "sweep": Sweep,
    "latency_samples": LatencySamples,
    "texts": Texts,
    "text_pair": TextPair,
    "figure": Figure,
    "runs": RunIds,
    "output": ModelFolder,
    "dpi": Dpi,
    "width": Width,
    "height": Height,
    "title": Title,
    "seed": Seed,
    "device": Device,
    "dtype": Dtype,
    "batch_size": BatchSize,
    "results_dir": ResultsDir,
}
"""Field of a configuration -> its option. A command may put another alias in its place."""

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
    "exit_layers": "losses",
    "num_layers": "losses",
    "attack_limit": "under_attack",
}
"""Options that say nothing without another one."""
