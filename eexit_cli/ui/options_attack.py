"""The options that only ``eexit attack`` has."""

from __future__ import annotations

from typing import Annotated, Any

from eexit_cli.ui import completion
from eexit_cli.ui.option_types import ATTACK, RUN, choice, option

Recipe = Annotated[
    str,
    choice("recipe", "--recipe", panel=ATTACK, help="The attack; see --list-recipes."),
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
ListRecipes = Annotated[
    bool, option("--list-recipes", panel=ATTACK, help="Show the recipes and stop.")
]

OPTIONS: dict[str, Any] = {
    "recipe": Recipe,
    "lam": Lam,
    "top_n": TopN,
    "beam_width": BeamWidth,
    "per_size": PerSize,
    "change_rate": ChangeRate,
    "query_budget": QueryBudget,
    "resume": ResumeRun,
}
"""Field of the configuration -> its option, where it is not one that other commands share."""
