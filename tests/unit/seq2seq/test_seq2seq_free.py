"""FREE's shallow-deep decoding against the deep model itself: its deep states are real ones."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
import torch
from seq2seq_tiny import V11, exiting, plain, sources, tiny_t5
from torch import Tensor

from eexit_cli.confidence.decoder import build_measure
from eexit_cli.core.errors import UsageError
from eexit_cli.exits.adaptive import AdaptiveThreshold
from eexit_cli.models.decoding.settings import DecodeSettings
from eexit_cli.models.t5.model import MultiExitT5


@torch.no_grad()
def sequential(
    model: MultiExitT5, source: Tensor, measure: str, shallow: int, threshold: float, tokens: int
) -> tuple[list[int], list[int], list[tuple[float, bool]]]:
    """Each token alone through all layers that it needs, nothing copied, nothing stacked.

    Returns tokens, exit layers, and (confidence, agreement) of every token up to the last deep one.
    """
    out: list[int] = []
    layers: list[int] = []
    pairs: list[tuple[float, bool]] = []
    start = int(model.config.decoder_start_token_id)
    for _ in range(tokens):
        states = model.layer_states(source[None], None, torch.tensor([[start, *out]]))
        early, late = states.states[shallow - 1][0], states.states[-1][0, -1]
        shown = int(model.exit_logits(early[-1]).argmax())
        deep = int(model.exit_logits(late).argmax())
        if measure == "softmax":
            top = torch.softmax(model.exit_logits(early[-1]), -1).sort(descending=True).values
            confidence = float(top[0] - top[1])
        else:
            logits = model.cm_heads[measure](early[None])[0, -1]
            confidence = float(torch.softmax(logits, -1)[1])
        leaves = confidence > threshold
        layers.append(shallow if leaves else model.depth)
        out.append(shown if leaves else deep)
        pairs.append((confidence, shown == deep))
        if out[-1] in model.config.end_tokens:
            break
    deepest = max((at for at, layer in enumerate(layers) if layer == model.depth), default=-1)
    return out, layers, pairs[: deepest + 1]


def middle(model: MultiExitT5, ids: Tensor, mask: Tensor, measure: str, shallow: int) -> float:
    """A threshold in a wide gap among the shallow confidences."""
    seen = sorted(
        confidence
        for row in range(len(ids))
        for confidence, _ in sequential(
            model, ids[row, : int(mask[row].sum())], measure, shallow, 1.0, 10
        )[2]
    )
    part = seen[len(seen) * 3 // 10 : len(seen) * 6 // 10]
    _, low, high = max((b - a, a, b) for a, b in itertools.pairwise(part))
    return (low + high) / 2


@pytest.mark.parametrize("measure", ["softmax", "mlp", "transformer_linear_64"])
@pytest.mark.parametrize("shallow", [1, 2, 3])
@pytest.mark.parametrize("variant", [{}, V11], ids=["tied", "untied"])
def test_parallel_equals_sequential(measure: str, shallow: int, variant: dict[str, Any]) -> None:
    model = tiny_t5(31, **variant)
    ids, mask = sources(4, seed=21)
    threshold = middle(model, ids, mask, measure, shallow)
    settings = exiting(model, measure, threshold, 10, shallow_layer=shallow, collect_pairs=True)
    batch = model.decode(ids, mask, settings)
    alone = [
        model.decode(ids[row : row + 1], mask[row : row + 1], settings) for row in range(len(ids))
    ]
    used = set()
    for row in range(len(ids)):
        source = ids[row, : int(mask[row].sum())]
        tokens, layers, pairs = sequential(model, source, measure, shallow, threshold, 10)
        used |= set(layers)
        for sample in (batch.samples[row], alone[row].samples[0]):
            assert plain([sample]) == [(tokens, layers)]
        assert [agrees for _, agrees in alone[row].pairs] == [agrees for _, agrees in pairs]
        assert [c for c, _ in alone[row].pairs] == pytest.approx([c for c, _ in pairs], abs=1e-4)
    assert used == {shallow, model.depth}
    together, apart = sorted(batch.pairs), sorted(pair for out in alone for pair in out.pairs)
    assert [agrees for _, agrees in together] == [agrees for _, agrees in apart]
    assert [c for c, _ in together] == pytest.approx([c for c, _ in apart])


def test_pairs_change_nothing_but_the_pairs() -> None:
    model = tiny_t5(32)
    ids, mask = sources(3, seed=22)
    threshold = middle(model, ids, mask, "softmax", 2)
    settings = exiting(model, "softmax", threshold, 10, shallow_layer=2)
    without = model.decode(ids, mask, settings)
    collecting = exiting(model, "softmax", threshold, 10, shallow_layer=2, collect_pairs=True)
    assert plain(without.samples) == plain(model.decode(ids, mask, collecting).samples)
    assert without.pairs == []


def test_rows_that_end_are_compacted_with_their_stacks() -> None:
    model = tiny_t5(33, eos_token_id=[1, 3, 7, 12, 20, 33])
    ids, mask = sources(9, seed=23)
    threshold = middle(model, ids, mask, "softmax", 2)
    settings = exiting(model, "softmax", threshold, 14, shallow_layer=2, collect_pairs=True)
    together = model.decode(ids, mask, settings)
    alone = [model.decode(ids[r : r + 1], mask[r : r + 1], settings).samples[0] for r in range(9)]
    assert plain(together.samples) == plain(alone)
    assert len({len(sample.tokens) for sample in alone}) > 2


def test_timings_of_free() -> None:
    model = tiny_t5(34)
    ids, mask = sources(3, seed=24)
    threshold = middle(model, ids, mask, "softmax", 2)
    settings = exiting(model, "softmax", threshold, 10, shallow_layer=2, timings=True)
    timings = model.decode(ids, mask, settings).timings
    assert timings is not None
    assert all(seconds > 0 for seconds in timings.layers)
    assert [seconds > 0 for seconds in timings.confidence] == [False, True, False, False]
    assert timings.filling == 0


def test_the_adaptive_threshold_is_a_rule() -> None:
    """Fed with the decoder's pairs, it moves, and the decoder follows it."""
    model = tiny_t5(35)
    ids, mask = sources(6, seed=25)
    rule = AdaptiveThreshold(0.9)
    settings = DecodeSettings(
        max_new_tokens=12,
        measure=build_measure("softmax"),
        rule=rule,
        shallow_layer=2,
        collect_pairs=True,
    )
    before = model.decode(ids, mask, settings)
    rule.observe([c for c, _ in before.pairs], [agrees for _, agrees in before.pairs])
    moved = rule.refit()
    after = model.decode(ids, mask, settings)
    fixed = exiting(model, "softmax", moved, 12, shallow_layer=2)
    assert plain(after.samples) == plain(model.decode(ids, mask, fixed).samples)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"shallow_layer": 4}, r"outside 1\.\.3"),
        ({"shallow_layer": 0}, r"outside 1\.\.3"),
        ({"shallow_layer": 2, "top_k": 5}, "nothing to propagate"),
        ({"shallow_layer": 2, "min_layer": 2}, "minimum exit layer says nothing"),
        ({"shallow_layer": 2, "static_layer": 3}, "leaves no choice"),
    ],
)
def test_settings_that_free_has_no_use_for(changes: dict[str, int], said: str) -> None:
    model = tiny_t5(0)
    ids, mask = sources(2)
    with pytest.raises(UsageError, match=said):
        model.decode(ids, mask, exiting(model, "softmax", 0.5, **changes))


def test_free_without_a_measure() -> None:
    model = tiny_t5(0)
    ids, mask = sources(2)
    with pytest.raises(UsageError, match="needs a confidence measure"):
        model.decode(ids, mask, DecodeSettings(shallow_layer=2))
