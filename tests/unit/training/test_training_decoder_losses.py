"""Losses over a decoder's layers, against second derivations with plain loops."""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_decoders import random_decoder
from torch import Tensor
from transformers import T5Config, T5ForConditionalGeneration

from eexit_cli.core.errors import UsageError
from eexit_cli.training.decoder_strategies import (
    FREE,
    WEIGHTED,
    ClassifiersObjective,
)
from eexit_cli.training.losses import (
    agreement_loss,
    last_cross_entropy,
    layer_distillation,
    shallow_deep_cross_entropy,
    teacher_layers,
    weighted_cross_entropy,
)

LABELS = torch.tensor([[3, 1, -100], [2, 4, 1]])


def _states(layers: int = 4, seed: int = 0) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(2, 3, 5, generator=generator, dtype=torch.float64) for _ in range(layers)]


def _head(state: Tensor) -> Tensor:
    return state * 1.5


def _entropy_by_hand(logits: Tensor) -> float:
    """Mean of -log softmax at the target over what is not padding, number by number."""
    losses = []
    for row in range(2):
        for place in range(3):
            target = int(LABELS[row, place])
            if target != -100:
                scores = [math.exp(float(value)) for value in logits[row, place]]
                losses.append(-math.log(scores[target] / sum(scores)))
    return sum(losses) / len(losses)


def test_weighted_cross_entropy_counts_later_layers_more() -> None:
    states = _states()
    each = [_entropy_by_hand(_head(state)) for state in states]
    expected = (1 * each[0] + 2 * each[1] + 3 * each[2] + 4 * each[3]) / 10
    assert float(weighted_cross_entropy(states, _head, LABELS)) == pytest.approx(expected)
    assert float(last_cross_entropy(states, _head, LABELS)) == pytest.approx(each[3])


@pytest.mark.parametrize("shallow", [1, 3])
def test_free_trains_two_exits(shallow: int) -> None:
    states = _states()
    early, late = (_entropy_by_hand(_head(states[index])) for index in (shallow - 1, 3))
    expected = (shallow * early + 4 * late) / (shallow + 4)
    found = shallow_deep_cross_entropy(states, _head, LABELS, shallow=shallow)
    assert float(found) == pytest.approx(expected)


def test_teachers_are_those_of_the_public_code_where_it_has_any() -> None:
    published = {
        (24, 12): [1, 3, 5, 7, 9, 11, 13, 15, 17, 19, 21, 23],
        (24, 8): [2, 5, 8, 11, 14, 17, 20, 23],
        (24, 6): [3, 7, 11, 15, 19, 23],
        (24, 4): [5, 11, 17, 23],
        (12, 3): [3, 7, 11],
    }
    for (depth, shallow), from_zero in published.items():
        assert teacher_layers(depth, shallow) == [layer + 1 for layer in from_zero]


@given(depth=st.integers(2, 40), data=st.data())
def test_teachers_exist_for_any_depth(depth: int, data: st.DataObject) -> None:
    shallow = data.draw(st.integers(1, depth - 1))
    teachers = teacher_layers(depth, shallow)
    assert teachers[-1] == depth
    assert all(before < after for before, after in pairwise(teachers))
    assert all(teacher >= student for student, teacher in enumerate(teachers, start=1))


def _distance(one: Tensor, other: Tensor) -> float:
    kept = [(0, 0), (0, 1), (1, 0), (1, 1), (1, 2)]
    squares = [(one[at] - other[at]).square().mean() for at in kept]
    return float(sum(squares)) / len(squares)


def test_uniform_and_last_distillation() -> None:
    states = _states(6)
    uniform = layer_distillation(states, LABELS, shallow=3, mapping="uniform")
    pairs = [(0, 1), (1, 3), (2, 5)]
    expected = sum(_distance(states[a], states[b]) for a, b in pairs) / 3
    assert float(uniform) == pytest.approx(expected)
    last = layer_distillation(states, LABELS, shallow=3, mapping="last")
    assert float(last) == pytest.approx(_distance(states[2], states[5]))
    assert float(layer_distillation(states, LABELS, shallow=3, mapping="none")) == 0


@settings(deadline=None, max_examples=30)
@given(seed=st.integers(0, 10_000))
def test_dynamic_distillation_follows_the_closest_layer_in_order(seed: int) -> None:
    states = _states(6, seed)
    found = layer_distillation(states, LABELS, shallow=3, mapping="dynamic")
    # From the deepest teacher on: the closest student below the last one that was chosen.
    bound, total = 3, 0.0
    for teacher in (5, 3, 1):
        candidates = [(_distance(states[s], states[teacher]), s) for s in range(bound)]
        if candidates:
            distance, bound = min(candidates)
        else:
            distance = _distance(states[bound], states[teacher])
        total += distance
    assert float(found) == pytest.approx(total / 3)


def test_distillation_moves_the_shallow_layers_alone() -> None:
    states = [state.requires_grad_() for state in _states(4)]
    layer_distillation(states, LABELS, shallow=2, mapping="dynamic").backward()
    assert states[0].grad is not None or states[1].grad is not None
    assert states[2].grad is None
    assert states[3].grad is None


def test_agreement_loss_is_balanced() -> None:
    generator = torch.Generator().manual_seed(1)
    logits = [torch.randn(2, 3, 2, generator=generator) for _ in range(2)]
    agreement = torch.tensor(
        [[[1, 1, 1], [0, 1, 1], [0, 0, 1]], [[0, 1, 1], [1, 1, 1], [0, 1, 1]]], dtype=torch.bool
    )
    mask = LABELS != -100
    wanted, given_logits = [], []
    for layer in (0, 1):
        for row in range(2):
            for place in range(3):
                if LABELS[row, place] != -100:
                    wanted.append(int(agreement[row, place, layer]))
                    given_logits.append(logits[layer][row, place].tolist())
    yes = sum(wanted) / len(wanted)
    losses = []
    for (no_logit, yes_logit), target in zip(given_logits, wanted, strict=True):
        scores = ((1 - yes) * math.exp(no_logit), yes * math.exp(yes_logit))
        losses.append(-math.log(scores[target] / sum(scores)))
    found = agreement_loss(logits, agreement, mask)
    assert float(found) == pytest.approx(sum(losses) / len(losses), rel=1e-5)


def test_an_absent_class_is_no_nan() -> None:
    logits = [torch.randn(2, 3, 2, requires_grad=True)]
    loss = agreement_loss(logits, torch.ones(2, 3, 2, dtype=torch.bool), LABELS != -100)
    loss.backward()
    assert float(loss.detach()) == 0
    assert torch.isfinite(logits[0].grad).all()  # type: ignore[arg-type]


def test_labels_are_aligned_with_their_layers() -> None:
    """Agreement at layer i: i blocks of transformers' own T5, its final norm, its head."""
    model = random_decoder(3, classifiers=("linear",), num_decoder_layers=4)
    source = torch.tensor([[5, 8, 9, 1], [7, 6, 1, 0]])
    mask = (source != 0).long()
    labels = torch.tensor([[40, 41, 42, 1], [50, 1, -100, -100]])
    with torch.no_grad():
        layers = model(source, mask, model.shift_right(labels), per_layer=True)
        _, measure = ClassifiersObjective(model, ("linear",)).of_states(layers.states, labels)
    agreement = measure()[1].long()
    answers = []
    for depth in range(1, 5):
        config = T5Config(
            **{**_plain(model.config), "num_decoder_layers": depth, "tie_word_embeddings": True}
        )
        shallow = T5ForConditionalGeneration(config).eval()
        shallow.load_state_dict(
            {
                name: value
                for name, value in model.state_dict().items()
                if name in shallow.state_dict()
            },
            strict=True,
        )
        with torch.no_grad():
            logits = shallow(input_ids=source, attention_mask=mask, labels=labels).logits
        answers.append(logits.argmax(dim=-1))
    for layer in range(3):
        expected = torch.where(labels == -100, -100, (answers[layer] == answers[3]).long())
        assert torch.equal(agreement[..., layer], expected)
    assert 0 in agreement[..., 0]


def _plain(config: T5Config) -> dict[str, object]:
    names = (
        "vocab_size d_model d_kv d_ff num_layers num_heads relative_attention_num_buckets "
        "relative_attention_max_distance feed_forward_proj pad_token_id eos_token_id "
        "decoder_start_token_id"
    )
    return {name: getattr(config, name) for name in names.split()}


def test_ranking_counts_pairs() -> None:
    generator = torch.Generator().manual_seed(5)
    margins = torch.randn(3, 4, 1, 2, generator=generator)
    wanted = torch.randint(0, 2, (3, 4, 2), generator=generator).to(torch.int8)
    wanted[1, 2:] = -100
    found = ClassifiersObjective(None, ("mlp",)).metrics(
        (margins.numpy(), wanted.numpy()), np.empty(0)
    )
    for layer in (0, 1):
        scores = {0: [], 1: []}  # type: ignore[var-annotated]
        for row in range(3):
            for place in range(4):
                if wanted[row, place, layer] != -100:
                    score = float(margins[row, place, 0, layer])
                    scores[int(wanted[row, place, layer])].append(score)
        wins = sum(yes > no for yes in scores[1] for no in scores[0])
        expected = wins / (len(scores[0]) * len(scores[1]))
        assert found[f"auroc_mlp_exit_{layer + 1}"] == pytest.approx(expected)


def test_token_accuracy_leaves_padding_out() -> None:
    model = random_decoder(2)
    source = torch.tensor([[5, 8, 9, 1], [7, 6, 1, 0]])
    labels = torch.tensor([[40, 41, 1], [50, 1, -100]])
    objective = WEIGHTED.build({}).objective(model, "weighted-ce", 1)
    with torch.no_grad():
        layers = model(source, (source != 0).long(), model.shift_right(labels), per_layer=True)
        _, measure = objective.of_states(layers.states, labels)
        metrics = objective.metrics(tuple(part.numpy() for part in measure()), labels.numpy())
        for layer, state in enumerate(layers.states, start=1):
            right = (model.exit_logits(state).argmax(-1) == labels)[labels != -100]
            expected = float(right.double().mean())
            assert metrics[f"token_accuracy_exit_{layer}"] == pytest.approx(expected)


def test_free_needs_its_layer() -> None:
    with pytest.raises(UsageError, match="FREE needs its shallow layer"):
        FREE.build({"distillation": "last"})
    model = random_decoder(6)
    with pytest.raises(UsageError, match=r"outside 1\.\.2"):
        FREE.build({"shallow_layer": 3}).prepare(model)
    with pytest.raises(UsageError, match="Unknown distillation 'dyna'"):
        FREE.build({"shallow_layer": 1, "distillation": "dyna"}).prepare(model)
    FREE.build({"shallow_layer": 2, "distillation": "uniform"}).prepare(model)
