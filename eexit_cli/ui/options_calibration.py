"""The options that only ``eexit calibrate`` has."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from eexit_cli.ui import completion
from eexit_cli.ui.option_types import (
    CALIBRATION,
    DATA,
    DECODER,
    LOSSES,
    RUN,
    UNDER_ATTACK,
    choice,
    name_of,
    option,
    several,
)
from eexit_cli.ui.options_evaluation import OF_DECODERS, TIMING


def _numbers(text: Any) -> tuple[float, ...]:
    """``1,0.95,0.9`` as numbers; a configuration file may hold a list."""
    parts = text.replace(",", " ").split() if isinstance(text, str) else text
    try:
        return tuple(float(part) for part in parts)
    except ValueError:
        raise typer.BadParameter(f"'{text}' is no list of numbers such as 1,0.95,0.9") from None


Delta = Annotated[
    float,
    option("--delta", panel=CALIBRATION, metavar="X", help="The tolerated risk, between 0 and 1."),
]
Epsilon = Annotated[
    float,
    option(
        "--epsilon",
        panel=CALIBRATION,
        metavar="X",
        help="The tolerated probability that the risk is above delta all the same.",
    ),
]
Consistency = Annotated[
    str,
    choice(
        "consistency",
        "--consistency",
        panel=CALIBRATION,
        help="textual: answers as the full model; risk: no worse than the full model.",
    ),
]
Metric = Annotated[
    str | None,
    choice(
        "text metric",
        "--metric",
        panel=CALIBRATION,
        help="What makes a generated text good; by default rouge-l, for phonemes rouge-l-tokens.",
        show=True,
    ),
]
PValue = Annotated[
    str,
    choice(
        "p-value", "--p-value", panel=CALIBRATION, help="How one threshold is tested.", show=True
    ),
]
Procedure = Annotated[
    str,
    choice(
        "testing procedure",
        "--procedure",
        panel=CALIBRATION,
        help="How many thresholds are tested together.",
        show=True,
    ),
]
Starts = Annotated[
    int | None,
    option(
        "--starts",
        panel=CALIBRATION,
        metavar="N",
        min=1,
        help="Starting points of fixed-sequence-starts.",
    ),
]
Criterion = Annotated[
    str | None,
    choice(
        "calibrated criterion",
        "--criterion",
        panel=CALIBRATION,
        help="What is calibrated; by default the model's own criterion.",
        show=True,
    ),
]
Confidences = Annotated[
    str | None,
    option(
        "--confidence",
        panel=CALIBRATION,
        metavar="NAME[,NAME...]",
        help="Calibrate a threshold on this measure, or on each of several; by default the "
        "model's own.",
        parser=several(name_of("any confidence measure")),
        autocompletion=completion.of_catalog_list("any confidence measure"),
    ),
]
AdaptiveThreshold = Annotated[
    bool | None,
    option(
        "--adaptive-threshold/--no-adaptive-threshold",
        panel=DECODER,
        help="FREE's threshold that moves with the data cannot be calibrated: only --no-... can "
        "be given.",
        show_default=False,
    ),
]
Thresholds = Annotated[
    str,
    option(
        "--thresholds",
        panel=CALIBRATION,
        metavar="X,X,...",
        help="From cautious to eager, the full model first.",
        parser=_numbers,
    ),
]
Curves = Annotated[
    bool,
    option(
        "--curves",
        panel=CALIBRATION,
        help="Run every threshold, also past the first failure, and repeated random splits.",
    ),
]
Deltas = Annotated[
    str,
    option(
        "--deltas",
        panel=CALIBRATION,
        metavar="X,X,...",
        help="The deltas of the curves.",
        parser=_numbers,
        show_default=False,
    ),
]
Repeats = Annotated[
    int,
    option(
        "--repeats",
        panel=CALIBRATION,
        metavar="N",
        min=0,
        help="Repeated splits behind the curves' bands.",
    ),
]
CompareNaive = Annotated[
    bool,
    option(
        "--compare-naive",
        panel=CALIBRATION,
        help="Compare with thresholds that merely keep 90 or 95 % of the quality.",
    ),
]
Strict = Annotated[
    bool,
    option("--strict", panel=CALIBRATION, help="End with exit code 4 if nothing can be certified."),
]
Store = Annotated[
    bool,
    option(
        "--store/--no-store",
        panel=CALIBRATION,
        help="Keep the threshold with the model, for --threshold calibrated.",
    ),
]
Limit = Annotated[
    int | None,
    option(
        "--limit",
        panel=DATA,
        metavar="N",
        min=0,
        help="Calibration samples, drawn by the seed. By default, and with 0: all of a calibration "
        "split; one half of a split or file that must be divided, the other half tests; all of "
        "--losses.",
    ),
]
TestLimit = Annotated[
    int | None,
    option(
        "--test-limit",
        panel=DATA,
        metavar="N",
        min=0,
        help="Test samples, disjoint from the calibration's; 0 goes without a test.",
    ),
]
TestShare = Annotated[
    float | None,
    option(
        "--test-share",
        panel=DATA,
        metavar="X",
        help="In place of --test-limit: the share of a file, split or --losses that tests.",
    ),
]
Losses = Annotated[
    Path | None,
    option(
        "--losses",
        panel=LOSSES,
        metavar="FILE",
        help="CSV, Parquet or NumPy in place of a model: a column per threshold, cautious to "
        "eager, losses in [0, 1].",
    ),
]
ExitLayers = Annotated[
    Path | None,
    option(
        "--exit-layers",
        panel=LOSSES,
        metavar="FILE",
        help="The layers that go with the losses, in the same shape.",
    ),
]
FullModel = Annotated[
    str | None,
    option(
        "--full-model",
        panel=LOSSES,
        metavar="COLUMN",
        help="The column that is the full model, or 'first': its losses are 0, and it is the "
        "answer where nothing else is certified.",
    ),
]
NumLayers = Annotated[
    float | None,
    option(
        "--num-layers",
        panel=LOSSES,
        metavar="X",
        min=1,
        help="Layers of the full model; by default the full model's, or the largest exit layer.",
    ),
]
VerifyOn = Annotated[
    str | None,
    option(
        "--verify-on",
        panel=UNDER_ATTACK,
        metavar="RUN",
        help="An attack run: does the promise survive its inputs?",
        autocompletion=completion.runs,
    ),
]
UnderAttack = Annotated[
    str | None,
    choice(
        "recipe",
        "--under-attack",
        panel=UNDER_ATTACK,
        help="Attack the calibrated threshold itself with this recipe.",
    ),
]
AttackLimit = Annotated[
    int | None,
    option(
        "--attack-limit", panel=UNDER_ATTACK, metavar="N", min=0, help="Samples that are attacked."
    ),
]
CleanShare = Annotated[
    float,
    option(
        "--clean-share",
        panel=UNDER_ATTACK,
        metavar="X",
        min=0,
        max=1,
        help="Clean samples in the mixture that is calibrated on beside it.",
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

OPTIONS: dict[str, Any] = {
    "delta": Delta,
    "epsilon": Epsilon,
    "consistency": Consistency,
    "metric": Metric,
    "p_value": PValue,
    "procedure": Procedure,
    "starts": Starts,
    "criterion": Criterion,
    "confidence": Confidences,
    **OF_DECODERS,
    "adaptive_threshold": AdaptiveThreshold,
    "thresholds": Thresholds,
    "curves": Curves,
    "deltas": Deltas,
    "repeats": Repeats,
    "compare_naive": CompareNaive,
    "strict": Strict,
    "store": Store,
    "limit": Limit,
    "test_limit": TestLimit,
    "test_share": TestShare,
    "losses": Losses,
    "exit_layers": ExitLayers,
    "full_model": FullModel,
    "num_layers": NumLayers,
    "verify_on": VerifyOn,
    "under_attack": UnderAttack,
    "attack_limit": AttackLimit,
    "clean_share": CleanShare,
    **TIMING,
    "resume": ResumeRun,
}
"""Field of :class:`eexit_cli.config.calibrate.CalibrateConfig` -> its option, where it is not one
that other commands share."""
