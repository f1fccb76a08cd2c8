"""Universal prefixes: the words put before every input, and how they are learnt."""

from __future__ import annotations

import math
import time
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import torch
from textattack.search_methods import SearchMethod
from textattack.shared import AttackedText
from textattack.transformations import Transformation

from eexit_cli.attacks.budget import Budget
from eexit_cli.attacks.encoder_victim import EncoderVictim, Outcome
from eexit_cli.attacks.goal import Slowdown, SlowdownResult
from eexit_cli.attacks.saliency import WordGradients, word_gradients
from eexit_cli.attacks.victim import Loss
from eexit_cli.attacks.vocabulary import LOWER
from eexit_cli.attacks.word_mutation import TokenMutation
from eexit_cli.attacks.words import TextInput, columns_of
from eexit_cli.core.progress import SilentProgress

if TYPE_CHECKING:
    from eexit_cli.core.protocols import Progress

FIRST_WORDS = ("the", "a", "of")
"""What a search starts from: the first of them that the vocabulary has (Wallace et al. start from
"the the the")."""
TRIED = 4
"""One in so many of a round's candidates races: those that the gradient ranks first. It ranks
poorly, but a race of all costs six times as much and wins as little."""

PROVEN = 10
"""Words that did best at other places race too, at most twice as many."""

RACE = (2, 4, 8, 16, 32)
"""Search texts after each heat; the better half goes on, with what it has been through (successive
halving), and :data:`FINALISTS` are judged on all texts."""

FINALISTS = 2

GRADIENT_TEXTS = 16
"""Search texts whose gradients are averaged: they rank candidates and judge none."""

GRADIENTS_TOGETHER = 4
"""Of them in one pass: fewer leave each process of a crew too little, more leave some idle."""

PATIENCE = 2
"""So often every word may be changed in vain before the search ends."""


def with_prefix(prefix: str, text: TextInput) -> TextInput:
    """The input with the prefix before its (first) text."""
    if isinstance(text, str):
        return f"{prefix} {text}"
    return (f"{prefix} {text[0]}", *text[1:])


class PrefixInsertion(Transformation):
    """Puts one fixed prefix before a text; there is one candidate.

    Args:
        prefix: words, separated by spaces.
    """

    def __init__(self, prefix: str) -> None:
        self.prefix = prefix

    def _get_transformations(
        self, current_text: AttackedText, indices_to_modify: set[int]
    ) -> list[AttackedText]:
        return [attacked(with_prefix(self.prefix, columns_of(current_text)), like=current_text)]


class TakeTheOne(SearchMethod):
    """No search: the one candidate is the answer, whatever comes of it.

    A universal prefix does not look at the input, so it cannot decide to leave it alone either. A
    budget that does not reach for one query leaves the input as it is.
    """

    is_black_box = True
    goal_function: Slowdown

    def perform_search(self, initial_result: SlowdownResult) -> SlowdownResult:
        """The candidate, scored alone."""
        original = initial_result.attacked_text
        (candidate,) = self.get_transformations(original, original_text=original)
        return self.goal_function.confirm(candidate) or initial_result


def attacked(text: TextInput, *, like: AttackedText | None = None) -> AttackedText:
    """TextAttack's object for a text, with the column names of another."""
    columns = (text,) if isinstance(text, str) else text
    if like is None:
        return AttackedText(OrderedDict(zip(("text", "text_pair"), columns, strict=False)))
    return AttackedText(OrderedDict(zip(like.column_labels, columns, strict=True)))


@dataclass(frozen=True)
class Scored:
    """A prefix on the search texts.

    Attributes:
        words: of the prefix.
        score: mean of (exit layer + closeness) / L over the texts.
        exit_layer: mean exit layer.
    """

    words: tuple[str, ...]
    score: float
    exit_layer: float


class PrefixSearch:
    """Learns a prefix by gradient-guided beam search on search texts (Wallace et al., 2019).

    Each round changes one word, the first to the last in turn. The gradient of the loss at that
    word, averaged over some search texts, ranks the vocabulary for every prefix of the beam; the
    best of the round's ``top_n`` candidates, and words that did well at other places, race on a few
    texts, the better half of them on more, and so on to all. A prefix is as good as the exit layers
    that it leads to, and how near the executed exits came to going on. The search ends when no word
    of the prefix brings anything any more, or after ``rounds``.

    With a budget the search ends where the next step would exceed it.

    Args:
        victim: scores and gives gradients; its budget is not touched.
        loss: to be lowered.
        texts: search texts, disjoint from those that are reported.
        length: words of the prefix.
        top_n: candidates per round.
        beam_width: prefixes kept per round.
        rounds: most rounds.
        budget: most queries and gradient passes, at least two per text (without and with a
            prefix); None is no bound.
    """

    def __init__(
        self,
        victim: EncoderVictim,
        loss: Loss,
        texts: Sequence[TextInput],
        *,
        length: int,
        top_n: int,
        beam_width: int,
        rounds: int,
        budget: int | None = None,
    ) -> None:
        self.victim = victim
        self.loss = loss
        self.budget = budget
        self.texts = list(texts)
        self.length = length
        self.top_n = top_n
        self.beam_width = beam_width
        self.rounds = rounds
        self.mutation = TokenMutation(victim, loss, top_n=top_n)
        self._tried: set[tuple[str, ...]] = set()
        self._merits: dict[str, float] = {}
        self._gradients: dict[tuple[str, ...], WordGradients] = {}

    def run(self, progress: Progress | None = None) -> dict[str, Any]:
        """Learn a prefix.

        Returns:
            ``prefix``, the mean exit layer of the search texts without and with it, ``history``
            (one entry per round), and what it cost: ``queries``, ``gradient_passes``, ``seconds``.
        """
        started = time.perf_counter()
        with self.victim.account(Budget(self.budget)) as spent:
            plain = self.victim.score(self.texts)
            before = sum(outcome.exit_layer for outcome in plain) / len(plain)
            best, history = self._search(progress)
        return {
            "prefix": " ".join(best.words),
            "search_samples": len(self.texts),
            "mean_exit_layer_before": before,
            "mean_exit_layer_after": best.exit_layer,
            "history": history,
            "queries": spent.queries,
            "gradient_passes": spent.gradient_passes,
            "seconds": time.perf_counter() - started,
        }

    def _search(self, progress: Progress | None) -> tuple[Scored, list[dict[str, Any]]]:
        beam = self._race([(self._first_word(),) * self.length])
        history = [_entry(0, beam[0])]
        without_gain = 0
        with (progress or SilentProgress()).task("Learn a prefix", total=self.rounds) as ticker:
            for number in range(self.rounds):
                before = beam[0].score
                try:
                    beam = self._round(beam, number % self.length)
                except _SpentError:
                    break
                history.append(_entry(number + 1, beam[0]))
                ticker.advance(
                    note=f"'{' '.join(beam[0].words)}': layer {beam[0].exit_layer:.2f} on average"
                )
                without_gain = 0 if beam[0].score > before else without_gain + 1
                done = beam[0].exit_layer >= self.victim.num_layers
                if done or without_gain == PATIENCE * self.length:
                    break
        return beam[0], history

    def _round(self, beam: list[Scored], place: int) -> list[Scored]:
        proposals: dict[tuple[str, ...], float] = {}
        for member in beam:
            for words, change in self._proposals(member.words, place):
                if words not in self._tried:
                    proposals[words] = min(change, proposals.get(words, change))
        ranked = sorted(proposals, key=lambda words: (proposals[words], words))
        runners = [*ranked[: math.ceil(self.top_n / TRIED)], *self._proven(beam, place)]
        found = [*beam, *self._race(list(dict.fromkeys(runners)), place)]
        self.victim.forget()
        return sorted(found, key=_best_first)[: self.beam_width]

    def _proven(self, beam: list[Scored], place: int) -> list[tuple[str, ...]]:
        """Prefixes of the beam with a word at this place that did well wherever it stood."""
        words = sorted(self._merits, key=lambda word: (-self._merits[word], word))[:PROVEN]
        placed = [
            (*one.words[:place], word, *one.words[place + 1 :]) for one in beam for word in words
        ]
        return [prefix for prefix in placed if prefix not in self._tried][: 2 * PROVEN]

    def _race(self, runners: list[tuple[str, ...]], place: int = 0) -> list[Scored]:
        """The best of these prefixes, on all search texts; what each word at the place is worth is
        remembered."""
        outcomes: dict[tuple[str, ...], list[Outcome]] = {words: [] for words in runners}
        if not outcomes:
            return []
        seen = 0
        for texts in (*RACE, len(self.texts)):
            self._add(outcomes, self.texts[seen:texts])
            seen = max(seen, texts)
            if seen < len(self.texts):
                heat = sorted((self._scored(*each) for each in outcomes.items()), key=_best_first)
                mean = sum(one.score for one in heat) / len(heat)
                for one in heat:
                    self._merits[one.words[place]] = one.score - mean
                last = seen == RACE[-1]
                stay = FINALISTS if last else max(FINALISTS, math.ceil(len(heat) / 2))
                outcomes = {one.words: outcomes[one.words] for one in heat[:stay]}
        self._tried.update(outcomes)
        return [self._scored(*each) for each in outcomes.items()]

    def _proposals(
        self, prefix: tuple[str, ...], place: int
    ) -> list[tuple[tuple[str, ...], float]]:
        """Prefixes with another word at this place, with the change of the mean loss, estimated."""
        if prefix not in self._gradients:
            self._gradients[prefix] = self._mean_gradients(prefix)
        words = self._gradients[prefix].select([place])
        changes, _, entries = self.mutation.best_pairs(words, list(prefix))
        table = self.mutation.table.words
        return [
            ((*prefix[:place], table[entry], *prefix[place + 1 :]), change)
            for change, entry in zip(changes, entries, strict=True)
        ]

    def _mean_gradients(self, prefix: tuple[str, ...]) -> WordGradients:
        """Of the prefix's words, over the first search texts."""
        texts = [with_prefix(" ".join(prefix), text) for text in self.texts[:GRADIENT_TEXTS]]
        places = set(range(self.length))
        self._check_affordable(len(texts))
        # A few passes for all, which a crew shares; asking for them one by one is free then.
        self.victim.gradients(texts, self.loss, together=GRADIENTS_TOGETHER)
        each = (word_gradients(self.victim, self.loss, attacked(text), places) for text in texts)
        found = [words for words in each if words is not None]
        mean = torch.stack([words.gradients for words in found]).mean(dim=0)
        return replace(found[0], gradients=mean)

    def _first_word(self) -> str:
        table = self.mutation.table
        lower = [
            word
            for word, pattern in zip(table.words, table.patterns.tolist(), strict=True)
            if pattern == LOWER
        ]
        return next((word for word in FIRST_WORDS if word in lower), lower[0])

    def _add(
        self, outcomes: dict[tuple[str, ...], list[Outcome]], texts: Sequence[TextInput]
    ) -> None:
        """Put each prefix before these texts too, in one call: full batches of texts of one
        length."""
        self._check_affordable(len(outcomes) * len(texts))
        scored = self.victim.score(
            [with_prefix(" ".join(words), text) for words in outcomes for text in texts]
        )
        for number, found in enumerate(outcomes.values()):
            found += scored[number * len(texts) : (number + 1) * len(texts)]

    def _scored(self, words: tuple[str, ...], outcomes: Sequence[Outcome]) -> Scored:
        layers = sum(outcome.exit_layer for outcome in outcomes) / len(outcomes)
        closeness = sum(outcome.closeness for outcome in outcomes) / len(outcomes)
        return Scored(words, (layers + closeness) / self.victim.num_layers, layers)

    def _check_affordable(self, wanted: int) -> None:
        if self.victim.budget.affordable(wanted) < wanted:
            raise _SpentError


class _SpentError(Exception):
    """The next step of the search would exceed its budget."""


def _best_first(one: Scored) -> tuple[float, tuple[str, ...]]:
    return (-one.score, one.words)


def _entry(number: int, best: Scored) -> dict[str, Any]:
    return {
        "round": number,
        "prefix": " ".join(best.words),
        "mean_exit_layer": best.exit_layer,
        "score": best.score,
    }
