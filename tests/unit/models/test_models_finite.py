"""Outputs that are NaN or infinite are an error, whichever exit they come from."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from models_tiny import random_batch, random_model

from eexit_cli.core.errors import NotFiniteError
from eexit_cli.exits.patience import PatienceExit
from eexit_cli.models.finite import LOOK_AT, Finite


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("exit_layer", [1, 2, 3])
def test_a_broken_exit_answers_nothing(value: float, exit_layer: int) -> None:
    model = random_model().eval()
    batch = random_batch([9, 7, 5, 3])
    with torch.no_grad():
        model.classifiers[exit_layer - 1].bias[0] = value
    with pytest.raises(NotFiniteError, match="not finite"):
        model(**batch)
    # Live, the exits that run are looked at: with a patience of L all of them.
    with pytest.raises(NotFiniteError):
        model.infer(**batch, criterion=PatienceExit(3))


def test_an_exit_that_is_not_asked_does_no_harm_live() -> None:
    model = random_model().eval()
    batch = random_batch([9, 7, 5, 3])
    with torch.no_grad():
        model.classifiers[0].bias.fill_(math.nan)
    assert model.infer(**batch, criterion=None).exit_layers.tolist() == [3] * 4


def test_training_is_told_by_its_loss() -> None:
    model = random_model().train()
    with torch.no_grad():
        model.classifiers[0].bias.fill_(math.nan)
    assert model(**random_batch([9, 7, 5, 3])).logits.isnan().any()


@pytest.mark.parametrize(
    ("dtype", "said"), [(torch.float16, "--dtype float32"), (torch.float32, "--learning-rate")]
)
def test_the_hint_is_about_the_dtype_or_the_weights(dtype: torch.dtype, said: str) -> None:
    model = random_model(dtype=torch.float32).to(dtype).eval()
    with torch.no_grad():
        model.classifiers[0].bias.fill_(math.nan)
    with pytest.raises(NotFiniteError) as caught:
        model(**random_batch([5, 4]))
    assert said in str(caught.value.hint)


@pytest.mark.parametrize("place", [0, 3, LOOK_AT - 1, LOOK_AT, 2 * LOOK_AT + 5])
def test_what_was_seen_long_ago_counts(place: int) -> None:
    finite: Any = Finite()
    assert finite.all()
    for number in range(2 * LOOK_AT + 9):
        finite.see(torch.tensor([0.0, math.inf if number == place else 1.0]))
    assert not finite.all()
