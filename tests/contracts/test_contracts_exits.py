"""Every exit criterion of the catalog: what it says of itself, and that live is the replay."""

from __future__ import annotations

import json
from dataclasses import fields
from typing import Any

import pytest
import torch
from torch import Tensor

from eexit_cli.confidence import MEASURES
from eexit_cli.config.field import option_of
from eexit_cli.core.criterion import Criterion, Shape
from eexit_cli.core.errors import UsageError
from eexit_cli.core.protocols import ExitCriterion
from eexit_cli.core.stepping import ExitCursor, replay
from eexit_cli.exits import CRITERIA

LAYERS, SAMPLES = 6, 40
NAMES = sorted(CRITERIA)


def shapes(criterion: type[Criterion]) -> list[Shape]:
    """What the criterion is made for: each measure, and regression where it has a meaning."""
    measures = [MEASURES.load(name) for name in MEASURES] if criterion.measured else [None]
    classes = (3,) if criterion.needs_classes else (3, 1)
    return [Shape(LAYERS, count, measure) for count in classes for measure in measures]


CASES = [
    pytest.param(name, shape, id=f"{name}-{shape.num_classes}-{getattr(shape.measure, 'name', '')}")
    for name in NAMES
    for shape in shapes(CRITERIA.load(name))
]


def trace(classes: int, seed: int = 0) -> Tensor:
    """Logits that grow surer from layer to layer. Shape: [samples, layers, classes]."""
    chance = torch.Generator().manual_seed(seed)
    logits = torch.randn(SAMPLES, LAYERS, classes, generator=chance, dtype=torch.float64)
    return (logits * torch.linspace(0.3, 3, LAYERS)[:, None]).round(decimals=2)


def alone(logits: Tensor, criterion: ExitCriterion) -> tuple[int, Tensor]:
    """One sample through the steps, as the docstring of a step says it. Shape: [layers, K]."""
    state: dict[str, Tensor] = {}
    for layer in range(1, LAYERS + 1):
        row = logits[None, layer - 1]
        if bool(criterion.step(layer, row, state)[0]) or layer == LAYERS:
            return layer, state.get("answer", row)[0]
    raise AssertionError("unreachable")


@pytest.mark.parametrize("name", NAMES)
def test_a_criterion_says_what_the_house_asks(name: str) -> None:
    criterion = CRITERIA.load(name)
    assert issubclass(criterion, Criterion)
    assert criterion.name == name
    options = {field.name: field for field in fields(criterion.options)}
    assert criterion.option in options
    assert criterion.option_names() == tuple(options)
    for field in options.values():
        assert field.default is None
        assert option_of(field).help.endswith(".")


@pytest.mark.parametrize(("name", "shape"), CASES)
def test_a_description_is_json_and_builds_the_same_again(name: str, shape: Shape) -> None:
    criterion = CRITERIA.load(name)
    logits = trace(shape.num_classes)
    assert criterion.grid(shape)
    for settings in criterion.grid(shape):
        built = criterion.build(settings, shape)
        assert isinstance(built, ExitCriterion)
        described = built.describe()
        assert json.loads(json.dumps(described)) == described
        assert described["criterion"] == name
        assert set(described) - {"criterion"} <= {
            *criterion.option_names(),
            *criterion.also_described,
        }
        # What was asked for is what it says of itself.
        assert settings.items() <= described.items()
        again = criterion.build(described, shape)
        assert again.describe() == described
        assert criterion.words(described) == criterion.words(again.describe()) != ""
        first, second = replay(logits, built), replay(logits, again)
        assert torch.equal(first.exit_layers, second.exit_layers)
        assert torch.equal(first.logits, second.logits)


@pytest.mark.parametrize(("name", "shape"), CASES)
def test_live_is_the_replay_and_a_batch_its_samples_one_by_one(name: str, shape: Shape) -> None:
    """Live: rows that left are gone from the batch, and never seen again."""
    criterion = CRITERIA.load(name)
    logits = trace(shape.num_classes, seed=1)
    seen: set[int] = set()
    for settings in criterion.grid(shape):
        built = criterion.build(settings, shape)
        replayed = replay(logits, built)
        expected = [alone(sample, built) for sample in logits]
        assert replayed.exit_layers.tolist() == [layer for layer, _ in expected]
        assert torch.equal(replayed.logits, torch.stack([answer for _, answer in expected]))
        cursor, running = ExitCursor(built, LAYERS), torch.arange(SAMPLES)
        for layer in range(1, LAYERS + 1):
            keep = cursor.advance(layer, logits[running, layer - 1])
            running = running if keep is None else running[keep]
            assert torch.equal(cursor.rows, running)
            if not len(running):
                break
        live = cursor.decision()
        assert torch.equal(live.exit_layers, replayed.exit_layers)
        assert torch.equal(live.logits, replayed.logits)
        seen.update(replayed.exit_layers.tolist())
    assert len(seen) > 1, "no setting of the grid told samples or settings apart"


@pytest.mark.parametrize(("name", "shape"), CASES)
def test_a_scale_goes_from_the_full_model_to_the_eager_end(name: str, shape: Shape) -> None:
    criterion = CRITERIA.load(name)
    scale = criterion.scale(shape)
    assert (scale is not None) == criterion.can_be_calibrated()
    if scale is None:
        return
    low, high = scale.bounds
    assert scale.values[0] == scale.full
    assert list(scale.values) == sorted(set(scale.values), reverse=scale.descends)
    assert all(low <= value <= high for value in (*scale.values, scale.eager))
    assert scale.knob.islower()
    if scale.whole:
        assert all(value == int(value) for value in scale.values)
    measure = None if shape.measure is None else shape.measure.name
    logits, before = trace(shape.num_classes, seed=2), None
    for value in scale.values:
        built = criterion.build(criterion.at(value, measure=measure), shape)
        layers = replay(logits, built).exit_layers
        if before is None:
            assert layers.tolist() == [LAYERS] * SAMPLES
        else:
            assert (layers <= before).all()
        before = layers
    if scale.alias is not None:
        built = criterion.build(criterion.at(scale.alias, measure=measure), shape)
        assert replay(logits, built).exit_layers.tolist() == [LAYERS] * SAMPLES


@pytest.mark.parametrize(("name", "shape"), CASES)
def test_closeness_is_a_share_and_never_a_surprise(name: str, shape: Shape) -> None:
    criterion = CRITERIA.load(name)
    if not criterion.reads_input or shape.num_classes == 1:
        return
    logits = trace(shape.num_classes, seed=3)
    for settings in criterion.grid(shape)[1:]:
        built = criterion.build(settings, shape)
        layers = replay(logits, built).exit_layers
        early = layers < LAYERS
        values = built.closeness(logits[early], layers[early])
        assert values.shape == (int(early.sum()),)
        assert ((values >= 0) & (values <= 1)).all()
        # Exits behind the one that fired were not executed, and say nothing.
        other = logits.clone()
        for row, layer in enumerate(layers.tolist()):
            other[row, layer:] = 7 * torch.arange(shape.num_classes)
        assert torch.equal(built.closeness(other[early], layers[early]), values)


BAD: tuple[Any, ...] = (-1, float("nan"), float("inf"), -0.5)


@pytest.mark.parametrize(("name", "shape"), CASES)
def test_a_setting_that_means_nothing_is_refused_with_a_hint(name: str, shape: Shape) -> None:
    criterion = CRITERIA.load(name)
    measure = None if shape.measure is None else shape.measure.name
    whole = all(
        isinstance(settings.get(criterion.option), int) for settings in criterion.grid(shape)
    )
    for value in BAD[:1] if whole else BAD:
        settings = {**criterion.grid(shape)[0], **criterion.at(0, measure=measure)}
        settings = {**settings, criterion.option: value}
        with pytest.raises(UsageError) as refused:
            criterion.build(settings, shape)
        assert refused.value.hint
