"""Settings of ``eexit attack``."""

from __future__ import annotations

from dataclasses import dataclass

from eexit_cli.config.common import (
    CommonConfig,
    DecoderExitConfig,
    ExitConfig,
    TimingConfig,
    UnseenDataConfig,
)


@dataclass(frozen=True, kw_only=True)
class AttackConfig(CommonConfig, UnseenDataConfig, ExitConfig, DecoderExitConfig, TimingConfig):
    """A slowdown attack. ``lam`` to ``per_size`` default to SAME's published settings.

    Attributes:
        recipe: a name of the attack catalog, several with commas between them, or ``all``: every
            one that attacks this kind of model, each on the same samples.
        limit: samples attacked; the default is a sample that fits a coffee break, and the screen
            says so. 0 is all.
        lam: weight of the "neighbours disagree" term against the "unsure" term.
        top_n: candidates kept per beam member and round.
        beam_width: texts kept per round.
        per_size: rounds.
        change_rate: at most max(3, ceil(rate * words)) words changed.
        query_budget: most queries per sample, gradient passes included; None is the recipe's own
            bound, or none. A query is one text scored by the victim: the input, each candidate, the
            chosen text alone. With several recipes one budget holds for all.
        alpha: how unsure all exits must be before an attack that is scored by it stops.
        similarity: least cosine of a text with the original, where a recipe bounds it.
        substitutes: where a recipe that keeps the meaning takes its words from.
        prefix_length: words of a learned prefix.
        search_samples: texts that a learned prefix is learned on.
        letter_rate: of a decoder's input of one word, at most max(1, floor(rate * letters)) letters
            changed.
        score: what a decoder's attack makes grow: ``layers-per-token``, or ``total-layers``, which
            longer outputs raise too.
        compat: ``upstream`` does what a paper's published code does, where that differs.
        workers: processes that attack samples side by side, one torch thread each; None attacks in
            this process with torch's own threads.
        transfer: attack runs whose inputs are replayed on ``model``, which may then name several
            models of the attacked one's family with commas between them; nothing is attacked.
        defences: with ``transfer``, also what other exits than the model's own recover.
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
    alpha: float = 0.5
    similarity: float = 0.9
    substitutes: str = "embeddings"
    prefix_length: int = 3
    search_samples: int = 64
    letter_rate: float = 0.3
    score: str = "layers-per-token"
    compat: str | None = None
    workers: int | None = None
    transfer: tuple[str, ...] = ()
    defences: bool = False
    resume: str | None = None
