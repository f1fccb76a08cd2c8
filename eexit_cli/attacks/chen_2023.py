"""SAME, the slowdown attack framework on multi-exit models (Chen et al., ACL 2023).

*Dynamic Transformers Provide a False Sense of Efficiency.*
White-box slowdown by token or character mutation, at the published settings (lam 0.8, top_n 100,
beam width 5, 10 rounds, at most max(3, 10 %) words).

``compat="upstream"`` does what the published code does where that differs:

- it never zeroes the gradient, which adds up over beam members, rounds and examples; here each
  text has a fresh gradient;
- repeated words share one row of the embedding's gradient; here each position has its own;
- it goes on after the last layer is reached and returns the best of the *last* round, which can be
  worse than its input; here it stops, and the best of all rounds counts, or the input itself;
- it has one beam search; here a narrow one comes first, and for token mutation random texts within
  the same limits, before a search of the published width;
- equal exit layers are told apart by alphabetical order; here by how near the executed exits were
  to letting the input through;
- it sorts all positions x vocabulary; here one matrix product and a partial selection;
- it never replaces words of several pieces, nor capitalised ones with an uncased vocabulary, while
  ``[UNK]`` and ``[unusedN]`` pass its filter, and replacements are written as the vocabulary has
  them; here every word may change, to whole words only, and keeps its capitals;
- it divides the uniform term of the loss by the number of classes once more;
- the last exit in its loss is DeeBERT's untrained ramp; here the final classifier;
- for characters it takes the top ten token ids by signed gradient sum, special tokens included;
  here the ten replaceable words with the largest gradient norm;
- stop-words with a capital letter pass its filter;
- its limit on changed words filters candidates, after a gradient pass; here it comes before.

Not taken over, and the same in both modes: the answer at layer L is the final classifier's (the
code lets the untrained ramp answer where its entropy is below the threshold; exit layers are the
same either way); a text is scored once, and queries count distinct texts; look-alike letters are
our table; random draws depend on the sample and the text, not on what was drawn before.

The same idea for decoders with exits (CALM, arXiv:2207.07061) is new. The gradient goes through the
decoder's exits along the model's own greedy output, and ranks changes of the input; every candidate
is then decoded anew by the live exits. An input of one word is changed letter by letter (at most
max(1, floor(0.3 * letters)) of them), a text of several words word by word under SAME's
constraints. What is to grow is the mean layer of the output's tokens, or with
``score="total-layers"`` the layers of all of them together, which also counts that the output gets
longer.

Beside each stands a control, which draws changes at random within the same limits.
"""

from __future__ import annotations

from functools import cache, partial
from typing import TYPE_CHECKING

from eexit_cli.attacks.budget import Budget
from eexit_cli.attacks.recipe import UPSTREAM, AttackSettings, Recipe

if TYPE_CHECKING:
    from collections.abc import Callable

    import textattack
    from textattack.transformations import Transformation

    from eexit_cli.attacks.decoder_search import DecoderAttack, Editor, Goal
    from eexit_cli.attacks.decoder_victim import DecoderVictim
    from eexit_cli.attacks.encoder_victim import EncoderVictim
    from eexit_cli.attacks.published_same import PublishedSwap
    from eexit_cli.attacks.search import RandomTexts
    from eexit_cli.attacks.victim import Loss

SOURCE = "Chen et al., ACL 2023 (SAME)"
DECODER_BUDGET = 1000


def build_same_token(
    victim: EncoderVictim, budget: Budget, settings: AttackSettings
) -> textattack.Attack:
    """SAME with word swaps ranked by gradient."""
    if settings.compat == UPSTREAM:
        from eexit_cli.attacks.published_same import PublishedTokenMutation

        return _assemble_published(victim, settings, PublishedTokenMutation)
    from eexit_cli.attacks.search import RandomTexts
    from eexit_cli.attacks.word_mutation import RandomSubstitution, TokenMutation

    loss = _loss(settings)
    transformation = TokenMutation(victim, loss, top_n=settings.top_n)
    random_words = RandomSubstitution(victim, rate=settings.change_rate, most=settings.per_size)
    random_texts = RandomTexts(random_words.draws, most=2 * settings.top_n)
    return _assemble(victim, settings, loss, transformation, random_texts)


def build_same_char(
    victim: EncoderVictim, budget: Budget, settings: AttackSettings
) -> textattack.Attack:
    """SAME with misspellings of the most critical words."""
    if settings.compat == UPSTREAM:
        from eexit_cli.attacks.published_same import PublishedCharacterMutation

        return _assemble_published(victim, settings, PublishedCharacterMutation)
    from eexit_cli.attacks.letter_mutation import CharacterMutation

    loss = _loss(settings)
    return _assemble(victim, settings, loss, CharacterMutation(victim, loss, top_n=settings.top_n))


def _loss(settings: AttackSettings) -> Loss:
    from eexit_cli.attacks.slowdown_loss import slowdown_loss

    return partial(slowdown_loss, lam=settings.lam)


def _assemble(
    victim: EncoderVictim,
    settings: AttackSettings,
    loss: Loss,
    transformation: Transformation,
    random_texts: RandomTexts | None = None,
) -> textattack.Attack:
    import textattack
    from textattack.constraints.pre_transformation import RepeatModification

    from eexit_cli.attacks.constraints import ChangeLimit, NoStopWords
    from eexit_cli.attacks.goal import Slowdown
    from eexit_cli.attacks.search import BeamSearch, narrow_then_wide

    return textattack.Attack(
        Slowdown(victim),
        [RepeatModification(), NoStopWords(), ChangeLimit(settings.change_rate)],
        transformation,
        BeamSearch(
            victim,
            loss,
            rounds=settings.per_size,
            stages=narrow_then_wide(settings.top_n, settings.beam_width),
            random_texts=random_texts,
        ),
    )


def _assemble_published(
    victim: EncoderVictim, settings: AttackSettings, transformation: type[PublishedSwap]
) -> textattack.Attack:
    import textattack
    from textattack.constraints.pre_transformation import (
        RepeatModification,
        StopwordModification,
    )

    from eexit_cli.attacks.published_same import (
        AccumulatedGradient,
        LastRoundBeam,
        PublishedChangeLimit,
        PublishedSlowdown,
    )

    gradient = AccumulatedGradient(victim, settings.lam)
    return textattack.Attack(
        PublishedSlowdown(victim),
        [RepeatModification(), StopwordModification(), PublishedChangeLimit(settings.change_rate)],
        transformation(gradient, top_n=settings.top_n),
        LastRoundBeam(rounds=settings.per_size, beam_width=settings.beam_width),
    )


def build_random(
    victim: EncoderVictim, budget: Budget, settings: AttackSettings
) -> textattack.Attack:
    """Random words in place of random words, under SAME's constraints."""
    import textattack

    from eexit_cli.attacks.constraints import NoStopWords
    from eexit_cli.attacks.goal import Slowdown
    from eexit_cli.attacks.search import RandomSearch
    from eexit_cli.attacks.word_mutation import RandomSubstitution

    substitution = RandomSubstitution(victim, rate=settings.change_rate)
    draws = settings.top_n * settings.per_size
    search = RandomSearch(victim, substitution, draws=draws)
    return textattack.Attack(Slowdown(victim), [NoStopWords()], substitution, search)


def build_decoder_same_token(
    victim: DecoderVictim, budget: Budget, settings: AttackSettings
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


def build_decoder_random(
    victim: DecoderVictim, budget: Budget, settings: AttackSettings
) -> DecoderAttack:
    """As many changes, at random, and as many queries."""
    from eexit_cli.attacks.decoder_search import RandomDraws

    draws = settings.top_n * settings.per_size if budget.limit is None else budget.limit
    editors = _editors(victim, token_loss(victim, settings), settings)
    return RandomDraws(victim, _goal(victim, settings), editors, draws=draws)


def token_loss(victim: DecoderVictim, settings: AttackSettings) -> Loss:
    """The loss that fits what is wanted and, of early exits, the victim's measure."""
    from eexit_cli.attacks.decoder_search import ACCEPTANCE, OUTPUT_LENGTH
    from eexit_cli.attacks.slowdown_loss import drafts_loss, end_loss, exits_loss

    if settings.score == ACCEPTANCE:
        return drafts_loss
    if settings.score == OUTPUT_LENGTH:
        return partial(end_loss, ends=sorted(victim.model.config.end_tokens))
    lam = settings.lam if victim.reader.width > 1 else None
    reader = victim.reader
    return partial(exits_loss, asked=reader.layers, num_layers=victim.num_layers, lam=lam)


def _goal(victim: DecoderVictim, settings: AttackSettings) -> Goal:
    from eexit_cli.attacks.decoder_search import Goal

    return Goal(settings.score, victim.num_layers, int(victim.settings.max_new_tokens))


def _editors(
    victim: DecoderVictim, loss: Loss, settings: AttackSettings
) -> Callable[[str], Editor]:
    """Letters for one word, words for several."""
    from eexit_cli.attacks.letter_mutation import LetterEditor
    from eexit_cli.attacks.word_mutation import WordEditor

    letters = LetterEditor(victim, loss, rate=settings.letter_rate)

    @cache  # the vocabulary's words are gathered once, and only for texts
    def words() -> Editor:
        return WordEditor(victim, loss, rate=settings.change_rate, top_n=settings.top_n)

    return lambda text: letters if len(text.split()) < 2 else words()


def _adds_up(settings: AttackSettings) -> bool:
    """The published code's gradient remembers every example before."""
    return settings.compat == UPSTREAM


READS = ("lam", "top_n", "beam_width", "per_size", "change_rate", "compat")

SAME_TOKEN = Recipe(
    name="same-token",
    description="slowdown by word swaps, white-box, at the published settings",
    source=SOURCE,
    build=build_same_token,
    reads=READS,
    compat=(UPSTREAM,),
    ordered=_adds_up,
    gradients=True,
)
SAME_CHAR = Recipe(
    name="same-char",
    description="slowdown by misspellings of critical words, white-box",
    source=SOURCE,
    build=build_same_char,
    reads=READS,
    compat=(UPSTREAM,),
    ordered=_adds_up,
    gradients=True,
)
RANDOM = Recipe(
    name="random",
    description="the control: random words in place of random words, the best of many draws",
    source="no attack; what any search gains",
    build=build_random,
    reads=("top_n", "per_size", "change_rate"),
)
DECODER_SAME_TOKEN = Recipe(
    name="same-token",
    description="slowdown of a decoder, white-box: letters of one word, words of a text",
    source="after Chen et al., ACL 2023 (SAME); new here",
    build=build_decoder_same_token,
    family="decoder",
    reads=("lam", "top_n", "beam_width", "per_size", "change_rate", "letter_rate", "score"),
    default_budget=DECODER_BUDGET,
    gradients=True,
)
DECODER_RANDOM = Recipe(
    name="random",
    description="control for a decoder: as many random changes, the best of as many queries",
    source="control",
    build=build_decoder_random,
    family="decoder",
    reads=("top_n", "per_size", "change_rate", "letter_rate", "score"),
    default_budget=DECODER_BUDGET,
)
