"""Every measure on decoder tokens and every classifier: range, causality, batches, the full model.

What each of them is stands in the tests of its room, against its definition.
"""

from __future__ import annotations

import json

import pytest
import torch
from tiny_decoders import random_decoder
from torch import Tensor

from eexit_cli.confidence import CLASSIFIERS, DECODER_MEASURES
from eexit_cli.confidence.decoder import build_classifier, build_measure
from eexit_cli.core.decoding import LayerView
from eexit_cli.core.errors import UsageError
from eexit_cli.exits.decay import TokenThreshold
from eexit_cli.models.decoding.settings import DecodeSettings
from eexit_cli.models.t5.model import MultiExitT5

MEASURES = list(DECODER_MEASURES)
ROWS, PLACES, WIDTH = 3, 5, 32


@pytest.fixture(scope="module")
def model() -> MultiExitT5:
    return random_decoder(seed=4).double()


@pytest.fixture(scope="module")
def source() -> tuple[Tensor, Tensor]:
    """Padded ids and their mask. Shape: [5, 8]."""
    chance = torch.Generator().manual_seed(1)
    mask = (torch.arange(8) < torch.tensor([8, 3, 6, 1, 5])[:, None]).long()
    return torch.randint(2, 30, (5, 8), generator=chance) * mask, mask


def settings(model: MultiExitT5, name: str, threshold: float) -> DecodeSettings:
    measure = build_measure(name, model.cm_heads)
    return DecodeSettings(max_new_tokens=10, measure=measure, rule=TokenThreshold(threshold))


def view(position: int, states: Tensor, logits: Tensor) -> LayerView:
    """A token at the second layer. Shapes: [rows, places, d], [rows, places, vocabulary]."""
    return LayerView(
        layer=2,
        position=position,
        rows=None,
        residual=2 * states[:, position],
        previous=states[:, position].flip(-1),
        state=states[:, position],
        logits=logits[:, position],
    )


def confidences(model: MultiExitT5, name: str, states: Tensor, logits: Tensor) -> Tensor:
    """Token by token, as a decoder asks. Shape: [rows, places]."""
    session = build_measure(name, model.cm_heads).session(
        slots=len(states), num_layers=3, max_tokens=states.shape[1], like=states
    )
    places = range(states.shape[1])
    return torch.stack([session.confidence(view(at, states, logits)) for at in places], dim=1)


def drawn(seed: int = 0) -> tuple[Tensor, Tensor]:
    chance = torch.Generator().manual_seed(seed)
    states = torch.randn(ROWS, PLACES, WIDTH, generator=chance, dtype=torch.float64)
    return states, torch.randn(ROWS, PLACES, 30, generator=chance, dtype=torch.float64)


@pytest.mark.parametrize("name", MEASURES)
def test_it_bears_its_name_and_says_what_it_reads(name: str, model: MultiExitT5) -> None:
    measure = build_measure(name, model.cm_heads)
    assert measure.name == name
    assert measure.needs in ("logits", "state", "residuals")
    found = confidences(model, name, *drawn())
    assert found.shape == (ROWS, PLACES)
    assert ((found >= 0) & (found <= 1)).all()
    assert found.unique().numel() > 1


@pytest.mark.parametrize("name", MEASURES)
def test_it_knows_no_later_token_and_no_other_row(name: str, model: MultiExitT5) -> None:
    states, logits = drawn()
    expected = confidences(model, name, states, logits)
    others = drawn(seed=9)
    later = [
        torch.cat([mine[:, :3], new[:, 3:]], dim=1)
        for mine, new in zip((states, logits), others, strict=True)
    ]
    torch.testing.assert_close(confidences(model, name, *later)[:, :3], expected[:, :3])
    for row in range(ROWS):
        alone = confidences(model, name, states[[row]], logits[[row]])
        torch.testing.assert_close(alone, expected[[row]])


@pytest.mark.parametrize("name", MEASURES)
def test_slots_that_stay_keep_what_was_seen(name: str, model: MultiExitT5) -> None:
    states, logits = drawn()
    expected = confidences(model, name, states, logits)
    session = build_measure(name, model.cm_heads).session(
        slots=ROWS, num_layers=3, max_tokens=PLACES, like=states
    )
    for at in range(2):
        session.confidence(view(at, states, logits))
    kept = torch.tensor([2, 0])
    session.compact(kept)
    for at in range(2, PLACES):
        found = session.confidence(view(at, states[kept], logits[kept]))
        torch.testing.assert_close(found, expected[kept, at])


@pytest.mark.parametrize("name", MEASURES)
def test_a_batch_is_its_sources_one_by_one(
    name: str, model: MultiExitT5, source: tuple[Tensor, Tensor]
) -> None:
    ids, mask = source
    layers: set[int] = set()
    for threshold in (0.2, 0.5, 0.8):
        chosen = settings(model, name, threshold)
        for row, sample in enumerate(model.decode(ids, mask, chosen).samples):
            length = int(mask[row].sum())
            (alone,) = model.decode(ids[[row], :length], mask[[row], :length], chosen).samples
            assert (alone.tokens, alone.exit_layers) == (sample.tokens, sample.exit_layers)
            layers.update(sample.exit_layers)
    assert len(layers) > 1


@pytest.mark.parametrize("name", MEASURES)
def test_a_threshold_of_one_is_the_full_model_and_its_description_is_json(
    name: str, model: MultiExitT5, source: tuple[Tensor, Tensor]
) -> None:
    full = model.decode(*source, DecodeSettings(max_new_tokens=10)).samples
    cautious = settings(model, name, 1.0)
    found = model.decode(*source, cautious).samples
    assert [sample.tokens for sample in found] == [sample.tokens for sample in full]
    assert {layer for sample in found for layer in sample.exit_layers} == {model.depth}
    assert cautious.rule is not None
    described = cautious.rule.describe()
    assert json.loads(json.dumps(described)) == described
    assert TokenThreshold(described["threshold"]).describe() == described


@pytest.mark.parametrize("name", CLASSIFIERS)
def test_a_classifier_is_a_measure_and_decides_as_it_was_trained(
    name: str, model: MultiExitT5
) -> None:
    """Token by token, what the network says to all tokens at once."""
    assert name in DECODER_MEASURES
    classifier = model.cm_heads[name]
    assert classifier.name == name
    states, logits = drawn(seed=2)
    with torch.no_grad():
        expected = classifier(states).softmax(dim=-1)
        assert expected.shape == (ROWS, PLACES, 2)
        torch.testing.assert_close(confidences(model, name, states, logits), expected[..., 1])
    # All of its weights learn, whatever the width of the decoder.
    fresh = build_classifier(name, 24).double()
    fresh(torch.randn(2, 4, 24, dtype=torch.float64)).log_softmax(-1)[..., 1].sum().backward()
    assert all(parameter.grad is not None for parameter in fresh.parameters())


@pytest.mark.parametrize("name", CLASSIFIERS)
def test_a_model_without_the_classifier_says_how_to_get_it(name: str) -> None:
    with pytest.raises(UsageError, match=f"'tiny' has no classifier '{name}'") as refused:
        build_measure(name, {}, model="tiny")
    assert f"--confidence {name}" in str(refused.value.hint)
