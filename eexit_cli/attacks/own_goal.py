"""Other people's attacks on accuracy, as they are, within our budget and under our measure.

The recipe's transformation, constraints and search are TextAttack's objects, and its goal stays its
own: another class than the label. Exchanged is only who counts: queries and gradient passes go
through the victim, which refuses what the budget does not reach.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import textattack
from textattack.attack_results import FailedAttackResult
from textattack.goal_function_results import GoalFunctionResult
from textattack.goal_functions import UntargetedClassification
from textattack.shared import AttackedText

from eexit_cli.attacks.budget import FINAL_CHECK, BestSoFar
from eexit_cli.attacks.encoder_victim import EncoderVictim


class OwnGoal(UntargetedClassification):
    """Untargeted misclassification, whose queries the victim counts and bounds.

    As in TextAttack, an input that the victim gets wrong is skipped. An input without a label has
    the victim's own answer for one.

    Args:
        victim: the model.
        goal: the recipe's own goal function.

    Attributes:
        best: the text that would be the answer, had the budget ended earlier.
        skip_reason: why a sample is skipped, for its record.
    """

    skip_reason = "misclassified"

    def __init__(self, victim: EncoderVictim, goal: UntargetedClassification) -> None:
        super().__init__(
            victim,
            # The victim remembers what it scored, by text alone.
            use_cache=False,
            model_batch_size=victim.batch_size,
            target_max_score=goal.target_max_score,
        )
        self.victim = victim
        self.best = BestSoFar()

    def init_attack_example(
        self, attacked_text: AttackedText, ground_truth_output: int
    ) -> tuple[GoalFunctionResult, bool]:
        """Start a sample: the budget is full again; the input is scored alone, as a user's is."""
        self.victim.begin()
        outcome = self.victim.confirm(attacked_text.tokenizer_input)
        if outcome is None:
            raise ValueError("a query budget of 0 cannot even score the input")
        self.best = BestSoFar()
        label = outcome.prediction if ground_truth_output < 0 else ground_truth_output
        result: tuple[GoalFunctionResult, bool] = super().init_attack_example(attacked_text, label)
        return result

    def get_results(
        self, attacked_text_list: Sequence[AttackedText], check_skip: bool = False
    ) -> tuple[list[GoalFunctionResult], bool]:
        """Score texts as far as the budget goes.

        Returns:
            Results of the first texts, and whether the budget is spent.
        """
        texts = list(attacked_text_list)
        outcomes = self.victim.score([text.tokenizer_input for text in texts], reserve=FINAL_CHECK)
        # What is scored now is known to the victim, so asking for its probabilities is free.
        results, _ = super().get_results(texts[: len(outcomes)], check_skip=check_skip)
        self.num_queries = self.victim.budget.queries
        for text, result, outcome in zip(texts, results, outcomes, strict=False):
            # A text with a word left out only tells how important the word is.
            if self.best.steps and "last_transformation" not in text.attack_attrs:
                continue
            spent = self.victim.paid(text.tokenizer_input)
            self.best.note(float(result.score), outcome.exit_layer, spent)
        return results, self.is_spent()

    def is_spent(self) -> bool:
        """Has the budget nothing left beside the last check?"""
        return self.victim.budget.affordable(1, reserve=FINAL_CHECK) == 0


class BudgetedAttack(textattack.Attack):
    """A TextAttack attack that ends where a search would start without a query left."""

    goal_function: OwnGoal

    def _attack(self, initial_result: GoalFunctionResult) -> Any:
        # Not every search method bears a first round without results.
        if self.goal_function.is_spent():
            return FailedAttackResult(initial_result, initial_result)
        return super()._attack(initial_result)


def with_own_goal(attack: textattack.Attack, victim: EncoderVictim) -> textattack.Attack:
    """TextAttack's attack with its goal counted by the victim, everything else its own.

    Args:
        attack: what a recipe of TextAttack built on this victim; its goal is an untargeted
            classification.
    """
    goal = attack.goal_function
    if type(goal) is not UntargetedClassification:
        raise TypeError(f"the goal is {type(goal).__name__}, not an untargeted classification")
    return BudgetedAttack(
        OwnGoal(victim, goal),
        [*attack.pre_transformation_constraints, *attack.constraints],
        attack.transformation,
        attack.search_method,
    )
