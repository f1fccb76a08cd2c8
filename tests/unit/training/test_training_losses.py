"""Losses against independent derivations."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import log_loss, mean_squared_error

from eexit_cli.training import losses


def _case(batch: int, exits: int, classes: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    logits = 3 * torch.randn(batch, exits, classes, generator=generator, dtype=torch.float64)
    labels = torch.randint(classes, (batch,), generator=generator)
    return logits, labels


def _by_sklearn(logits: torch.Tensor, labels: torch.Tensor) -> np.ndarray:
    probabilities = torch.softmax(logits, dim=-1).numpy()
    classes = np.arange(logits.shape[-1])
    return np.array(
        [
            log_loss(labels.numpy(), probabilities[:, exit_index], labels=classes)
            for exit_index in range(logits.shape[1])
        ]
    )


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 9), st.integers(2, 7), st.integers(2, 5), st.integers(0, 10_000))
def test_every_loss_is_the_papers_sum(batch: int, exits: int, classes: int, seed: int) -> None:
    logits, labels = _case(batch, exits, classes, seed)
    each = _by_sklearn(logits, labels)
    weights = np.arange(1, exits + 1)
    np.testing.assert_allclose(losses.exit_losses(logits, labels).numpy(), each, atol=1e-10)
    assert float(losses.final_loss(logits, labels)) == pytest.approx(each[-1])
    assert float(losses.ramps_loss(logits, labels)) == pytest.approx(each[:-1].sum())
    assert float(losses.joint_loss(logits, labels)) == pytest.approx(each.sum())
    weighted = (weights * each).sum() / weights.sum()
    assert float(losses.weighted_loss(logits, labels)) == pytest.approx(weighted)


def test_one_output_is_squared_error() -> None:
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(8, 4, 1, generator=generator, dtype=torch.float64)
    labels = 5 * torch.rand(8, generator=generator)
    each = np.array(
        [mean_squared_error(labels.numpy(), logits[:, index, 0].numpy()) for index in range(4)]
    )
    np.testing.assert_allclose(losses.exit_losses(logits, labels).numpy(), each, rtol=1e-6)
    assert float(losses.weighted_loss(logits, labels)) == pytest.approx(
        (each * [1, 2, 3, 4]).sum() / 10, rel=1e-6
    )


@pytest.mark.parametrize(
    ("loss", "reaches"),
    [
        (losses.final_loss, [False, False, True]),
        (losses.ramps_loss, [True, True, False]),
        (losses.joint_loss, [True, True, True]),
        (losses.weighted_loss, [True, True, True]),
    ],
)
def test_gradients_reach_the_exits_that_the_loss_names(
    loss: losses.ExitLoss, reaches: list[bool]
) -> None:
    logits, labels = _case(4, 3, 2, seed=1)
    logits.requires_grad_(True)
    loss(logits, labels).backward()
    assert logits.grad is not None
    assert [bool(part.abs().sum() > 0) for part in logits.grad.unbind(dim=1)] == reaches
