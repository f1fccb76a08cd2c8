"""SAME's loss against its formula, derived once more in plain Python."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from eexit_cli.attacks.slowdown_loss import exit_weights, flip_targets, slowdown_loss


def by_hand(rows: list[list[float]], exit_layer: int, lam: float) -> float:
    """The formula of the paper for one input, number by number."""
    total, previous = 0.0, None
    for number, z in enumerate(rows, start=1):
        log_sum = math.log(sum(math.exp(value - max(z)) for value in z)) + max(z)
        best = max(range(len(z)), key=lambda k: z[k])
        second = max((k for k in range(len(z)) if k != best), key=lambda k: z[k])
        target = best if previous is None or best != previous else second
        previous = best
        to_target = log_sum - z[target]
        to_uniform = sum((log_sum - value) / len(z) for value in z)
        weight = 0.1 if number < exit_layer else 1.2 ** (number - exit_layer)
        total += weight * (lam * to_target + (1 - lam) * to_uniform)
    return total / len(rows)


@st.composite
def inputs(draw: st.DrawFn) -> tuple[list[list[float]], int, float]:
    exits, classes = draw(st.integers(1, 7)), draw(st.integers(2, 5))
    # Distinct values, so that best and second best are the same in every implementation.
    rows = [
        draw(st.lists(st.integers(-4000, 4000), min_size=classes, max_size=classes, unique=True))
        for _ in range(exits)
    ]
    logits = [[value / 500 for value in row] for row in rows]
    return logits, draw(st.integers(1, exits)), draw(st.floats(0, 1))


@given(inputs())
@settings(max_examples=150, deadline=None)
def test_loss_is_the_papers_formula(case: tuple[list[list[float]], int, float]) -> None:
    rows, exit_layer, lam = case
    loss = slowdown_loss(
        torch.tensor([rows], dtype=torch.float64), torch.tensor([exit_layer]), lam=lam
    )
    assert loss.shape == (1,)
    assert float(loss[0]) == pytest.approx(by_hand(rows, exit_layer, lam), rel=1e-9, abs=1e-9)


def test_rows_of_a_batch_do_not_meet() -> None:
    logits = torch.randn(3, 5, 4, dtype=torch.float64)
    layers = torch.tensor([1, 3, 5])
    together = slowdown_loss(logits, layers, lam=0.8)
    alone = [slowdown_loss(logits[i : i + 1], layers[i : i + 1], lam=0.8)[0] for i in range(3)]
    assert torch.allclose(together, torch.stack(alone))


def test_weights_grow_from_the_current_exit_on() -> None:
    weights = exit_weights(torch.tensor([3]), 5)[0].tolist()
    assert weights == pytest.approx([0.1, 0.1, 1.0, 1.2, 1.44])


def test_targets_flip_only_where_neighbours_agree() -> None:
    #        predictions: 0, 0, 1, 1 ; second best: 1, 2, 0, 2
    logits = torch.tensor([[[3.0, 2, 1], [3, 1, 2], [2, 3, 1], [1, 3, 2]]])
    assert flip_targets(logits).tolist() == [[0, 2, 1, 2]]


def test_lam_one_and_zero_are_the_two_terms() -> None:
    logits = torch.randn(2, 4, 3, dtype=torch.float64)
    layers = torch.tensor([2, 2])
    both = slowdown_loss(logits, layers, lam=0.25)
    ends = [slowdown_loss(logits, layers, lam=lam) for lam in (0.0, 1.0)]
    assert torch.allclose(both, 0.75 * ends[0] + 0.25 * ends[1])
