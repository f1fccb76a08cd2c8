"""Slowing a decoder down: SAME's idea (Chen et al., ACL 2023) for CALM (arXiv:2207.07061). New.

The gradient goes through the decoder's exits along the model's own greedy output, and ranks changes
of the input; every candidate is then decoded anew by the live exits. An input of one word is
changed letter by letter (at most max(1, floor(0.3 * letters)) of them), a text of several words
word by word under SAME's constraints.

What is to grow is the mean layer of the output's tokens, or with ``score="total-layers"`` the
layers of all of them together, which also counts that the output gets longer.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Protocol

from eexit_cli.attacks.budget import Budget
from eexit_cli.attacks.recipe import AttackSettings, Recipe

if TYPE_CHECKING:
    from collections.abc import Callable

    from eexit_cli.attacks.decoder_search import DecoderAttack, Editor, Goal
    from eexit_cli.attacks.decoder_victim import DecoderVictim
    from eexit_cli.attacks.victim import Loss

SOURCE = "after Chen et al., ACL 2023 (SAME); new here"

DEFAULT_BUDGET = 1000


class DecoderAttackSettings(AttackSettings, Protocol):
    """What decoders' recipes read beyond the others'."""

    @property
    def letter_rate(self) -> float: ...
    @property
    def score(self) -> str: ...


def build_same_token(
    victim: DecoderVictim, budget: Budget, settings: DecoderAttackSettings
) -> DecoderAttack:
    """Changes ranked by gradient."""
    from eexit_cli.attacks.decoder_search import GradientBeam

    loss = token_loss(victim, settings)
    return GradientBeam(
        victim,
        _goal(victim, settings),
        _editors(victim, loss, settings),
        loss,
        rounds=settings.per_size,
        top_n=settings.top_n,
        beam_width=settings.beam_width,
    )


def build_random(
    victim: DecoderVictim, budget: Budget, settings: DecoderAttackSettings
) -> DecoderAttack:
    """As many changes, at random, and as many queries."""
    from eexit_cli.attacks.decoder_search import RandomDraws

    draws = settings.top_n * settings.per_size if budget.limit is None else budget.limit
    editors = _editors(victim, token_loss(victim, settings), settings)
    return RandomDraws(victim, _goal(victim, settings), editors, draws=draws)


def token_loss(victim: DecoderVictim, settings: DecoderAttackSettings) -> Loss:
    """The loss that fits the victim's confidence measure."""
    from eexit_cli.attacks.decoder_loss import exits_loss

    lam = settings.lam if victim.reader.width > 1 else None
    reader = victim.reader
    return partial(exits_loss, asked=reader.layers, num_layers=victim.num_layers, lam=lam)


def _goal(victim: DecoderVictim, settings: DecoderAttackSettings) -> Goal:
    from eexit_cli.attacks.decoder_search import Goal

    return Goal(settings.score, victim.num_layers, int(victim.settings.max_new_tokens))


def _editors(
    victim: DecoderVictim, loss: Loss, settings: DecoderAttackSettings
) -> Callable[[str], Editor]:
    """Letters for one word, words for several."""
    from eexit_cli.attacks.decoder_letters import LetterEditor

    letters = LetterEditor(victim, loss, rate=settings.letter_rate)
    made: list[Editor] = []

    def editor_for(text: str) -> Editor:
        if len(text.split()) < 2:
            return letters
        if not made:  # the vocabulary's words are gathered once, and only for texts
            from eexit_cli.attacks.decoder_words import WordEditor

            made.append(WordEditor(victim, loss, rate=settings.change_rate, top_n=settings.top_n))
        return made[0]

    return editor_for


READS = ("lam", "top_n", "beam_width", "per_size", "change_rate", "letter_rate", "score")

SAME_TOKEN = Recipe(
    name="same-token",
    description="slowdown of a decoder, white-box: letters of one word, words of a text",
    source=SOURCE,
    build=build_same_token,
    family="decoder",
    reads=READS,
    default_budget=DEFAULT_BUDGET,
)
RANDOM = Recipe(
    name="random",
    description="control for a decoder: as many random changes, the best of as many queries",
    source="control",
    build=build_random,
    family="decoder",
    reads=("top_n", "per_size", "change_rate", "letter_rate", "score"),
    default_budget=DEFAULT_BUDGET,
)
