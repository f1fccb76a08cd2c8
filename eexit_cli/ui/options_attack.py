"""The options that only ``eexit attack`` has."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

from eexit_cli.core.errors import UsageError
from eexit_cli.ui import catalogs, completion
from eexit_cli.ui.option_types import ATTACK, OUTPUT, RUN, choice, option
from eexit_cli.ui.options_evaluation import OF_DECODERS, TIMING, Confidence

ALL = "all"


def recipes(value: str | None) -> str | None:
    """Names with commas between them, each the registered one; ``all`` stands alone."""
    if value is None:
        return None
    names = [name.strip() for name in value.split(",") if name.strip()]
    if names == [ALL]:
        return ALL
    if ALL in names:
        raise UsageError("--recipe all stands alone", hint="Give all, or the names of some")
    return ",".join(dict.fromkeys(catalogs.check("recipe", name) for name in names or [value]))


Recipe = Annotated[
    str,
    option(
        "--recipe",
        panel=ATTACK,
        metavar="NAME[,NAME]|all",
        help="The attack, or several: one table, the same samples; see --list-recipes.",
        callback=recipes,
        autocompletion=completion.of_catalog("recipe"),
    ),
]
Lam = Annotated[
    float,
    option(
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
    option("--top-n", panel=ATTACK, metavar="N", min=1, help="Candidates per text and round."),
]
BeamWidth = Annotated[
    int, option("--beam-width", panel=ATTACK, metavar="N", min=1, help="Texts kept per round.")
]
PerSize = Annotated[
    int, option("--per-size", panel=ATTACK, metavar="N", min=1, help="Rounds at most.")
]
ChangeRate = Annotated[
    float,
    option(
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
    option(
        "--query-budget",
        panel=ATTACK,
        metavar="N",
        min=1,
        help="Most queries per sample: one per text that the model scores or takes a gradient of.",
    ),
]
Alpha = Annotated[
    float,
    option(
        "--alpha",
        panel=ATTACK,
        metavar="X",
        min=0,
        max=1,
        help="Stop when the exits' mean uncertainty exceeds this (waffle).",
    ),
]
Similarity = Annotated[
    float,
    option(
        "--similarity",
        panel=ATTACK,
        metavar="X",
        min=0,
        max=1,
        help="Stay at least this similar to the original, where a recipe bounds it.",
    ),
]
Substitutes = Annotated[
    str,
    choice(
        "source of substitutes",
        "--substitutes",
        panel=ATTACK,
        help="Where waffle takes its words from.",
        show=True,
    ),
]
PrefixLength = Annotated[
    int,
    option(
        "--prefix-length", panel=ATTACK, metavar="N", min=1, help="Words of the universal prefix."
    ),
]
SearchSamples = Annotated[
    int,
    option(
        "--search-samples",
        panel=ATTACK,
        metavar="N",
        min=1,
        help="Texts, not the reported ones, that the universal prefix is learned on.",
    ),
]
LetterRate = Annotated[
    float,
    option(
        "--letter-rate",
        panel=ATTACK,
        metavar="X",
        min=0,
        max=1,
        help="Change at most this share of the letters of a decoder's one-word input (1 always).",
    ),
]
Score = Annotated[
    str,
    choice(
        "decoder score",
        "--score",
        panel=ATTACK,
        help="What must grow on a decoder: layers per output token, or all layers together.",
        show=True,
    ),
]
Compat = Annotated[
    str | None,
    choice(
        "compatibility",
        "--compat",
        panel=ATTACK,
        help="Attack as the papers' published code does, where that differs.",
        show=True,
    ),
]
Transfer = Annotated[
    list[str],
    option(
        "--transfer",
        panel=ATTACK,
        metavar="RUN",
        help="Replay this attack run's inputs on --model NAME[,NAME]; repeat for a matrix.",
        autocompletion=completion.runs,
    ),
]
Defences = Annotated[
    bool,
    option(
        "--defences",
        panel=ATTACK,
        help="With --transfer: what patience, voting and a recalibrated threshold recover; "
        "the last alone for a decoder.",
    ),
]
Workers = Annotated[
    int | None,
    option(
        "--workers",
        panel=RUN,
        metavar="N",
        min=1,
        help="Processes that attack side by side, one thread each.",
    ),
]
ResumeRun = Annotated[
    str | None,
    option(
        "--resume",
        panel=RUN,
        metavar="RUN",
        help="Go on with an interrupted run.",
        autocompletion=completion.runs,
    ),
]
ExportFolder = Annotated[
    Path,
    option("--output", panel=OUTPUT, metavar="FOLDER", help="Made; it must not be in use."),
]
OnlySlower = Annotated[
    bool,
    option(
        "--only-slower",
        panel=OUTPUT,
        help="Leave out inputs that leave no later than before: attacks that failed.",
    ),
]
WithOriginals = Annotated[
    bool,
    option(
        "--with-originals",
        panel=OUTPUT,
        help="Also the inputs as they were, to train on both.",
    ),
]
ListRecipes = Annotated[
    bool, option("--list-recipes", panel=ATTACK, help="Show the recipes and stop.")
]

OPTIONS: dict[str, Any] = {
    "confidence": Confidence,
    **OF_DECODERS,
    **TIMING,
    "recipe": Recipe,
    "lam": Lam,
    "top_n": TopN,
    "beam_width": BeamWidth,
    "per_size": PerSize,
    "change_rate": ChangeRate,
    "query_budget": QueryBudget,
    "alpha": Alpha,
    "similarity": Similarity,
    "substitutes": Substitutes,
    "prefix_length": PrefixLength,
    "search_samples": SearchSamples,
    "letter_rate": LetterRate,
    "score": Score,
    "compat": Compat,
    "transfer": Transfer,
    "defences": Defences,
    "workers": Workers,
    "resume": ResumeRun,
}
"""Field of the configuration -> its option, where it is not one that other commands share."""
