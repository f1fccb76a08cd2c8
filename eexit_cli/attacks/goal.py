"""The goal of a slowdown attack, in TextAttack's terms: the input uses every layer."""

from __future__ import annotations

from typing import Any

from textattack.goal_function_results import GoalFunctionResult, GoalFunctionResultStatus
from textattack.goal_functions import GoalFunction
from textattack.shared import AttackedText

from eexit_cli.attacks.budget import BestSoFar
from eexit_cli.attacks.encoder_victim import EncoderVictim, Outcome


class SlowdownResult(GoalFunctionResult):
    """How far one text gets. ``raw_output`` is the victim's :class:`Outcome`."""

    @property
    def succeeded(self) -> bool:
        """The goal is reached."""
        return bool(self.goal_status == GoalFunctionResultStatus.SUCCEEDED)

    def get_text_color_input(self) -> str:
        return "green"

    def get_text_color_perturbed(self) -> str:
        return "red"

    def get_colored_output(self, color_method: str | None = None) -> str:
        return str(self.output)


class Slowdown(GoalFunction):
    """Exit layer / L, and below that step a secondary score; done at layer L.

    The score is (exit layer + closeness) / L with closeness in [0, 1), so a deeper exit always
    wins, and equal exits are told apart by how near the executed ones were to going on. Inputs
    that use all layers anyway are skipped.

    Args:
        victim: the model, which also counts the queries and holds the budget.

    Attributes:
        initial: what the victim does with the sample as it was.
        best: the text that would be the answer, had the budget ended earlier.
    """

    all_exits = False
    """Whether the score needs every exit of a text, so that queries run all layers."""

    def __init__(self, victim: EncoderVictim) -> None:
        limit = victim.budget.limit
        super().__init__(
            victim,
            # The victim remembers what it scored, by text alone.
            use_cache=False,
            query_budget=float("inf") if limit is None else limit,
            model_batch_size=victim.batch_size,
        )
        self.victim = victim
        self.initial: Outcome
        self.best = BestSoFar()

    def init_attack_example(
        self, attacked_text: AttackedText, ground_truth_output: Any
    ) -> tuple[SlowdownResult, bool]:
        """Start a sample: the budget is full again and the input itself is the first query.

        It is scored alone, so where it leaves is what a user would see.
        """
        self.victim.begin(all_exits=self.all_exits)
        self.initial_attacked_text = attacked_text
        self.ground_truth_output = ground_truth_output
        outcome = self.victim.confirm(attacked_text.tokenizer_input)
        if outcome is None:
            raise ValueError("a query budget of 0 cannot even score the input")
        self._start(outcome)
        self._note(attacked_text, outcome)
        return self.result_of(attacked_text, outcome, check_skip=True), self._is_spent()

    def get_results(
        self,
        attacked_text_list: list[AttackedText],
        check_skip: bool = False,
        *,
        reserve: int = 0,
    ) -> tuple[list[SlowdownResult], bool]:
        """Score texts as far as the budget goes.

        Args:
            reserve: queries to leave unspent.

        Returns:
            Results of the first texts, and whether the budget is spent.
        """
        outcomes = self.victim.score(
            [text.tokenizer_input for text in attacked_text_list], reserve=reserve
        )
        results = []
        for text, outcome in zip(attacked_text_list, outcomes, strict=False):
            self._note(text, outcome)
            results.append(self.result_of(text, outcome, check_skip=check_skip))
        return results, self._is_spent()

    def confirm(self, text: AttackedText) -> SlowdownResult | None:
        """Score a text alone, as a user's input would be; None where the budget is spent."""
        outcome = self.victim.confirm(text.tokenizer_input)
        return None if outcome is None else self.result_of(text, outcome)

    def _start(self, outcome: Outcome) -> None:
        """A sample begins; ``outcome`` is what the victim does with it as it was."""
        self.initial = outcome
        self.best = BestSoFar()

    def _note(self, text: AttackedText, outcome: Outcome) -> None:
        """Keep count of the best text; by default the deepest."""
        spent = self.victim.paid(text.tokenizer_input)
        self.best.note(outcome.exit_layer, outcome.exit_layer, spent)

    def result_of(
        self, text: AttackedText, outcome: Outcome, *, check_skip: bool = False
    ) -> SlowdownResult:
        """A TextAttack result for an outcome of the victim."""
        self.num_queries = self.victim.budget.queries
        return SlowdownResult(
            text,
            outcome,
            outcome.exit_layer,
            self._get_goal_status(outcome, text, check_skip=check_skip),
            self._get_score(outcome, text),
            self.num_queries,
            self.ground_truth_output,
        )

    def _is_spent(self) -> bool:
        return self.victim.budget.affordable(1) == 0

    def _is_goal_complete(self, model_output: Outcome, attacked_text: AttackedText) -> bool:
        return model_output.exit_layer >= self.victim.num_layers

    def _should_skip(self, model_output: Outcome, attacked_text: AttackedText) -> bool:
        """There is nothing to gain where all layers are used already, whatever the goal."""
        return model_output.exit_layer >= self.victim.num_layers

    def _get_score(self, model_output: Outcome, attacked_text: AttackedText) -> float:
        return (model_output.exit_layer + model_output.closeness) / self.victim.num_layers

    def _goal_function_result_type(self) -> type[SlowdownResult]:
        return SlowdownResult

    def _process_model_outputs(self, inputs: Any, outputs: Any) -> Any:
        return outputs
