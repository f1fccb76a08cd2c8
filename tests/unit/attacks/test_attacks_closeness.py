"""The secondary score: bounds, direction, and that it never beats a deeper exit."""

from __future__ import annotations

import math

import pytest
import torch
from attacks_tiny import victim_for
from hypothesis import given
from hypothesis import strategies as st

from eexit_cli.attacks.closeness import closeness_for
from eexit_cli.attacks.encoder_victim import Outcome
from eexit_cli.attacks.goal import Slowdown
from eexit_cli.confidence.entropy import MEASURE as ENTROPY
from eexit_cli.confidence.max_prob import MEASURE as MAX_PROB
from eexit_cli.exits.patience import PatienceExit
from eexit_cli.exits.threshold import ThresholdExit
from eexit_cli.exits.voting import VotingExit


def two_class(margin_logit: float) -> list[float]:
    return [margin_logit, 0.0]


def test_threshold_on_entropy_is_the_share_of_the_threshold_that_is_used_up() -> None:
    closeness = closeness_for(ThresholdExit(ENTROPY, 0.4))
    logits = torch.tensor([[two_class(9.0), two_class(3.0), two_class(0.0)]], dtype=torch.float64)
    p = 1 / (1 + math.exp(-3.0))
    entropy = -p * math.log(p) - (1 - p) * math.log(1 - p)
    assert float(closeness(logits, torch.tensor([2]))[0]) == pytest.approx(entropy / 0.4)


def test_threshold_on_a_probability_is_the_share_of_the_way_from_certainty() -> None:
    closeness = closeness_for(ThresholdExit(MAX_PROB, 0.8))
    logits = torch.tensor([[two_class(3.0)]], dtype=torch.float64)
    p = 1 / (1 + math.exp(-3.0))
    assert float(closeness(logits, torch.tensor([1]))[0]) == pytest.approx((1 - p) / 0.2)
    certain = torch.tensor([[two_class(60.0)]], dtype=torch.float64)
    assert float(closeness(certain, torch.tensor([1]))[0]) == pytest.approx(0)


def test_patience_reads_the_least_sure_of_the_exits_that_agreed() -> None:
    closeness = closeness_for(PatienceExit(2))
    strengths = [0.1, -4.0, -2.0, -3.0, 0.0]
    logits = torch.tensor([[two_class(s) for s in strengths]], dtype=torch.float64)
    # Left at 4 because 2, 3 and 4 agree; exit 1 (margin near 0) took no part.
    margin = math.tanh(2.0 / 2)
    assert float(closeness(logits, torch.tensor([4]))[0]) == pytest.approx(1 - margin)


def test_voting_reads_all_executed_exits_and_no_others() -> None:
    closeness = closeness_for(VotingExit(1.2))
    logits = torch.tensor([[two_class(1.0), two_class(2.0), two_class(0.0)]], dtype=torch.float64)
    expected = 1 - (math.tanh(0.5) + math.tanh(1.0)) / 2
    assert float(closeness(logits, torch.tensor([2]))[0]) == pytest.approx(expected)


@pytest.mark.parametrize(
    "criterion",
    [ThresholdExit(ENTROPY, 0.3), ThresholdExit(ENTROPY, 0.0), PatienceExit(1), VotingExit(1.5)],
    ids=["entropy", "entropy 0", "patience", "voting"],
)
@pytest.mark.parametrize("classes", [2, 5])
def test_closeness_lies_in_zero_one(criterion: object, classes: int) -> None:
    logits = torch.randn(200, 6, classes) * torch.logspace(-2, 2, 200)[:, None, None]
    layers = torch.randint(1, 7, (200,))
    values = closeness_for(criterion)(logits, layers)  # type: ignore[arg-type]
    assert values.shape == (200,)
    assert bool(((values >= 0) & (values < 1)).all())


@given(
    shallow=st.integers(1, 3),
    thousandths=st.tuples(st.integers(0, 999), st.integers(0, 999)),
    deeper=st.integers(1, 2),
)
def test_a_deeper_exit_always_wins_and_equal_ones_are_told_apart(
    shallow: int, thousandths: tuple[int, int], deeper: int
) -> None:
    goal = GOAL
    near, far = (value / 1000 for value in thousandths)
    low = goal._get_score(Outcome(shallow, 0, near, (1.0, 0.0)), None)
    high = goal._get_score(Outcome(shallow + deeper, 0, far, (1.0, 0.0)), None)
    assert low < high
    same = goal._get_score(Outcome(shallow, 0, far, (1.0, 0.0)), None)
    assert (near < far) == (low < same)


GOAL = Slowdown(victim_for(layers=5))


def test_the_goal_is_the_last_layer_and_nothing_less() -> None:
    assert GOAL._is_goal_complete(Outcome(5, 0, 0.0, (1.0, 0.0)), None)
    assert not GOAL._is_goal_complete(Outcome(4, 0, 0.999, (1.0, 0.0)), None)
    assert GOAL._get_score(Outcome(5, 0, 0.0, (1.0, 0.0)), None) == 1
