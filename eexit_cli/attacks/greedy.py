"""Greedy word swaps, the most important word first (A2T's search; Yoo and Qi, 2021)."""

from __future__ import annotations

from textattack.search_methods import SearchMethod
from textattack.shared import AttackedText

from eexit_cli.attacks.budget import FINAL_CHECK
from eexit_cli.attacks.encoder_victim import EncoderVictim
from eexit_cli.attacks.goal import Slowdown, SlowdownResult
from eexit_cli.attacks.meaning import SIMILARITY
from eexit_cli.attacks.saliency import word_gradients
from eexit_cli.attacks.victim import Loss


class GreedyByImportance(SearchMethod):
    """One gradient ranks the words; each in turn takes its best substitute, if that helps.

    A word's importance is the L1 norm of the mean gradient of its pieces, in the input as it was
    given. Among the substitutes of the word that reaches the goal, the one that stays nearest to
    the input in meaning is the answer. It is scored once more, alone.

    Args:
        victim: gives the gradient.
        loss: whose gradient ranks.
        keep_gains_only: return the input where the chosen text leaves earlier than it. The score
            may rise while the exit layer falls.
    """

    is_black_box = False

    def __init__(self, victim: EncoderVictim, loss: Loss, *, keep_gains_only: bool = True) -> None:
        self.victim = victim
        self.loss = loss
        self.keep_gains_only = keep_gains_only
        self.goal_function: Slowdown

    def perform_search(self, initial_result: SlowdownResult) -> SlowdownResult:
        """The text that the greedy walk ends at, within the budget."""
        if initial_result.succeeded:
            return initial_result
        chosen = self._walk(initial_result)
        if chosen is initial_result:
            return initial_result
        alone = self.goal_function.confirm(chosen.attacked_text)
        if alone is None:
            return initial_result
        shallower = alone.raw_output.exit_layer < initial_result.raw_output.exit_layer
        return initial_result if shallower and self.keep_gains_only else alone

    def _walk(self, initial: SlowdownResult) -> SlowdownResult:
        best = initial
        original = initial.attacked_text
        for index in self.order(original):
            # A swap keeps the place of every other word, so the order holds to the end.
            if index not in self.get_indices_to_order(best.attacked_text)[1]:
                continue
            candidates = self.get_transformations(
                best.attacked_text, original_text=original, indices_to_modify=[index]
            )
            if not candidates:
                continue
            results, _ = self.goal_function.get_results(candidates, reserve=FINAL_CHECK)
            if not results:
                break
            leader = max(results, key=lambda result: result.score)
            if leader.score > best.score:
                best = leader
            if best.succeeded:
                return max((result for result in results if result.succeeded), key=_similarity)
            if len(results) < len(candidates):
                break
        return best

    def order(self, text: AttackedText) -> list[int]:
        """Words that may change, the most important first; none where the budget is spent."""
        indices = set(self.get_indices_to_order(text)[1])
        if self.victim.budget.affordable(1, reserve=FINAL_CHECK) == 0:
            return []
        words = word_gradients(self.victim, self.loss, text, indices)
        if words is None:
            return []
        norms = words.gradients.abs().sum(dim=1).tolist()
        importance = [norm / pieces for norm, pieces in zip(norms, words.pieces, strict=True)]
        ranked = sorted(range(len(importance)), key=lambda row: -importance[row])
        return [words.indices[row] for row in ranked]


def _similarity(result: SlowdownResult) -> float:
    return float(result.attacked_text.attack_attrs.get(SIMILARITY, 0.0))
