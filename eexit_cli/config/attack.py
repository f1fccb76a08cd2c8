"""Settings of ``eexit attack``."""

from __future__ import annotations

from dataclasses import dataclass

from eexit_cli.config.common import (
    CommonConfig,
    DataConfig,
    ExitConfig,
    UnseenDataConfig,
)
from eexit_cli.config.decoder import DecoderExitConfig
from eexit_cli.config.energy import EnergyConfig
from eexit_cli.config.engine import EngineConfig
from eexit_cli.config.field import ATTACK, DECODERS, ENCODER, RUN, like, opt
from eexit_cli.config.runtime import RuntimeConfig


@dataclass(frozen=True, kw_only=True)
class AttackConfig(
    CommonConfig,
    UnseenDataConfig,
    ExitConfig,
    DecoderExitConfig,
    RuntimeConfig,
    EnergyConfig,
    EngineConfig,
):
    """A slowdown attack. ``lam`` to ``per_size`` default to SAME's published settings.

    A query is one text scored by the victim: the input, each candidate, the chosen text alone;
    gradient passes count as well. With several recipes one budget holds for all.
    """

    limit: int | None = like(DataConfig, "limit", default=100)
    recipe: str = opt(
        "same-token",
        "The attack, or several: one table, the same samples; see --list-recipes.",
        ATTACK,
        parse="recipes",
        names="recipe",
        metavar="NAME[,NAME]|all",
    )
    lam: float = opt(
        0.8,
        'Weight of "neighbouring exits disagree" against "every exit is unsure".',
        ATTACK,
        least=0,
        most=1,
    )
    top_n: int = opt(100, "Candidates per text and round.", ATTACK, least=1)
    beam_width: int = opt(5, "Texts kept per round.", ATTACK, least=1)
    per_size: int = opt(10, "Rounds at most.", ATTACK, least=1)
    change_rate: float = opt(
        0.1,
        "Change at most this share of the words (but up to 3 words always).",
        ATTACK,
        least=0,
        most=1,
    )
    query_budget: int | None = opt(
        None,
        "Most queries per sample: one per text that the model scores or takes a gradient of.",
        ATTACK,
        least=1,
    )
    alpha: float = opt(
        0.5,
        "Stop when the exits' mean uncertainty exceeds this (waffle).",
        ATTACK,
        least=0,
        most=1,
        families=(ENCODER,),
    )
    similarity: float = opt(
        0.9,
        "Stay at least this similar to the original, where a recipe bounds it.",
        ATTACK,
        least=0,
        most=1,
        families=(ENCODER,),
    )
    substitutes: str = opt(
        "embeddings",
        "Where waffle takes its words from.",
        ATTACK,
        names="source of substitutes",
        listed=True,
        families=(ENCODER,),
    )
    surrogate: str | None = opt(
        None,
        "A model with the same exits and tokenizer whose gradients are taken, for an exported one "
        "that has none.",
        ATTACK,
        completes="models",
        metavar="NAME|FOLDER",
        families=(ENCODER,),
    )
    prefix_length: int = opt(
        3, "Words of the universal prefix.", ATTACK, least=1, families=(ENCODER,)
    )
    search_samples: int = opt(
        64,
        "Texts, not the reported ones, that the universal prefix is learned on.",
        ATTACK,
        least=1,
        families=(ENCODER,),
    )
    letter_rate: float = opt(
        0.3,
        "Change at most this share of the letters of a decoder's one-word input (1 always).",
        ATTACK,
        least=0,
        most=1,
        families=DECODERS,
    )
    score: str = opt(
        "layers-per-token",
        "What must grow on a decoder: layers per output token, all layers together, or the "
        "output's length; of self-speculation what must fall, the acceptance of its drafts.",
        ATTACK,
        names="decoder score",
        listed=True,
        families=DECODERS,
    )
    compat: str | None = opt(
        None,
        "Attack as the papers' published code does, where that differs.",
        ATTACK,
        names="compatibility",
        listed=True,
    )
    transfer: tuple[str, ...] = opt(
        (),
        "Replay this attack run's inputs on --model NAME[,NAME]; repeat for a matrix.",
        ATTACK,
        completes="runs",
        metavar="RUN",
    )
    defences: bool = opt(
        False,
        "With --transfer: what patience, voting and a recalibrated threshold recover; the last "
        "alone for a decoder.",
        ATTACK,
    )
    resume: str | None = opt(
        None, "Go on with an interrupted run.", RUN, completes="runs", metavar="RUN"
    )
