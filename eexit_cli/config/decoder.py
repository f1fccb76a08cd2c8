"""Settings of models that write text; each field says what it means in its help."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from eexit_cli.config.exit_options import exit_options
from eexit_cli.config.field import CAUSAL, DECODER, DECODERS, RUN, SEQ2SEQ, like, opt


@dataclass(frozen=True, kw_only=True)
class PromptConfig:
    """What stands around a source that a decoder-only model goes on from."""

    prompt_template: str | None = opt(
        None,
        "What the model goes on from, with {source} for the input (\\n is a new line); by default "
        "the one that it was trained with, or the task's.",
        DECODER,
        metavar="TEXT",
        families=(CAUSAL,),
    )
    chat: bool | None = opt(
        None,
        "Put the prompt into the tokenizer's chat template, as the user's turn.",
        DECODER,
        families=(CAUSAL,),
    )


@dataclass(frozen=True, kw_only=True)
class DecoderConfig(PromptConfig):
    """How a decoder's tokens leave. All None is the model's own default, stored in its folder."""

    min_layer: int | None = opt(
        None, "The first layer that a token may leave at.", DECODER, least=1, families=DECODERS
    )
    decay: str | None = opt(
        None,
        "The threshold falls with the token's position, as in CALM's paper or in its public code.",
        DECODER,
        names="threshold decay",
        listed=True,
        families=DECODERS,
    )
    temperature: float | None = opt(
        None,
        "With --decay: how fast the threshold falls; CALM uses 4.",
        DECODER,
        least=0,
        families=DECODERS,
    )
    shallow_layer: int | None = opt(
        None,
        "FREE: tokens leave after layer N or after the last; those that left wait to be run deep "
        "together.",
        DECODER,
        least=1,
        families=(SEQ2SEQ,),
    )
    adaptive_threshold: bool | None = opt(
        None,
        "FREE: refit the threshold before each batch, from --threshold on.",
        DECODER,
        families=(SEQ2SEQ,),
    )
    self_speculative: bool | None = opt(
        None,
        "LayerSkip: the first layers draft, the others verify; the full model's outputs in fewer "
        "passes.",
        DECODER,
        families=(CAUSAL,),
    )
    draft_threshold: float | None = opt(
        None,
        "With --self-speculative: a draft ends with a token less probable than this; by default 0.",
        DECODER,
        least=0,
        most=1,
        families=(CAUSAL,),
    )
    weights: str = opt(
        "float",
        "What the decoder's products are computed with: float is --dtype's precision, int8 rounds "
        "weights to 8 bits, faster on the CPU from a few hundred dimensions on.",
        RUN,
        names="weights",
        listed=True,
        families=DECODERS,
    )
    max_new_tokens: int | None = opt(
        None,
        "The longest output; by default the model's own.",
        DECODER,
        least=1,
        families=DECODERS,
    )
    greedy: bool | None = opt(
        None,
        "Decode greedily although the model's generation_config.json asks for beams, sampling or "
        "penalties.",
        DECODER,
        families=DECODERS,
    )


@dataclass(frozen=True, kw_only=True)
class DecoderExitConfig(DecoderConfig):
    """One way for a decoder's tokens to leave; of ``top_k_propagation`` 0 is all tokens."""

    exit_layer: int | None = opt(
        None,
        "With --self-speculative: the layer whose answers are the draft; by default a quarter of "
        "the layers.",
        DECODER,
        least=1,
        families=(CAUSAL,),
    )
    draft_tokens: int | None = opt(
        None,
        "With --self-speculative: the longest draft, in tokens; by default 4.",
        DECODER,
        least=1,
        families=(CAUSAL,),
    )

    top_k_propagation: int | None = opt(
        None,
        "With softmax: layers after the first score only its K most probable tokens; 'none' is "
        "all.",
        DECODER,
        parse="top-k",
        metavar="K|none",
        families=DECODERS,
    )


@dataclass(frozen=True, kw_only=True)
@exit_options(several=True)
class ExitGridConfig:
    """:class:`ExitConfig` for ``eexit evaluate``: several values of one option make one row
    each."""

    if TYPE_CHECKING:
        confidence: str | tuple[str, ...] | None = None
        threshold: float | str | tuple[float | str, ...] | None = None
        static_layer: int | tuple[int, ...] | None = None
    top_k_propagation: int | tuple[int, ...] | None = like(
        DecoderExitConfig,
        "top_k_propagation",
        several=True,
        metavar="K|none[,...]",
        help="With softmax: layers after the first score only its K most probable tokens; 'none' "
        "is all. Several (none,10,20) give one row each.",
    )
    exit_layer: int | tuple[int, ...] | None = like(
        DecoderExitConfig,
        "exit_layer",
        several=True,
        help="With --self-speculative: the layer whose answers are the draft; by default a quarter "
        "of the layers. Several give one row each.",
    )
    draft_tokens: int | tuple[int, ...] | None = like(
        DecoderExitConfig,
        "draft_tokens",
        several=True,
        help="With --self-speculative: the longest draft, in tokens; by default 4. Several "
        "give one row each.",
    )
