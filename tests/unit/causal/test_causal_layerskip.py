"""LayerSkip's recipe: weights and rates by the paper's formulas, and layers that are passed by."""

from __future__ import annotations

import itertools
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from causal_tiny import LAYERS, prompts, tiny
from hypothesis import given
from hypothesis import strategies as st

from eexit_cli.core.errors import UsageError
from eexit_cli.training.layerskip import LayerSkip, LayerSkipObjective, weighted_sum

DEPTH, STEPS = 6, 24


def formula(scale: float, kept: set[int], depth: int) -> list[float]:
    """Equation 5 and 6 of the paper, layers from 0."""
    e = [scale * sum(range(layer + 1)) for layer in range(depth - 1)]
    e.append(depth - 1 + scale * sum(range(depth - 1)))
    counted = [value if layer in kept else 0.0 for layer, value in enumerate(e)]
    return [value / sum(counted) for value in counted]


def test_weights_are_the_papers() -> None:
    every = set(range(DEPTH))
    plain = LayerSkip(early_exit_scale=0.4, curriculum="none").weights(DEPTH, 3, STEPS)
    assert plain == pytest.approx(formula(0.4, every, DEPTH))
    for step in range(8):
        rotating = LayerSkip(curriculum="rotating", curriculum_interval=3)
        kept = {layer for layer in range(DEPTH) if layer % 3 == step % 3} | {DEPTH - 1}
        assert rotating.weights(DEPTH, step, STEPS) == pytest.approx(formula(1.0, kept, DEPTH))


def test_the_gradual_curriculum_goes_down_from_the_last_layer() -> None:
    gradual = LayerSkip(curriculum="gradual")
    counted = [
        {layer for layer, weight in enumerate(gradual.weights(DEPTH, step, STEPS)) if weight}
        for step in range(STEPS)
    ]
    assert counted[0] == {DEPTH - 1}
    for before, after in itertools.pairwise(counted):
        assert before <= after
    # One more layer every T / 2L steps: all of them from half of the steps on. The first layer has
    # no weight in the paper's formula.
    assert counted[STEPS // 2] == set(range(1, DEPTH))
    assert counted[STEPS // 2 - 3 * STEPS // (2 * DEPTH)] != counted[-1]


def test_rates_are_the_papers() -> None:
    settings = LayerSkip(layer_dropout=0.2)
    rates = settings.drop_rates(DEPTH, 5, STEPS)
    wanted = [0.2 * (math.exp(layer * math.log(2) / (DEPTH - 1)) - 1) for layer in range(DEPTH)]
    assert rates == pytest.approx(wanted)
    assert rates[0] == 0
    assert rates[-1] == pytest.approx(0.2)
    rising = LayerSkip(layer_dropout=0.2, from_scratch=True)
    assert max(rising.drop_rates(DEPTH, 0, STEPS)) == 0
    assert rising.drop_rates(DEPTH, STEPS - 1, STEPS) == pytest.approx(wanted)


@given(
    scale=st.floats(0, 10),
    interval=st.integers(1, 5),
    curriculum=st.sampled_from(["rotating", "gradual", "none"]),
    depth=st.integers(1, 12),
    step=st.integers(0, 50),
)
def test_weights_sum_to_one_and_the_last_layer_always_counts(
    scale: float, interval: int, curriculum: Any, depth: int, step: int
) -> None:
    settings = LayerSkip(
        early_exit_scale=scale, curriculum=curriculum, curriculum_interval=interval
    )
    weights = settings.weights(depth, step, 51)
    assert sum(weights) == pytest.approx(1)
    assert min(weights) >= 0
    assert weights[-1] == max(weights) > 0


def test_the_loss_is_a_weighted_mean_of_cross_entropies() -> None:
    torch.manual_seed(0)
    states = [torch.randn(2, 3, 4) for _ in range(3)]
    head = torch.nn.Linear(4, 7)
    labels = torch.tensor([[1, 2, -100], [3, -100, -100]])
    found = weighted_sum(states, head, labels, [0.2, 0.0, 0.8])
    total = 0.0
    for state, weight in zip(states, [0.2, 0.0, 0.8], strict=True):
        logs = torch.log_softmax(head(state), -1).detach()
        picked = [logs[0, 0, 1], logs[0, 1, 2], logs[1, 0, 3]]
        total -= weight * float(sum(picked)) / 3
    assert float(found.detach()) == pytest.approx(total, rel=1e-5)


def test_dropped_layers_are_passed_by(tmp_path: Path) -> None:
    ours, _ = tiny(tmp_path, "llama")
    ids, mask = prompts(count=4)
    labels = torch.randint(3, 60, (4, 3))
    batch = {"input_ids": ids, "attention_mask": mask, "labels": labels}
    steps = 10
    sure = LayerSkip(layer_dropout=1 - 1e-12, curriculum="none")
    objective = LayerSkipObjective(ours, "layerskip", sure, steps)
    seen: list[Any] = []
    real = ours.layer_states

    def watched(*args: Any, **kwargs: Any) -> Any:
        seen.append(real(*args, **kwargs))
        return seen[-1]

    ours.layer_states = watched
    run = ours.__call__
    ours.train()
    objective.loss(run, batch, step=5)
    # The last layer's rate is the largest, 1 but for rounding.
    dropped = seen[0].residuals
    torch.testing.assert_close(dropped[LAYERS - 1], dropped[LAYERS - 2])
    assert not torch.equal(dropped[0], dropped[1]) or LAYERS < 3
    ours.eval()
    objective.loss(run, batch, step=None)
    kept = seen[1].residuals
    assert not torch.equal(kept[LAYERS - 1], kept[LAYERS - 2])
    assert not ours.layers[0]._forward_hooks


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"layer_dropout": 1.0}, "--layer-dropout"),
        ({"early_exit_scale": -1.0}, "--early-exit-scale"),
        ({"curriculum": "sometimes"}, "curriculum"),
        ({"curriculum_interval": 0}, "--curriculum-interval"),
    ],
)
def test_settings_that_cannot_be(settings: dict[str, Any], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        LayerSkip(**settings)
