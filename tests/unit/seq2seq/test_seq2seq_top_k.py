"""Top-k token propagation against its definition, on both sides of the choice of product."""

from __future__ import annotations

import pytest
import torch
from seq2seq_tiny import V11, Reference, balanced_threshold, exiting, plain, sources, tiny_t5

from eexit_cli.models.decoding.results import DecodeCounts
from eexit_cli.models.decoding.scoring import FullScorer, TopKScorer, _largest
from eexit_cli.models.finite import Finite
from eexit_cli.models.t5.stack import stack_of


@pytest.mark.parametrize("top_k", [2, 5, 20, 50])
@pytest.mark.parametrize("batch", [1, 6])
@pytest.mark.parametrize("variant", [{}, V11], ids=["tied", "untied"])
def test_follows_the_definition(top_k: int, batch: int, variant: dict[str, object]) -> None:
    model = tiny_t5(21, **variant)
    ids, mask = sources(batch, seed=11)
    threshold = balanced_threshold(model, "softmax", ids, mask, top_k=top_k)
    out = model.decode(ids, mask, exiting(model, "softmax", threshold, top_k=top_k))
    assert len({layer for sample in out.samples for layer in sample.exit_layers}) > 1
    for row, sample in enumerate(out.samples):
        source = ids[row, : int(mask[row].sum())]
        reference = Reference(model, "softmax", lambda position: threshold, top_k=top_k)
        reference.run(source, 12)
        assert plain([sample]) == [(reference.tokens, reference.exit_layers)]
        assert sample.confidences == pytest.approx(reference.confidences, abs=1e-4, nan_ok=True)


def test_the_first_scored_layer_is_the_minimum_layer() -> None:
    model = tiny_t5(22)
    ids, mask = sources(4, seed=12)
    threshold = balanced_threshold(model, "softmax", ids, mask)
    out = model.decode(ids, mask, exiting(model, "softmax", threshold, top_k=4, min_layer=2))
    for row, sample in enumerate(out.samples):
        source = ids[row, : int(mask[row].sum())]
        reference = Reference(model, "softmax", lambda position: threshold, top_k=4, min_layer=2)
        assert plain([sample]) == [(reference.run(source, 12).tokens, reference.exit_layers)]


def test_keeping_the_whole_vocabulary_changes_nothing() -> None:
    model = tiny_t5(23)
    ids, mask = sources(5, seed=13)
    threshold = balanced_threshold(model, "softmax", ids, mask)
    whole = model.decode(ids, mask, exiting(model, "softmax", threshold, top_k=50))
    without = model.decode(ids, mask, exiting(model, "softmax", threshold))
    assert plain(whole.samples) == plain(without.samples)


def test_gathered_rows_and_full_product_say_the_same() -> None:
    """A few rows are gathered, many are not; forced both ways the logits are equal."""
    model = tiny_t5(24)
    weights = stack_of(model)
    units = [torch.randn(3, 32, dtype=torch.float64) for _ in range(3)]
    gathering = TopKScorer(weights, DecodeCounts(), Finite(), 6)
    full = TopKScorer(weights, DecodeCounts(), Finite(), 6)
    full.most_gathered = 0
    gathering.most_gathered = 3
    for scorer in (gathering, full):
        scorer.begin()
    for unit in units:
        one, other = gathering.logits(unit), full.logits(unit)
        # The gathered tokens are in another order.
        torch.testing.assert_close(one.sort().values, other.sort().values)
        assert gathering.choose(None) == full.choose(None)
        assert gathering.choose([2]) == full.choose([2])
    gathering.keep([0, 2])
    full.keep([0, 2])
    last = torch.randn(2, 32, dtype=torch.float64)
    gathering.logits(last)
    full.logits(last)
    assert gathering.choose(None) == full.choose(None)


def test_the_choice_of_product_follows_the_rows() -> None:
    model = tiny_t5(25)
    counts = DecodeCounts()
    scorer = TopKScorer(stack_of(model), counts, Finite(), 5)
    assert scorer.most_gathered == 50 // 15
    scorer.begin()
    scorer.logits(torch.randn(8, 32, dtype=torch.float64))
    scorer.logits(torch.randn(8, 32, dtype=torch.float64))
    assert (counts.head_rows, counts.kept_rows) == (16, 0)
    scorer.keep([1, 4])
    scorer.logits(torch.randn(2, 32, dtype=torch.float64))
    assert (counts.head_rows, counts.kept_rows) == (16, 2)


def test_full_scorer_chooses_the_largest_logit() -> None:
    model = tiny_t5(26)
    counts = DecodeCounts()
    scorer = FullScorer(stack_of(model), counts, Finite())
    logits = scorer.logits(torch.randn(4, 32, dtype=torch.float64))
    assert scorer.choose(None) == logits.argmax(-1).tolist()
    assert scorer.choose([3, 1]) == logits.argmax(-1)[[3, 1]].tolist()
    assert counts.head_rows == 4


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize("count", [2, 7, 50])
def test_the_largest_are_those_of_torch(dtype: torch.dtype, count: int) -> None:
    """Each row's by itself, whatever beside it; not finite ones are not lost."""
    generator = torch.Generator().manual_seed(count)
    # Whole numbers, so that no precision makes two of a row equal.
    logits = torch.stack([torch.randperm(50, generator=generator) for _ in range(5)]).to(dtype)
    logits[1, 3], logits[2, 4] = float("nan"), float("-inf")
    found = _largest(logits, count)
    expected = logits.topk(count, dim=-1).indices
    assert torch.equal(found, expected.sort(dim=-1).values)
    for row in range(5):
        assert torch.equal(_largest(logits[row : row + 1], count)[0], found[row])


@pytest.mark.parametrize("rows", [1, 3])
def test_of_equals_the_first_is_chosen(rows: int) -> None:
    """As torch's argmax does, also where more share a place than are kept."""
    logits = torch.zeros(rows, 40)
    logits[:, [3, 30, 17]] = 2.0
    logits[:, 35] = 1.0
    for count in (2, 3, 4, 9):
        found = _largest(logits, count)
        assert found.shape == (rows, count)
        assert found[:, 1:].gt(found[:, :-1]).all()
        kept = logits.gather(1, found)
        assert torch.equal(kept.sort(dim=-1).values, logits.topk(count).values.sort(dim=-1).values)
    first = _largest(logits, 5)
    assert first.gather(1, logits.gather(1, first).argmax(1, keepdim=True)).eq(3).all()
