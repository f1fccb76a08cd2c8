"""How to decode: the exit rule and its settings, checked against the model."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, Protocol

from eexit_cli.core.decoding import DecoderMeasure, LeaveRule
from eexit_cli.core.errors import UsageError
from eexit_cli.models.decoding.scoring import check_top_k

Filling = Literal["lazy", "immediate"]

DRAFT_TOKENS = 4
"""Of a draft, where nobody says."""


class Shape(Protocol):
    """What settings are checked against: L, and how many tokens there are."""

    @property
    def depth(self) -> int: ...
    @property
    def vocab_size(self) -> int: ...


@dataclass(frozen=True, kw_only=True)
class DecodeSettings:
    """Greedy decoding with or without early exit. Nothing set is the full model.

    Attributes:
        max_new_tokens: longest output, the end token included.
        measure: confidence of a token after a layer; goes with ``rule``.
        rule: the threshold that the confidence is compared with.
        min_layer: first layer that a token may leave at, 1..L.
        static_layer: every token leaves at this layer, 1..L.
        top_k: K of top-k propagation, for softmax response.
        shallow_layer: FREE's shallow exit, 1..L-1: tokens leave there or at L, and those that
            left are run through the deep layers together with the next one that goes deep.
        draft_layer: self-speculation (LayerSkip, arXiv:2404.16710): drafts come from this layer,
            1..L-1, and the deeper ones verify them; the outputs are the full model's.
        draft_tokens: of a draft, at most.
        draft_threshold: a draft ends with a token whose probability is below this (Draft & Verify,
            arXiv:2309.08168); 0 ends none.
        collect_pairs: with FREE, (confidence, agreement) of every token of a deep pass, for an
            adaptive threshold; costs the LM head for the stacked tokens.
        filling: ``lazy`` makes skipped layers' keys and values when a later token needs them,
            ``immediate`` as the token leaves; the outputs are the same.
        timings: measure the time of each part.
        packed: use oneDNN's packed products where they pay; False for comparisons.
    """

    max_new_tokens: int = 128
    measure: DecoderMeasure | None = None
    rule: LeaveRule | None = None
    min_layer: int = 1
    static_layer: int | None = None
    top_k: int | None = None
    shallow_layer: int | None = None
    draft_layer: int | None = None
    draft_tokens: int = DRAFT_TOKENS
    draft_threshold: float = 0.0
    collect_pairs: bool = False
    filling: Filling = "lazy"
    timings: bool = False
    packed: bool = True

    def check(self, config: Shape) -> None:
        """Do these settings go together, and with this model?

        Raises:
            UsageError: a setting outside the model's range, or two that exclude each other.
            ValueError: a measure without a rule, or the reverse (a caller's mistake).
        """
        depth = config.depth
        if (self.measure is None) != (self.rule is None):
            raise ValueError("a confidence measure and a leave rule go together")
        if self.max_new_tokens < 1:
            raise UsageError(
                f"{self.max_new_tokens} new tokens are too few", hint="Give at least 1"
            )
        if self.filling not in ("lazy", "immediate"):
            raise ValueError(f"unknown filling '{self.filling}'")
        _within("Minimum exit layer", self.min_layer, depth, "--min-layer")
        if self.static_layer is not None:
            _within("Static layer", self.static_layer, depth, "--static-layer")
            if self.measure is not None or self.shallow_layer is not None:
                raise UsageError(
                    "A static layer leaves no choice to a confidence measure",
                    hint="Give --static-layer, or --confidence with --threshold, not both",
                )
        if self.draft_layer is not None:
            self._check_drafts(depth)
        if self.top_k is not None:
            if self.measure is None or self.measure.needs != "logits":
                named = f"'{self.measure.name}'" if self.measure else "no confidence measure"
                raise UsageError(
                    f"Top-k propagation is for softmax response, not for {named}",
                    hint="Use --confidence softmax, or leave --top-k-propagation out",
                )
            if self.shallow_layer is not None:
                raise UsageError(
                    "FREE scores one early layer, so there is nothing to propagate",
                    hint="Leave --top-k-propagation out",
                )
            check_top_k(self.top_k, int(config.vocab_size))
        if self.collect_pairs and self.shallow_layer is None:
            raise ValueError("pairs are collected on FREE's deep passes")
        if self.shallow_layer is not None:
            _within("Shallow layer", self.shallow_layer, depth - 1, "--shallow-layer")
            if self.min_layer != 1:
                raise UsageError(
                    "FREE has one early exit, so a minimum exit layer says nothing",
                    hint="Leave --min-layer out, or choose --shallow-layer",
                )
            if self.filling != "lazy":
                raise ValueError("FREE runs the deep layers for real and fills nothing")
            if self.measure is None:
                raise UsageError(
                    "FREE needs a confidence measure for its shallow exit",
                    hint="Give --confidence softmax and --threshold",
                )

    @property
    def by_batch(self) -> bool:
        """Each batch is decoded by itself, not as a stream."""
        return self.shallow_layer is not None or self.draft_layer is not None

    def _check_drafts(self, depth: int) -> None:
        assert self.draft_layer is not None
        if depth < 2:
            raise UsageError(
                "A model of one layer has none to verify drafts with",
                hint="Leave --self-speculative out",
            )
        _within("Exit layer", self.draft_layer, depth - 1, "--exit-layer")
        if self.draft_tokens < 1:
            raise UsageError(
                f"{self.draft_tokens} draft tokens are too few",
                hint="Give --draft-tokens 1 or more",
            )
        if not 0 <= self.draft_threshold <= 1:
            raise UsageError(
                f"Draft threshold {self.draft_threshold} is no probability",
                hint="Give --draft-threshold from 0 to 1",
            )
        if self.measure is not None or self.static_layer is not None:
            raise UsageError(
                "Self-speculation writes what the full model writes: no token leaves early",
                hint="Give --self-speculative, or --threshold or --static-layer, not both",
            )


def _within(what: str, layer: int, top: int, option: str) -> None:
    if not 1 <= layer <= top:
        raise UsageError(f"{what} {layer} is outside 1..{top}", hint=f"Give {option} 1..{top}")
