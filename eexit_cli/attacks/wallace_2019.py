"""A universal trigger (Wallace et al., EMNLP 2019, arXiv:1908.07125), turned to slowdown.

*Universal Adversarial Triggers for Attacking and Analyzing NLP.*
One prefix for every input, learnt once with gradients on search texts and reported on others.
Their search (HotFlip in a beam over the positions) with SAME's loss and the exit layers as its
objective, at SAME's ``top_n``, ``beam_width`` and ``per_size``. WAFFLE's authors tried such a
prefix too: their program takes the best of 1,000 random words, repeated, and reports it on data
that include the texts that chose it.

What the prefix cost is spent once and reported apart: learning on a text may cost as much as
attacking one. An input costs two queries, itself without and with it. A prefix has no choice per
input, so inputs that it speeds up count as they are.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from eexit_cli.attacks.budget import Budget
from eexit_cli.attacks.recipe import AttackSettings, Learned, Recipe

if TYPE_CHECKING:
    import textattack

    from eexit_cli.attacks.encoder_victim import EncoderVictim
    from eexit_cli.attacks.words import TextInput
    from eexit_cli.core.protocols import Progress


def fit_universal(
    victim: EncoderVictim,
    search_texts: Sequence[TextInput],
    settings: AttackSettings,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Learn the prefix; what :meth:`~eexit_cli.attacks.prefix.PrefixSearch.run` returns.

    Args:
        search_texts: at least one, none of them among those that are reported.
    """
    from eexit_cli.attacks.prefix import PrefixSearch
    from eexit_cli.attacks.slowdown_loss import slowdown_loss

    if not search_texts:
        raise ValueError("a prefix is learnt on search texts; there are none")
    limit = victim.budget.limit
    search = PrefixSearch(
        victim,
        partial(slowdown_loss, lam=settings.lam),
        search_texts,
        length=settings.prefix_length,
        top_n=settings.top_n,
        beam_width=settings.beam_width,
        rounds=settings.per_size,
        budget=None if limit is None else max(2, limit) * len(search_texts),
    )
    return search.run(progress)


def build_universal(
    victim: EncoderVictim, budget: Budget, settings: AttackSettings, learned: Learned
) -> textattack.Attack:
    """Put the learnt prefix before every input."""
    import textattack

    from eexit_cli.attacks.goal import Slowdown
    from eexit_cli.attacks.prefix import PrefixInsertion, TakeTheOne

    return textattack.Attack(
        Slowdown(victim), [], PrefixInsertion(str(learned["prefix"])), TakeTheOne()
    )


UNIVERSAL = Recipe(
    name="universal",
    description="one learned prefix before every input, judged on inputs it was not learned on",
    source="Wallace et al., EMNLP 2019 (universal triggers), with SAME's loss",
    build=build_universal,
    fit=fit_universal,
    reads=("lam", "top_n", "beam_width", "per_size", "prefix_length", "search_samples"),
    gradients=True,
)
