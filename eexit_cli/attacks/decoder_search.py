"""Searches for the input that costs a decoder most: beams along the gradient, and random draws."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from eexit_cli.attacks.budget import FINAL_CHECK, BestSoFar
from eexit_cli.attacks.decoder_victim import DecoderVictim, Generation
from eexit_cli.attacks.victim import Loss
from eexit_cli.core.seed import stream

CHUNK = 64
"""Candidates decoded before looking whether one reached the goal."""

NARROW, NARROW_BEAM = 16, 3
"""Candidates per draft, and drafts, of the first stage."""

LAYERS_PER_TOKEN, TOTAL_LAYERS, ACCEPTANCE = "layers-per-token", "total-layers", "acceptance"
OUTPUT_LENGTH = "output-length"

SCORES: Mapping[str, Callable[[Generation], float]] = {
    LAYERS_PER_TOKEN: lambda generation: generation.layers_per_token,
    TOTAL_LAYERS: lambda generation: float(generation.total_layers),
    OUTPUT_LENGTH: lambda generation: float(len(generation.tokens)),
    ACCEPTANCE: lambda generation: -generation.tokens_per_verification,
}
"""What is to grow: the mean over the output's tokens, their sum, which longer outputs raise, or how
many they are; of self-speculation what falls, the tokens that a verification is worth."""


class Draft(Protocol):
    """An input with what was changed so far."""

    @property
    def text(self) -> str: ...


class Editor(Protocol):
    """What can be changed in an input; see ``letter_mutation`` and ``word_mutation``."""

    unit: str

    def begin(self, text: str) -> Any: ...
    def count(self, text: str) -> int: ...
    def most_changes(self, text: str) -> int: ...
    def can_change(self, draft: Any, original: str) -> bool: ...
    def candidates(self, draft: Any, original: str, top_n: int) -> list[Any]: ...
    def draw(self, original: str, chance: random.Random) -> Draft: ...
    def changes(self, original: str, perturbed: str) -> list[dict[str, Any]]: ...


@dataclass(frozen=True)
class Goal:
    """What an attack wants.

    Attributes:
        score: a name of :data:`SCORES`.
        num_layers: L.
        max_tokens: the longest output.
    """

    score: str
    num_layers: int
    max_tokens: int

    def value(self, generation: Generation) -> float:
        return SCORES[self.score](generation)

    @property
    def most(self) -> float:
        """The value that nothing exceeds."""
        if self.score == ACCEPTANCE:
            return -1.0  # every draft is rejected at its first token
        if self.score == OUTPUT_LENGTH:
            return float(self.max_tokens)
        per_token = self.score == LAYERS_PER_TOKEN
        return float(self.num_layers * (1 if per_token else self.max_tokens))

    def is_reached(self, generation: Generation) -> bool:
        return self.value(generation) >= self.most

    def is_beyond(self, generation: Generation) -> bool:
        """Is there nothing to gain on this input? An output without a draft has none to reject."""
        no_drafts = self.score == ACCEPTANCE and not generation.passes
        return no_drafts or self.is_reached(generation)

    def rank(self, generation: Generation) -> tuple[float, float]:
        """Larger is better; of equal values, the one whose tokens left with less confidence."""
        return self.value(generation), -generation.confidence


@dataclass(frozen=True)
class Found:
    """How an attack ended.

    Attributes:
        text: the chosen input, or the original where nothing was better.
        editor: what was changed.
        skipped: nothing was to be gained from the start.
    """

    text: str
    editor: Editor
    skipped: bool = False


class DecoderAttack(Protocol):
    """What a decoder's recipe builds.

    Attributes:
        goal: what it wants.
        best: the input that would be the answer, had the budget ended earlier.
    """

    goal: Goal
    best: BestSoFar

    def attack(self, text: str) -> Found:
        """Attack one input, given without the prefix; the victim counts what that costs."""
        ...


class _Search:
    """What both searches do: decode candidates, remember them, choose.

    Args:
        victim: decodes.
        goal: what for.
        editor_for: the editor that fits an input.
    """

    def __init__(
        self, victim: DecoderVictim, goal: Goal, editor_for: Callable[[str], Editor]
    ) -> None:
        self.victim = victim
        self.goal = goal
        self.editor_for = editor_for
        self.best = BestSoFar()
        self._seen: dict[str, Generation] = {}

    def attack(self, text: str) -> Found:
        """The best input found, decoded once more alone; the original where none is better."""
        self.victim.begin()
        self._seen = {}
        self._original, self._editor = text, self.editor_for(text)
        before = self.victim.confirm(text)
        assert before is not None  # a budget is at least 1
        self.best = BestSoFar()
        self._note(text, before)
        if self.goal.is_beyond(before):
            return Found(text, self._editor, skipped=True)
        return Found(self._search() or self._best(before), self._editor)

    def _search(self) -> str | None:
        """An input that reaches the goal, decoded alone; None where there is none."""
        raise NotImplementedError

    def _decode(self, texts: list[str]) -> tuple[str | None, bool]:
        """Decode what the budget allows.

        Returns:
            An input that reaches the goal, alone too; and whether all were decoded.
        """
        generations = self.victim.score(texts, reserve=FINAL_CHECK)
        for text, generation in zip(texts, generations, strict=False):
            self._seen[text] = generation
            self._note(text, generation)
        for text in texts[: len(generations)]:
            if self.goal.is_reached(self._seen[text]):
                alone = self.victim.confirm(text)
                if alone is not None:
                    self._seen[text] = alone
                    if self.goal.is_reached(alone):
                        return text, True
        return None, len(generations) == len(texts)

    def _note(self, text: str, generation: Generation) -> None:
        layers = generation.layers_per_token
        self.best.note(self.goal.value(generation), layers, self.victim.paid(text))

    def _best(self, before: Generation) -> str:
        best, value = self._original, self.goal.value(before)
        ranked = sorted(self._seen.items(), key=lambda item: self.goal.rank(item[1]), reverse=True)
        for candidate, generation in ranked:
            if self.goal.value(generation) <= value:
                break
            alone = self.victim.confirm(candidate)
            if alone is not None and self.goal.value(alone) > value:
                best, value = candidate, self.goal.value(alone)
        return best


class GradientBeam(_Search):
    """Beam search over rounds of single changes, ranked by gradient.

    In each round every draft of the beam gets its candidates by the first-order estimate, and all
    are decoded by the live path, the most promising first. A narrow beam comes first, so that all
    changes are made before the budget ends; then the one with ``top_n`` candidates and
    ``beam_width`` drafts. With a query budget the search goes on while there is some left, with
    twice the candidates each time. What was decoded and differentiated before is remembered and
    costs nothing. It stops where the goal is reached. No input is decoded twice, and the budget is
    never exceeded.

    Args:
        loss: whose gradients the editors rank by.
        rounds: changes at most, within what the editor allows.
        top_n: candidates per draft and round.
        beam_width: drafts kept per round.
    """

    def __init__(
        self,
        victim: DecoderVictim,
        goal: Goal,
        editor_for: Callable[[str], Editor],
        loss: Loss,
        *,
        rounds: int,
        top_n: int,
        beam_width: int,
    ) -> None:
        super().__init__(victim, goal, editor_for)
        self.loss = loss
        self.rounds = rounds
        self.top_n = top_n
        self.beam_width = beam_width
        self._left_out = False

    def _search(self) -> str | None:
        top_n, budget = self.top_n, self.victim.budget
        rounds = max(1, min(self.rounds, self._editor.most_changes(self._original)))
        narrow = min(self.beam_width, NARROW_BEAM)
        # Every round gets its share, of which the gradients of its drafts are paid too.
        share = budget.affordable((NARROW + 1) * narrow * rounds, reserve=FINAL_CHECK) // rounds
        few = max(1, share - narrow)
        reached = self._run_stage(rounds, min(few, top_n), narrow, most=few)
        while reached is None:
            spent, self._left_out = budget.spent, False
            reached = self._run_stage(rounds, top_n, self.beam_width)
            nothing_new = budget.spent == spent and not self._left_out
            over = not budget.affordable(1, reserve=FINAL_CHECK)
            if budget.limit is None or nothing_new or over:
                break
            top_n *= 2
        return reached

    def _run_stage(
        self, rounds: int, top_n: int, beam_width: int, *, most: int | None = None
    ) -> str | None:
        beam: list[Draft] = [self._editor.begin(self._original)]
        for _ in range(rounds):
            drafts = self._candidates(beam, top_n)[:most]
            for start in range(0, len(drafts), CHUNK):
                texts = [draft.text for draft in drafts[start : start + CHUNK]]
                reached, whole = self._decode(texts)
                if reached is not None or not whole:
                    return reached
            if not drafts:
                return None
            drafts.sort(key=lambda draft: self.goal.rank(self._seen[draft.text]), reverse=True)
            beam = drafts[:beam_width]
        return None

    def _candidates(self, beam: list[Draft], top_n: int) -> list[Draft]:
        """Candidates of all drafts of the beam, each text once, the most promising first."""
        editor, original = self._editor, self._original
        drafts = [draft for draft in beam if editor.can_change(draft, original)]
        # One pass for the beam; drafts that the budget does not reach are left alone.
        paid = self.victim.gradients(
            [draft.text for draft in drafts], self.loss, reserve=FINAL_CHECK
        )
        found: list[tuple[int, Draft]] = []
        for draft in drafts[: len(paid)]:
            mine = editor.candidates(draft, original, top_n)
            self._left_out |= len(mine) == top_n
            found += enumerate(mine)
        # In turn from each draft of the beam, the best draft first.
        unique: dict[str, Draft] = {}
        for _, draft in sorted(found, key=lambda pair: pair[0]):
            unique.setdefault(draft.text, draft)
        unique.pop(original, None)
        return list(unique.values())


class RandomDraws(_Search):
    """The control: the same number of changes, in random places, and as many queries.

    What it reaches needs no gradient and no idea; the other attack is as good as what it gains
    beyond that.

    Args:
        draws: inputs decoded at most.
    """

    def __init__(
        self,
        victim: DecoderVictim,
        goal: Goal,
        editor_for: Callable[[str], Editor],
        *,
        draws: int,
    ) -> None:
        super().__init__(victim, goal, editor_for)
        self.draws = draws

    def _search(self) -> str | None:
        text, editor = self._original, self._editor
        chance = stream(self.victim.seed, "random changes", text)
        left = self.draws
        while left > 0:
            count = min(left, CHUNK)
            drawn = [editor.draw(text, chance).text for _ in range(count)]
            drawn = [draft for draft in dict.fromkeys(drawn) if draft != text]
            reached, whole = self._decode(drawn)
            if reached is not None or not whole:
                return reached
            left -= count
        return None
