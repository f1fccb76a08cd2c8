"""Many inputs in few slots: an output that ends makes room, and changes nothing for the others."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from seq2seq_tiny import MEASURES, balanced_threshold, exiting, plain, sources, tiny_t5
from torch import Tensor

from eexit_cli.confidence.decoder import build_measure
from eexit_cli.core.errors import UsageError
from eexit_cli.core.vocabulary import BLOCK, best, top_two
from eexit_cli.exits.decay import TokenThreshold
from eexit_cli.models.decoding import stream as streaming
from eexit_cli.models.decoding.results import DecodedSample
from eexit_cli.models.decoding.settings import DecodeSettings
from eexit_cli.models.decoding.window import Window
from eexit_cli.models.t5.model import MultiExitT5

ENDS = list(range(1, 50, 4))


def batches(ids: Tensor, mask: Tensor, size: int) -> list[dict[str, Tensor]]:
    return [
        {"input_ids": ids[start : start + size], "attention_mask": mask[start : start + size]}
        for start in range(0, len(ids), size)
    ]


def alone(
    model: MultiExitT5, ids: Tensor, mask: Tensor, how: DecodeSettings
) -> list[DecodedSample]:
    return [
        model.decode(ids[row : row + 1], mask[row : row + 1], how).samples[0]
        for row in range(len(ids))
    ]


@pytest.fixture
def little_room(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    """Few spare places, so that the caches move to the front again and again."""

    def set_to(places: int) -> None:
        monkeypatch.setattr(streaming.Stream, "spare", places)

    return set_to


@pytest.mark.parametrize("measure", MEASURES)
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=["float64", "float32"])
def test_a_stream_equals_its_inputs_alone(
    measure: str, dtype: torch.dtype, little_room: Callable[[int], None]
) -> None:
    little_room(5)
    model = tiny_t5(2, dtype=dtype, eos_token_id=ENDS)
    ids, mask = sources(40, seed=3)
    how = exiting(model, measure, balanced_threshold(model, measure, ids, mask), 11)
    expected = alone(model, ids, mask, how)
    assert len({len(sample.tokens) for sample in expected}) > 2
    out = model.decode_many(batches(ids, mask, 6), how)
    assert plain(out.samples) == plain(expected)
    for one, other in zip(out.samples, expected, strict=True):
        assert one.confidences == pytest.approx(other.confidences, abs=1e-4, nan_ok=True)
    assert out.counts.tokens == sum(len(sample.tokens) for sample in expected)
    assert out.counts.layer_tokens == sum(sum(sample.exit_layers) for sample in expected)


@pytest.mark.parametrize(
    "changes",
    [
        {"static_layer": 2},
        {"measure": "softmax", "top_k": 5},
        {"measure": "mlp", "filling": "immediate"},
        {"measure": "linear", "min_layer": 3},
        {"measure": "transformer_mlp_64", "filling": "immediate"},
        {},
    ],
    ids=str,
)
def test_every_setting_can_be_streamed(
    changes: dict[str, Any], little_room: Callable[[int], None]
) -> None:
    little_room(3)
    model = tiny_t5(6, eos_token_id=ENDS)
    ids, mask = sources(30, seed=8)
    rest = dict(changes)
    if name := rest.pop("measure", None):
        threshold = balanced_threshold(model, name, ids, mask)
        rest |= {"measure": build_measure(name, model.cm_heads), "rule": TokenThreshold(threshold)}
    how = DecodeSettings(max_new_tokens=11, **rest)
    out = model.decode_many(batches(ids, mask, 7), how)
    assert plain(out.samples) == plain(alone(model, ids, mask, how))


@pytest.mark.parametrize("form", ["paper", "code"])
def test_a_decaying_threshold_counts_each_output_from_its_own_start(form: str) -> None:
    model = tiny_t5(3, eos_token_id=ENDS)
    ids, mask = sources(24, seed=4)
    threshold = balanced_threshold(model, "mlp", ids, mask) / 0.95
    how = exiting(model, "mlp", threshold)
    constant = plain(alone(model, ids, mask, how))
    rule = TokenThreshold(threshold, temperature=4.0, max_length=12, form=form)
    how = replace(how, rule=rule)
    expected = alone(model, ids, mask, how)
    assert plain(expected) != constant, "the decay does nothing"
    assert plain(model.decode_many(batches(ids, mask, 5), how).samples) == plain(expected)


@settings(max_examples=25, deadline=None)
@given(
    count=st.integers(2, 25),
    size=st.integers(2, 9),
    longest=st.integers(1, 14),
    seed=st.integers(0, 1000),
    shuffled=st.booleans(),
)
def test_the_order_and_the_sizes_of_the_batches_change_nothing(
    count: int, size: int, longest: int, seed: int, shuffled: bool
) -> None:
    """Sources that grow from batch to batch widen the caches of the cross-attention."""
    model = tiny_t5(1, classifiers=False, eos_token_id=ENDS)
    ids, mask = sources(count, 1 + seed % 12, seed=seed)
    order = mask.sum(dim=1).argsort() if shuffled else torch.arange(count)
    ids, mask = ids[order], mask[order]
    how = exiting(model, "saturation", 0.7, longest)
    out = model.decode_many(batches(ids, mask, size), how)
    assert plain(out.samples) == plain(alone(model, ids, mask, how))


def test_progress_counts_every_output_once() -> None:
    model = tiny_t5(1, classifiers=False, eos_token_id=ENDS)
    ids, mask = sources(20, seed=5)
    seen: list[int] = []
    model.decode_many(batches(ids, mask, 4), finished=seen.append)
    assert sum(seen) == 20
    assert len(seen) > 4
    seen.clear()
    model.decode_many(batches(ids, mask, 20), finished=seen.append)
    assert seen == [20]


def test_timings_of_a_stream_hold_the_encoder_of_every_batch() -> None:
    model = tiny_t5(1, classifiers=False, eos_token_id=ENDS)
    ids, mask = sources(20, seed=5)
    how = exiting(model, "saturation", 0.5, 10, timings=True)
    timings = model.decode_many(batches(ids, mask, 4), how).timings
    assert timings is not None
    assert timings.encoder > 0
    assert all(seconds > 0 for seconds in timings.layers[:2])


def test_free_goes_batch_by_batch() -> None:
    model = tiny_t5(1)
    ids, mask = sources(6)
    how = exiting(model, "softmax", 0.5, shallow_layer=2)
    with pytest.raises(UsageError, match="batch by batch"):
        model.decode_many(batches(ids, mask, 3), how)


def test_an_empty_source_of_a_later_batch_is_an_error() -> None:
    model = tiny_t5(1, classifiers=False)
    ids, mask = sources(6)
    mask[5] = 0
    with pytest.raises(UsageError, match="Source 3 of the batch has no tokens"):
        model.decode_many(batches(ids, mask, 3))


def test_the_window_hides_what_came_before_a_slot_started() -> None:
    window = Window(3, 6, torch.zeros(1))
    window.look([0, 1, 2])
    assert window.hidden(2) is None
    assert window.ages(torch.tensor([0, 1, 2]).numpy(), 4) == 4
    window.enter([1], [2])
    window.look([0, 1, 2])
    hidden = window.hidden(4)
    assert hidden is not None
    assert (hidden == 0).tolist() == [[True] * 4, [False, False, True, True], [True] * 4]
    assert window.ages(torch.tensor([0, 1]).numpy(), 4).tolist() == [4, 2]  # type: ignore[union-attr]
    window.enter([0, 2], [3, 3])
    window.look([0, 1, 2])
    assert window.first == 2
    window.shift(2)
    hidden = window.hidden(2)
    assert hidden is not None
    assert (hidden == 0).tolist() == [[False, True], [True, True], [False, True]]
    assert [window.age(slot, 2) for slot in (0, 1, 2)] == [1, 2, 1]


@settings(max_examples=60, deadline=None)
@given(
    rows=st.integers(1, 5),
    width=st.sampled_from([2, 100, 4096, 4097, 32128]),
    levels=st.sampled_from([2, 50, 0]),
    seed=st.integers(0, 10**6),
)
def test_search_in_blocks_finds_what_torch_finds(
    rows: int, width: int, levels: int, seed: int
) -> None:
    generator = torch.Generator().manual_seed(seed)
    values = torch.randn(rows, width, generator=generator)
    if levels:  # few different numbers, so that many are equal
        values = (values * levels).round() / levels
    largest, where = best(values)
    assert where.tolist() == values.argmax(dim=-1).tolist()
    assert largest.tolist() == values.amax(dim=-1).tolist()
    first, second = top_two(values)
    expected = values.topk(2, dim=-1).values
    assert torch.equal(torch.stack((first, second), dim=-1), expected)


def test_search_in_blocks_leaves_gradients_to_torch() -> None:
    values = torch.randn(2, 32 * BLOCK, requires_grad=True)
    first, second = top_two(values)
    (first - second).sum().backward()
    assert values.grad is not None
    assert int((values.grad != 0).sum()) == 4
