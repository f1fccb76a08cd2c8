"""Plans of steps and refused settings."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from eexit_cli.core.errors import UsageError
from eexit_cli.training.settings import StepPlan, TrainingSettings


def test_a_plan_counts_optimisation_steps() -> None:
    settings = TrainingSettings(
        epochs=3, batch_size=10, gradient_accumulation=4, evaluations_per_epoch=2, warmup_ratio=0.25
    )
    # 95 samples: 10 batches, 3 steps (4 + 4 + 2 batches) an epoch.
    plan = StepPlan.of(settings, 95)
    assert plan.total == 9
    assert plan.warmup == 2
    assert max(plan.evaluations) == 9
    assert plan.evaluations == {2, 3, 4, 6, 8, 9}


def test_processes_share_the_samples() -> None:
    settings = TrainingSettings(epochs=1, batch_size=8)
    assert StepPlan.of(settings, 64).total == 8
    assert StepPlan.of(settings, 64, processes=2).total == 4


@given(
    st.floats(0.01, 5),
    st.integers(1, 300),
    st.integers(1, 16),
    st.integers(1, 4),
    st.integers(1, 9),
)
def test_the_last_step_is_always_validated(
    epochs: float, samples: int, batch: int, accumulation: int, evaluations: int
) -> None:
    settings = TrainingSettings(
        epochs=epochs,
        batch_size=batch,
        gradient_accumulation=accumulation,
        evaluations_per_epoch=evaluations,
    )
    plan = StepPlan.of(settings, samples)
    assert plan.total >= 1
    assert max(plan.evaluations) == plan.total
    assert min(plan.evaluations) >= 1


@pytest.mark.parametrize(
    "wrong",
    [
        {"epochs": 0},
        {"learning_rate": -1e-5},
        {"learning_rate": float("nan")},
        {"batch_size": 0},
        {"gradient_accumulation": 0},
        {"evaluations_per_epoch": 0},
        {"warmup_ratio": 1.0},
        {"weight_decay": -0.1},
        {"dtype": "int8"},
    ],
)
def test_settings_outside_their_range_are_refused_by_name(wrong: dict[str, float]) -> None:
    with pytest.raises(UsageError) as caught:
        TrainingSettings(**wrong)  # type: ignore[arg-type]
    assert next(iter(wrong)).replace("_", "-") in caught.value.message
