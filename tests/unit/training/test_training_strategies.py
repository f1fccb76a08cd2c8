"""Which parameters each stage trains, and which loss each step minimises."""

from __future__ import annotations

import pytest
import torch

from eexit_cli.core.errors import UsageError
from eexit_cli.models.encoder.model import MultiExitClassifier, MultiExitConfig
from eexit_cli.training import FAMILY_STRATEGIES, STRATEGIES
from eexit_cli.training.losses import final_loss, joint_loss
from eexit_cli.training.strategies import ALTERNATING, TWO_STAGE, ExitsObjective, Strategy

BACKBONE = {
    "model_type": "bert",
    "hidden_size": 16,
    "num_hidden_layers": 3,
    "num_attention_heads": 2,
    "intermediate_size": 32,
    "vocab_size": 30,
    "max_position_embeddings": 16,
}


def _model(family: str, **settings: object) -> MultiExitClassifier:
    return MultiExitClassifier(MultiExitConfig(backbone=BACKBONE, family=family, **settings))


def _trained(model: MultiExitClassifier, strategy: Strategy, stage: int) -> set[str]:
    """The parts that train, as ``part`` or ``part.index``."""
    shared = model.config.shared_pooler
    ExitsObjective(strategy.stages[stage], model, shared_pooler=shared).apply()
    parts = set()
    for name, parameter in model.named_parameters():
        part, rest = name.split(".", 1)
        index = rest.split(".")[0]
        if parameter.requires_grad:
            parts.add(part if part in ("backbone", "last_ramp") else f"{part}.{index}")
    return parts


def test_deebert_trains_the_last_exit_and_then_the_ramps() -> None:
    model = _model("deebert")
    assert _trained(model, TWO_STAGE, 0) == {"backbone", "poolers.2", "classifiers.2"}
    assert _trained(model, TWO_STAGE, 1) == {
        "poolers.0",
        "poolers.1",
        "classifiers.0",
        "classifiers.1",
    }


def test_two_stage_with_a_shared_pooler_freezes_it_in_the_second() -> None:
    model = _model("pabee")
    assert _trained(model, TWO_STAGE, 0) == {"backbone", "poolers.0", "classifiers.2"}
    assert _trained(model, TWO_STAGE, 1) == {"classifiers.0", "classifiers.1"}


@pytest.mark.parametrize("family", ["deebert", "pabee"])
@pytest.mark.parametrize("name", ["joint", "alternating", "weighted-joint"])
def test_one_stage_strategies_train_everything(family: str, name: str) -> None:
    model = _model(family)
    strategy = STRATEGIES.load(name)
    assert len(strategy.stages) == 1
    model.requires_grad_(False)
    _trained(model, strategy, 0)
    assert all(weight.requires_grad for weight in model.parameters())


@pytest.mark.parametrize("name", list(STRATEGIES))
def test_the_untrained_ramp_stays_untrained(name: str) -> None:
    model = _model("deebert", untrained_ramp=True)
    for index in range(len(STRATEGIES.load(name).stages)):
        assert "last_ramp" not in _trained(model, STRATEGIES.load(name), index)


def test_alternating_is_odd_last_even_all() -> None:
    stage = ALTERNATING.stages[0]
    logits, labels = torch.randn(4, 3, 2), torch.tensor([0, 1, 1, 0])
    for step in range(1, 7):
        expected = final_loss if step % 2 == 1 else joint_loss
        assert stage.loss_at(step, logits, labels) == expected(logits, labels)
    assert stage.loss_at(None, logits, labels) == joint_loss(logits, labels)
    layout = {"num_exits": 3, "shared_pooler": False}
    moved = {
        name: [stage.moves_at(step, name, **layout) for step in (1, 2)]
        for name in ("backbone.x", "poolers.0.dense.weight", "classifiers.2.bias")
    }
    assert moved == {
        "backbone.x": [True, True],
        "poolers.0.dense.weight": [False, True],
        "classifiers.2.bias": [True, True],
    }
    assert stage.moves_at(1, "poolers.0.dense.weight", num_exits=3, shared_pooler=True)


def test_an_unknown_part_is_a_bug_not_a_guess() -> None:
    with pytest.raises(ValueError, match="adapters"):
        TWO_STAGE.stages[0].trains("adapters.0.weight", num_exits=3, shared_pooler=False)


def test_families_have_their_papers_strategy() -> None:
    assert FAMILY_STRATEGIES == {"deebert": "two-stage", "pabee": "weighted-joint"}
    with pytest.raises(UsageError) as caught:
        STRATEGIES.load("alternatin")
    assert "alternating" in (caught.value.hint or "")
