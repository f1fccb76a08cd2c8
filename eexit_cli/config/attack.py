"""Settings of ``eexit attack``."""

from __future__ import annotations

from dataclasses import dataclass

from eexit_cli.config.common import CommonConfig, DataConfig, ExitConfig


@dataclass(frozen=True, kw_only=True)
class AttackConfig(CommonConfig, DataConfig, ExitConfig):
    """A slowdown attack. ``lam`` to ``per_size`` default to SAME's published settings.

    Attributes:
        recipe: a name of the attack catalog.
        limit: samples attacked; the default is a sample that fits a coffee break, and the screen
            says so. 0 is all.
        lam: weight of the "neighbours disagree" term against the "unsure" term.
        top_n: candidates kept per beam member and round.
        beam_width: texts kept per round.
        per_size: rounds.
        change_rate: at most max(3, ceil(rate * words)) words changed.
        query_budget: most queries per sample, gradient passes included; None is no bound. A query
            is one text scored by the victim: the input, each candidate, the chosen text alone.
        resume: a run to go on with; its own options hold, others given beside it must agree.
    """

    recipe: str = "same-token"
    limit: int | None = 100
    lam: float = 0.8
    top_n: int = 100
    beam_width: int = 5
    per_size: int = 10
    change_rate: float = 0.1
    query_budget: int | None = None
    resume: str | None = None
