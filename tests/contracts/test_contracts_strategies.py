"""Every training strategy, of encoders and of decoders: what trains, and on what."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from eexit_cli.config.field import option_of
from eexit_cli.config.train import TrainConfig
from eexit_cli.core.errors import UsageError
from eexit_cli.core.option import DECODERS, flag
from eexit_cli.models.encoder.model import MultiExitClassifier, MultiExitConfig
from eexit_cli.training import (
    DECODER_STRATEGIES,
    EVERY_STRATEGY,
    FAMILY_STRATEGIES,
    STRATEGIES,
)
from eexit_cli.training.decoder_strategies import DecoderObjective, DecoderStrategy, Recipe
from eexit_cli.training.strategies import ExitsObjective, Strategy

LAYERS = 4
BACKBONE = {
    "model_type": "bert",
    "hidden_size": 16,
    "num_hidden_layers": LAYERS,
    "num_attention_heads": 2,
    "intermediate_size": 32,
    "vocab_size": 30,
    "max_position_embeddings": 16,
}
STAGES = [
    pytest.param(name, number, id=f"{name}-{stage.name}")
    for name in STRATEGIES
    for number, stage in enumerate(STRATEGIES.load(name).stages)
]


def classifier(family: str) -> MultiExitClassifier:
    torch.manual_seed(0)
    model = MultiExitClassifier(MultiExitConfig(backbone=BACKBONE, family=family, num_labels=3))
    return model.eval()


def batch(seed: int = 0) -> tuple[Tensor, Tensor]:
    """Logits and labels. Shapes: [5, layers, 3], [5]."""
    chance = torch.Generator().manual_seed(seed)
    logits = torch.randn(5, LAYERS, 3, generator=chance, dtype=torch.float64)
    return logits, torch.randint(0, 3, (5,), generator=chance)


@pytest.mark.parametrize("name", EVERY_STRATEGY)
def test_a_strategy_says_what_it_is(name: str) -> None:
    strategy = EVERY_STRATEGY.load(name)
    assert strategy.name == name
    assert strategy.source
    parts = strategy.stages if name in STRATEGIES else (strategy,)
    assert all(part.name for part in parts)
    assert (name in STRATEGIES) != (name in DECODER_STRATEGIES)


def test_every_family_of_encoders_has_a_strategy() -> None:
    assert set(FAMILY_STRATEGIES.values()) <= set(STRATEGIES)


@pytest.mark.parametrize("family", FAMILY_STRATEGIES)
@pytest.mark.parametrize("name", STRATEGIES)
def test_whatever_answers_trains_in_some_stage(name: str, family: str) -> None:
    model = classifier(family)
    shared = model.config.shared_pooler
    strategy: Strategy = STRATEGIES.load(name)
    trained = set()
    assert len({stage.name for stage in strategy.stages}) == len(strategy.stages)
    for stage in strategy.stages:
        ExitsObjective(stage, model, shared_pooler=shared).apply()
        moving = {key: each for key, each in model.named_parameters() if each.requires_grad}
        assert moving
        trained |= moving.keys()
        for key, _ in model.named_parameters():
            steps = {
                stage.moves_at(step, key, num_exits=LAYERS, shared_pooler=shared)
                for step in range(1, 5)
            }
            # What ever moves is trained, and what is trained moves at some step.
            assert (True in steps) == (key in moving), key
    assert trained == {
        key for key, _ in model.named_parameters() if not key.startswith("last_ramp")
    }


@pytest.mark.parametrize(("name", "number"), STAGES)
@pytest.mark.parametrize("step", [None, 1, 2])
def test_a_loss_falls_with_the_right_answers_and_reaches_only_heads_that_move(
    name: str, number: int, step: int | None
) -> None:
    stage = STRATEGIES.load(name).stages[number]
    logits, labels = batch()
    logits.requires_grad_(True)
    loss = stage.loss_at(step, logits, labels)
    assert loss.shape == ()
    assert loss.item() > 0
    loss.backward()
    assert logits.grad is not None
    right = torch.nn.functional.one_hot(labels, 3)[:, None].expand_as(logits)
    with torch.no_grad():
        assert stage.loss_at(step, logits + right, labels) < loss
        assert stage.loss_at(step, logits - right, labels) > loss
        # The mean of a batch, whatever its order and however often a sample stands in it.
        twice = stage.loss_at(step, logits.repeat(2, 1, 1).flip(0), labels.repeat(2).flip(0))
        torch.testing.assert_close(twice, loss.detach())
    reached = [bool(logits.grad[:, index].abs().sum() > 0) for index in range(LAYERS)]
    moves = [
        stage.moves_at(
            step or 2, f"classifiers.{index}.weight", num_exits=LAYERS, shared_pooler=False
        )
        for index in range(LAYERS)
    ]
    assert reached == moves


@pytest.mark.parametrize(("name", "number"), STAGES)
def test_regression_is_trained_by_the_squared_error(name: str, number: int) -> None:
    stage = STRATEGIES.load(name).stages[number]
    values = torch.tensor([0.5, -1.0, 2.0], dtype=torch.float64)
    exact = values[:, None, None].expand(3, LAYERS, 1)
    assert float(stage.loss_at(None, exact, values)) == 0
    off, twice = (float(stage.loss_at(None, exact + by, values)) for by in (0.5, 1.0))
    assert off > 0
    assert twice == pytest.approx(4 * off)


# --- decoders -----------------------------------------------------------------------------------


class Answering:
    """What an objective asks of a decoder, over states that are given."""

    depth = LAYERS
    exit_layers = tuple(range(1, LAYERS + 1))

    def exit_logits(self, state: Tensor) -> Tensor:
        return 1.5 * state

    def layer_logits(self, state: Tensor, layer: int) -> Tensor:
        return self.exit_logits(state)


def built(name: str) -> tuple[Recipe, Callable[[list[Tensor], Tensor], Tensor]]:
    """The recipe with what it needs, without which it is refused, and its loss."""
    strategy: DecoderStrategy = DECODER_STRATEGIES.load(name)
    given = {}
    if strategy.needs is not None:
        option, example = strategy.needs
        with pytest.raises(UsageError) as refused:
            strategy.build({})
        assert str(refused.value.hint) == f"Add {flag(option)} {example}"
        given[option] = 2
    recipe = strategy.build(given)
    objective = recipe.objective(Answering(), name, 10)
    assert isinstance(objective, DecoderObjective)
    return recipe, lambda states, labels: objective.of_states(states, labels)[0]


@pytest.mark.parametrize("name", DECODER_STRATEGIES)
def test_a_decoders_strategy_names_options_of_its_families(name: str) -> None:
    strategy: DecoderStrategy = DECODER_STRATEGIES.load(name)
    fields = {field.name: option_of(field) for field in dataclasses.fields(TrainConfig)}
    for option in strategy.options:
        assert set(fields[option].families) == set(strategy.families or DECODERS)
    others = [each for each in DECODER_STRATEGIES if each != name]
    for other in others:
        assert not set(strategy.options) & set(DECODER_STRATEGIES.load(other).options)


def decoded(seed: int = 0) -> tuple[list[Tensor], Tensor]:
    """States of each layer and labels, the last token of one row padded."""
    chance = torch.Generator().manual_seed(seed)
    states = torch.randn(LAYERS, 2, 3, 6, generator=chance, dtype=torch.float64)
    return list(states), torch.tensor([[3, 1, -100], [2, 4, 1]])


@pytest.mark.parametrize("name", DECODER_STRATEGIES)
def test_a_decoders_loss_trains_its_exits_and_never_padding(name: str) -> None:
    recipe, loss = built(name)
    states, labels = decoded()
    for state in states:
        state.requires_grad_(True)
    found = loss(states, labels)
    assert found.shape == ()
    assert found.item() > 0
    found.backward()
    reached = [state.grad is not None and bool(state.grad.any()) for state in states]
    # Exits of their own learn from the last layer, which is a constant; the others train it too.
    assert reached[-1] is not recipe.own_exits
    assert all(reached[:-1]) or not recipe.own_exits
    for state in states:
        assert state.grad is None or not state.grad[0, 2].any()
    with torch.no_grad():
        moved = [state.clone() for state in states]
        for state in moved:
            state[0, 2] += 5
        torch.testing.assert_close(loss(moved, labels), found.detach())


@pytest.mark.parametrize("name", DECODER_STRATEGIES)
def test_a_decoders_loss_falls_with_the_right_tokens(name: str) -> None:
    recipe, loss = built(name)
    states, labels = decoded()
    right = torch.nn.functional.one_hot(labels.clamp_min(0), 6) * (labels != -100)[..., None]
    if recipe.own_exits:  # right is what the full model says
        away = [state - states[-1] for state in states]
        made = [[states[-1] + by * each for each in away] for by in (2, 1, 0)]
        assert float(loss(made[-1], labels)) == pytest.approx(0, abs=1e-6)
    else:
        made = [[state + by * right for state in states] for by in (-1, 0, 1)]
    found = [float(loss(each, labels)) for each in made]
    assert found == sorted(found, reverse=True)
    assert found[0] > found[1] > found[2]
