"""The default exit: the most saving setting within the tolerance, checked by brute force."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import entropy

from eexit_cli.core.types import Decision
from eexit_cli.families.encoder.exits import criterion_from
from eexit_cli.training.selection import candidates_for, choose_exit


def _trace(seed: int, samples: int = 120, exits: int = 5) -> tuple[torch.Tensor, torch.Tensor]:
    """Logits that get better and surer with depth."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(2, (samples,), generator=generator)
    signal = torch.linspace(0.5, 3.0, exits)
    right = torch.nn.functional.one_hot(labels, 2).unsqueeze(1) * signal[None, :, None]
    noise = torch.randn(samples, exits, 2, generator=generator)
    return (right + noise).double(), labels


def _choose(family: str, logits: torch.Tensor, labels: torch.Tensor):  # type: ignore[no-untyped-def]
    exits, classes = logits.shape[1:]

    def accuracy(decision: Decision) -> float:
        return float((decision.predictions == labels).double().mean())

    return choose_exit(
        logits,
        candidates_for(family, num_exits=exits, num_classes=classes),
        lambda chosen: criterion_from(chosen, num_layers=exits, num_classes=classes),
        accuracy,
    )


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 5000))
def test_entropy_is_the_last_threshold_before_half_a_point_is_lost(seed: int) -> None:
    logits, labels = _trace(seed)
    choice = _choose("deebert", logits, labels)
    values = entropy(torch.softmax(logits, dim=-1).numpy(), axis=-1)
    answers = logits.argmax(-1).numpy()

    def by_hand(threshold: float) -> tuple[float, float]:
        hits, depth = 0, 0
        for row in range(len(values)):
            layer = next((i for i in range(4) if values[row, i] < threshold), 4)
            hits += answers[row, layer] == int(labels[row])
            depth += layer + 1
        return hits / len(values), depth / len(values)

    full = float(np.mean(answers[:, -1] == labels.numpy()))
    accuracy, depth = by_hand(choice.settings["threshold"])
    assert (choice.full, choice.quality) == (pytest.approx(full), pytest.approx(accuracy))
    assert choice.mean_exit_layer == pytest.approx(depth)
    grid = [math.floor(math.log(2) * step / 200 * 1e4) / 1e4 for step in range(201)]
    chosen = grid.index(choice.settings["threshold"])
    assert all(by_hand(value)[0] >= full - 0.005 - 1e-9 for value in grid[: chosen + 1])
    assert chosen == 200 or by_hand(grid[chosen + 1])[0] < full - 0.005


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 5000))
def test_patience_is_the_last_before_two_points_are_lost(seed: int) -> None:
    logits, labels = _trace(seed)
    choice = _choose("pabee", logits, labels)
    answers = logits.argmax(-1).numpy()

    def by_hand(patience: int) -> float:
        hits = 0
        for row in range(len(answers)):
            count, layer = 0, 4
            for index in range(1, 5):
                count = count + 1 if answers[row, index] == answers[row, index - 1] else 0
                if count >= patience:
                    layer = index
                    break
            hits += answers[row, layer] == int(labels[row])
        return hits / len(answers)

    full = float(np.mean(answers[:, -1] == labels.numpy()))
    fitting = 4
    while fitting > 1 and by_hand(fitting - 1) >= full - 0.02 - 1e-9:
        fitting -= 1
    assert choice.settings == {"criterion": "patience", "patience": fitting}
    assert choice.quality == pytest.approx(by_hand(fitting))


def test_exits_that_only_hurt_leave_the_full_model() -> None:
    labels = torch.tensor([0, 1] * 50)
    wrong = torch.nn.functional.one_hot(1 - labels, 2).double() * 50
    right = torch.nn.functional.one_hot(labels, 2).double() * 50
    logits = torch.stack([wrong, wrong, wrong, right], dim=1)
    deebert = _choose("deebert", logits, labels)
    assert deebert.settings["threshold"] == 0
    assert (deebert.quality, deebert.mean_exit_layer) == (1.0, 4.0)
    pabee = _choose("pabee", logits, labels)
    assert pabee.mean_exit_layer == 4.0
    assert pabee.quality == 1.0


def test_one_output_takes_patience_in_either_family() -> None:
    for family in ("deebert", "pabee"):
        found = candidates_for(family, num_exits=6, num_classes=1)
        assert [item["patience"] for item in found.settings] == [1, 2, 3, 4, 5, 0]
