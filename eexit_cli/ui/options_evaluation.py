"""The options that only ``eexit evaluate`` and ``eexit predict`` have."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from eexit_cli.ui import completion, options
from eexit_cli.ui.option_types import (
    DATA,
    DECODER,
    EVALUATION,
    EXITS,
    RUN,
    choice,
    name_of,
    number,
    option,
    several,
    threshold,
    top_k,
    whole,
)

Sweep = Annotated[
    bool,
    option(
        "--sweep",
        panel=EVALUATION,
        help="Every threshold, not one setting; --confidence says of which measures.",
    ),
]
LatencySamples = Annotated[
    int,
    option(
        "--latency-samples",
        panel=RUN,
        metavar="N",
        min=0,
        help="Samples timed one by one against the full model; 0 skips the timing.",
    ),
]
TimingRepeats = Annotated[
    int,
    option(
        "--timing-repeats",
        panel=RUN,
        metavar="N",
        min=5,
        help="How often they are timed: a speed is the median, with an interval over repeats.",
    ),
]
TIMING: dict[str, Any] = {"latency_samples": LatencySamples, "timing_repeats": TimingRepeats}
"""How speed is measured; the options of every command that does."""

Texts = Annotated[
    list[str],
    typer.Argument(metavar="TEXT", help="What to classify or to decode.", show_envvar=False),
]
TextPair = Annotated[
    str | None,
    option("--text-pair", panel=DATA, metavar="TEXT", help="The second text of a pair task."),
]

# Exits: one value, or with evaluate several -----------------------------------------------------

Confidence = Annotated[
    str | None,
    choice(
        "any confidence measure",
        "--confidence",
        panel=EXITS,
        help="What --threshold is on: entropy, max-prob or margin for classifiers; softmax, "
        "saturation or a trained classifier (linear, mlp, transformer_...) for CALM.",
    ),
]
Confidences = Annotated[
    str | None,
    option(
        "--confidence",
        panel=EXITS,
        metavar="NAME[,NAME...]",
        help="What --threshold is on: entropy, max-prob or margin for classifiers; softmax, "
        "saturation or a trained classifier (linear, mlp, transformer_...) for CALM.",
        parser=several(name_of("any confidence measure")),
        autocompletion=completion.of_catalog_list("any confidence measure"),
    ),
]
Thresholds = Annotated[
    float | None,
    option(
        "--threshold",
        panel=EXITS,
        metavar="X|calibrated",
        parser=several(threshold),
        help="Leave at the first exit whose confidence passes X; 'calibrated' is the last that "
        "eexit calibrate certified, 'calibrated:RUN' that of a run."
        " Several (0.9,0.5) give one row each.",
    ),
]
Patiences = Annotated[
    int | None,
    option(
        "--patience",
        panel=EXITS,
        metavar="N[,N...]",
        parser=several(whole(0)),
        help="Leave when N layers in a row agree with the one before; 0 is the full model.",
    ),
]
Votings = Annotated[
    float | None,
    option(
        "--voting",
        panel=EXITS,
        metavar="X[,X...]",
        parser=several(number),
        help="Leave when the exits' scaled votes reach X.",
    ),
]
StaticLayers = Annotated[
    int | None,
    option(
        "--static-layer",
        panel=EXITS,
        metavar="N[,N...]",
        parser=several(whole(1)),
        help="Leave after layer N, always. Several (1,2,3) give one row each.",
    ),
]

# CALM: decoders ---------------------------------------------------------------------------------

_TOP_K = (
    "With softmax: layers after the first score only its K most probable tokens; 'none' is all."
)
TopK = Annotated[
    int | None,
    option("--top-k-propagation", panel=DECODER, metavar="K|none", parser=top_k, help=_TOP_K),
]
TopKs = Annotated[
    int | None,
    option(
        "--top-k-propagation",
        panel=DECODER,
        metavar="K|none[,...]",
        parser=several(top_k),
        help=f"{_TOP_K} Several (none,10,20) give one row each.",
    ),
]
MinLayer = Annotated[
    int | None,
    option(
        "--min-layer",
        panel=DECODER,
        metavar="N",
        min=1,
        help="The first layer that a token may leave at.",
    ),
]
Decay = Annotated[
    str | None,
    choice(
        "threshold decay",
        "--decay",
        panel=DECODER,
        help="The threshold falls with the token's position, as in CALM's paper or in its public "
        "code.",
        show=True,
    ),
]
Temperature = Annotated[
    float | None,
    option(
        "--temperature",
        panel=DECODER,
        metavar="X",
        min=0,
        help="With --decay: how fast the threshold falls; CALM uses 4.",
    ),
]
ShallowLayer = Annotated[
    int | None,
    option(
        "--shallow-layer",
        panel=DECODER,
        metavar="N",
        min=1,
        help="FREE: tokens leave after layer N or after the last; those that left wait to be run "
        "deep together.",
    ),
]
AdaptiveThreshold = Annotated[
    bool | None,
    option(
        "--adaptive-threshold/--no-adaptive-threshold",
        panel=DECODER,
        help="FREE: refit the threshold before each batch, from --threshold on.",
    ),
]
MaxNewTokens = Annotated[
    int | None,
    option(
        "--max-new-tokens",
        panel=DECODER,
        metavar="N",
        min=1,
        help="The longest output; by default the model's own.",
    ),
]
Greedy = Annotated[
    bool | None,
    option(
        "--greedy",
        panel=DECODER,
        help="Decode greedily although the model's generation_config.json asks for beams, "
        "sampling or penalties.",
    ),
]

OF_DECODERS: dict[str, Any] = {
    "top_k_propagation": TopK,
    "min_layer": MinLayer,
    "decay": Decay,
    "temperature": Temperature,
    "shallow_layer": ShallowLayer,
    "adaptive_threshold": AdaptiveThreshold,
    "max_new_tokens": MaxNewTokens,
    "greedy": Greedy,
}
"""CALM's and FREE's options, one value each."""

PREDICTION: dict[str, Any] = {
    **options.OPTIONS,
    "confidence": Confidence,
    **OF_DECODERS,
    "texts": Texts,
    "text_pair": TextPair,
}
"""Field of ``PredictConfig`` -> its option."""

EVALUATION_OPTIONS: dict[str, Any] = {
    **options.OPTIONS,
    "confidence": Confidences,
    "threshold": Thresholds,
    "patience": Patiences,
    "voting": Votings,
    "static_layer": StaticLayers,
    **OF_DECODERS,
    "top_k_propagation": TopKs,
    "sweep": Sweep,
    **TIMING,
}
"""Field of ``EvaluateConfig`` -> its option."""
