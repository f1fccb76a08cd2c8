"""The search of the slowdown attacks: a narrow beam, some random texts, then a wide beam."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice

from textattack.search_methods import SearchMethod
from textattack.shared import AttackedText

from eexit_cli.attacks.budget import FINAL_CHECK
from eexit_cli.attacks.encoder_victim import EncoderVictim
from eexit_cli.attacks.goal import Slowdown, SlowdownResult
from eexit_cli.attacks.victim import Loss
from eexit_cli.attacks.word_mutation import ESTIMATE, RandomSubstitution

RANDOM_SHARE = 0.2
"""Of a query budget, at most this goes to random texts."""

Draws = Callable[[AttackedText, list[int]], Iterator[AttackedText]]
"""(text, indices of the words that may change) -> texts with all their changes at once."""


@dataclass(frozen=True)
class RandomTexts:
    """Tried between the stages, for inputs whose gradient leads nowhere.

    Attributes:
        draws: texts with all their changes at once, the same for the same input.
        most: texts scored at most.
        chunk: scored before looking whether one reached the last layer.
    """

    draws: Draws
    most: int
    chunk: int = 32


@dataclass(frozen=True)
class Stage:
    """One beam search from the input.

    Attributes:
        candidates: per beam member and round, best estimate first.
        beam_width: texts kept per round.
        chunk: candidates scored before looking whether one reached the last layer.
    """

    candidates: int
    beam_width: int
    chunk: int = 16


def narrow_then_wide(top_n: int, beam_width: int) -> tuple[Stage, ...]:
    """Most inputs give in to the first few candidates; the others get the published width.

    What the narrow stage scored and differentiated is remembered, so the wide stage repeats
    nothing.
    """
    return (Stage(min(top_n, 16), min(beam_width, 3)), Stage(top_n, beam_width, chunk=32))


class BeamSearch(SearchMethod):
    """Beam search that stops as soon as the last layer is reached.

    In each round every text of the beam gets its candidates, all are ranked by the first-order
    estimate of what they do to the loss, and scored in that order, in chunks. Rounds end early
    when no text may change any further. Where the first stage fails, some random texts follow: a
    model that wants several layers in a row to agree has flat places from which no single change
    looks promising, and the next stage costs more than they do. The answer is the best candidate
    of all, scored once more alone; an input that no candidate pushes to a deeper layer is returned
    as it was. No text is scored twice, and a query budget is never exceeded.

    Args:
        victim: shares its gradients between the texts of a beam.
        loss: whose gradients the transformation ranks by.
        rounds: words changed at most (``per_size``).
        stages: beam searches, one after the other until one succeeds.
        random_texts: what follows where the first stage fails; None is nothing.
        stop_at_goal: False goes on to the end, as the published code does.
    """

    is_black_box = False

    def __init__(
        self,
        victim: EncoderVictim,
        loss: Loss,
        *,
        rounds: int,
        stages: Sequence[Stage],
        random_texts: RandomTexts | None = None,
        stop_at_goal: bool = True,
    ) -> None:
        self.victim = victim
        self.loss = loss
        self.rounds = rounds
        self.stages = tuple(stages)
        self.random_texts = random_texts
        self.stop_at_goal = stop_at_goal
        self.goal_function: Slowdown
        self._seen: dict[str, SlowdownResult] = {}

    def perform_search(self, initial_result: SlowdownResult) -> SlowdownResult:
        """The deepest text found, within the budget."""
        self._seen = {}
        original = initial_result.attacked_text
        for number, stage in enumerate(self.stages):
            found = self._run_stage(original, stage)
            if found is None and number == 0:
                found = self._try_random_texts(original)
            if found is not None:
                return found
        return self._best_of_all(initial_result)

    def _run_stage(self, original: AttackedText, stage: Stage) -> SlowdownResult | None:
        """The first text that reaches the last layer; None where none does."""
        beam = [original]
        for _ in range(self.rounds):
            candidates = self._candidates(beam, original, stage.candidates)
            for start in range(0, len(candidates), stage.chunk):
                found, whole = self._look(candidates[start : start + stage.chunk])
                if found is not None or not whole:
                    return found
            if not candidates:
                return None
            results = [self._seen[candidate.text] for candidate in candidates]
            results.sort(key=lambda result: -result.score)
            beam = [result.attacked_text for result in results[: stage.beam_width]]
        return None

    def _try_random_texts(self, original: AttackedText) -> SlowdownResult | None:
        """The first random text that reaches the last layer; None where none does."""
        random_texts = self.random_texts
        indices = sorted(int(index) for index in self.get_indices_to_order(original)[1])
        if random_texts is None or not indices:
            return None
        limit = self.victim.budget.limit
        most = random_texts.most if limit is None else int(RANDOM_SHARE * limit)
        drawn = islice(random_texts.draws(original, indices), min(most, random_texts.most))
        while chunk := list(islice(drawn, random_texts.chunk)):
            found, whole = self._look(chunk)
            if found is not None or not whole:
                return found
        return None

    def _candidates(
        self, beam: list[AttackedText], original: AttackedText, per_text: int
    ) -> list[AttackedText]:
        """Candidates of all texts of the beam, each once, the most promising first."""
        texts = [text for text in beam if self.get_indices_to_order(text)[0]]
        # One pass for the beam; texts that the budget does not reach are left alone.
        paid = self.victim.gradients(
            [text.tokenizer_input for text in texts], self.loss, reserve=FINAL_CHECK
        )
        candidates: dict[str, AttackedText] = {}
        found = []
        for text in texts[: len(paid)]:
            # The attack hands them over in alphabetical order.
            mine = sorted(self.get_transformations(text, original_text=original), key=_estimate)
            found += mine[:per_text]
        for candidate in sorted(found, key=_estimate):
            candidates.setdefault(candidate.text, candidate)
        candidates.pop(original.text, None)
        return list(candidates.values())

    def _look(self, texts: list[AttackedText]) -> tuple[SlowdownResult | None, bool]:
        """Score texts and remember them.

        Returns:
            The first that reaches the last layer, alone too; and whether all were scored.
        """
        results, _ = self.goal_function.get_results(texts, reserve=FINAL_CHECK)
        self._seen.update((result.attacked_text.text, result) for result in results)
        for result in results:
            if self.stop_at_goal and result.succeeded:
                alone = self.goal_function.confirm(result.attacked_text)
                if alone is not None:
                    self._seen[alone.attacked_text.text] = alone
                    if alone.succeeded:
                        return alone, True
        return None, len(results) == len(texts)

    def _best_of_all(self, initial: SlowdownResult) -> SlowdownResult:
        best = initial
        for result in sorted(self._seen.values(), key=lambda result: -result.score):
            if result.score <= best.score:
                break
            alone = self.goal_function.confirm(result.attacked_text)
            if alone is not None and alone.score > best.score:
                best = alone
        deeper = best.raw_output.exit_layer > initial.raw_output.exit_layer
        return best if deeper else initial


def _estimate(text: AttackedText) -> float:
    return float(text.attack_attrs[ESTIMATE])


class RandomSearch(SearchMethod):
    """The deepest of so many random texts; stops where one reaches the last layer.

    Args:
        victim: gives the sample's seed.
        substitution: draws the texts.
        draws: texts scored at most.
    """

    is_black_box = True

    def __init__(
        self, victim: EncoderVictim, substitution: RandomSubstitution, *, draws: int
    ) -> None:
        self.victim = victim
        self.substitution = substitution
        self.draws = draws
        self.goal_function: Slowdown

    def perform_search(self, initial_result: SlowdownResult) -> SlowdownResult:
        """The deepest text, scored once more alone; the input where none is deeper."""
        original = initial_result.attacked_text
        indices = sorted(int(index) for index in self.get_indices_to_order(original)[1])
        best, left = initial_result, self.draws if indices else 0
        drawn = self.substitution.draws(original, indices)
        while left > 0 and best.raw_output.exit_layer < self.victim.num_layers:
            count = min(left, self.victim.batch_size)
            texts = list(islice(drawn, count))
            results, spent = self.goal_function.get_results(texts, reserve=FINAL_CHECK)
            best = max([best, *results], key=lambda result: result.score)
            if spent or len(results) < count:
                break
            left -= count
        if best is initial_result:
            return initial_result
        alone = self.goal_function.confirm(best.attacked_text)
        before = initial_result.raw_output.exit_layer
        return (
            alone if alone is not None and alone.raw_output.exit_layer > before else initial_result
        )
