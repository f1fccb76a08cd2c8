"""The victim: live scores, one query per text, gradients that are right."""

from __future__ import annotations

from functools import partial

import pytest
import torch
from attacks_tiny import TEXTS, TOKENIZERS, classifier, victim_for, wordpiece
from textattack.shared import AttackedText

from eexit_cli.attacks.buckets import MOST_PADDING
from eexit_cli.attacks.budget import Budget
from eexit_cli.attacks.encoder_victim import EncoderVictim
from eexit_cli.attacks.saliency import word_gradients
from eexit_cli.attacks.slowdown_loss import slowdown_loss
from eexit_cli.core.errors import UsageError
from eexit_cli.core.stepping import replay
from eexit_cli.exits.static import StaticExit
from eexit_cli.models import BACKBONES

LOSS = partial(slowdown_loss, lam=0.8)


@pytest.mark.parametrize("patience", [None, 1])
def test_scores_are_the_replayed_trace(patience: int | None) -> None:
    victim = victim_for(patience=patience)
    victim.model.double()
    outcomes = victim.score(TEXTS)
    for text, outcome in zip(TEXTS, outcomes, strict=True):
        batch = victim.batcher([text])
        expected = replay(victim.model(**batch).logits, victim.criterion)
        assert outcome.exit_layer == int(expected.exit_layers[0])
        assert outcome.prediction == int(expected.predictions[0])
        assert sum(outcome.probabilities) == pytest.approx(1)
        assert 0 <= outcome.closeness < 1
        if outcome.exit_layer == victim.num_layers:
            assert outcome.closeness == 0
    assert len({outcome.exit_layer for outcome in outcomes}) > 1


def test_each_text_is_one_query_however_often_it_is_asked_for() -> None:
    victim = victim_for()
    ran: list[int] = []
    run = victim._run

    def spy(model, batch, *options):  # type: ignore[no-untyped-def]
        ran.append(len(batch["input_ids"]))
        return run(model, batch, *options)

    victim._run = spy  # type: ignore[method-assign]
    first = victim.score([TEXTS[0], TEXTS[1], TEXTS[0]])
    again = victim.score([TEXTS[1], TEXTS[2]])
    assert victim.budget.queries == sum(ran) == 3
    assert first[0] is first[2]
    assert again[0] is first[1]
    victim.begin()
    assert victim.budget.spent == 0
    assert TEXTS[0] not in victim._known


@pytest.mark.parametrize("limit", range(6))
def test_budget_is_never_exceeded(limit: int) -> None:
    victim = victim_for(limit=limit)
    assert len(victim.score(TEXTS[:3], reserve=1)) == max(0, min(3, limit - 1))
    victim.gradients(TEXTS, LOSS)
    assert victim.budget.spent == limit
    assert victim.score(TEXTS[5:]) == []
    assert victim.confirm(TEXTS[0]) is None
    assert victim.gradients([TEXTS[7]], LOSS) == []


def test_batches_hold_little_padding() -> None:
    victim = victim_for()
    victim.score([" ".join(["film"] * count) for count in range(1, 40)])
    assert victim.tokens_held <= victim.tokens_computed <= MOST_PADDING * victim.tokens_held


@pytest.mark.parametrize("make", TOKENIZERS.values(), ids=TOKENIZERS)
def test_gradient_is_the_finite_difference_of_the_loss(make) -> None:  # type: ignore[no-untyped-def]
    victim = victim_for(make())
    victim.model.double()
    text = "The film film was not believful"
    (gradient,) = victim.gradients([text], LOSS)
    batch = victim.batcher([text])
    embedded = victim.model.word_embeddings(batch.pop("input_ids"))
    layers = torch.tensor([victim.score([text])[0].exit_layer])

    def loss_at(moved: torch.Tensor) -> float:
        return float(LOSS(victim.model(inputs_embeds=moved, **batch).logits, layers)[0])

    assert loss_at(embedded) == pytest.approx(gradient.loss)
    step = 1e-6
    for position in range(embedded.shape[1]):
        direction = torch.zeros_like(embedded)
        direction[0, position] = torch.randn(embedded.shape[2], dtype=torch.float64)
        slope = (loss_at(embedded + step * direction) - loss_at(embedded - step * direction)) / (
            2 * step
        )
        expected = float((gradient.gradient[position] * direction[0, position]).sum())
        assert slope == pytest.approx(expected, rel=1e-4, abs=1e-7)


@pytest.mark.parametrize("backbone", list(BACKBONES))
def test_repeated_words_have_gradients_of_their_own_that_add_up_to_the_matrix_row(
    backbone: str,
) -> None:
    victim = victim_for(backbone=backbone)
    text = "film great film"
    (gradient,) = victim.gradients([text], LOSS)
    assert not torch.allclose(gradient.gradient[1], gradient.gradient[3])
    weight = victim.model.word_embeddings.weight.requires_grad_(True)
    logits = victim.model(**victim.batcher([text])).logits
    LOSS(logits, torch.tensor([victim.score([text])[0].exit_layer])).sum().backward()
    row = weight.grad[gradient.input_ids[1]]
    together = gradient.gradient[1] + gradient.gradient[3]
    assert torch.allclose(row, together, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("backbone", list(BACKBONES))
def test_gradients_of_a_batch_are_those_of_each_text_and_never_add_up(backbone: str) -> None:
    victim = victim_for(backbone=backbone)
    together = victim.gradients(TEXTS[:4], LOSS)
    assert victim.budget.gradient_passes == 4
    victim.gradients(TEXTS[:4], LOSS)
    assert victim.budget.gradient_passes == 4
    for text, one in zip(TEXTS[:4], together, strict=True):
        victim.begin()
        (alone,) = victim.gradients([text], LOSS)
        assert torch.equal(alone.input_ids, one.input_ids)
        assert torch.allclose(alone.gradient, one.gradient, rtol=1e-3, atol=1e-5)


def test_word_gradients_join_the_pieces_of_a_word() -> None:
    victim = victim_for()
    text = AttackedText("believful film")
    words = word_gradients(victim, LOSS, text, {0, 1})
    (token,) = victim.gradients([text.text], LOSS)
    assert words is not None
    table = victim.model.word_embeddings.weight
    assert torch.allclose(words.gradients[0], token.gradient[1] + token.gradient[2])
    assert torch.allclose(words.embeddings[0], table[token.input_ids[1:3]].mean(dim=0))
    assert torch.allclose(words.embeddings[1], table[token.input_ids[3]])
    assert victim.budget.gradient_passes == 1


def test_pairs_are_scored_and_differentiated() -> None:
    victim = victim_for()
    pair = ("The film was great", "the plot is dull")
    (outcome,) = victim.score([pair])
    expected = victim.model.infer(
        **victim.batcher([pair[0]], [pair[1]]), criterion=victim.criterion
    )
    assert outcome.exit_layer == int(expected.exit_layers[0])
    (gradient,) = victim.gradients([pair], LOSS)
    assert {0, 1, None} == set(gradient.columns)


def test_textattacks_goal_functions_get_probabilities() -> None:
    victim = victim_for(classes=3)
    probabilities = victim(TEXTS[:2])
    assert probabilities.shape == (2, 3)
    assert probabilities.sum(axis=1) == pytest.approx([1, 1])


def test_regression_and_static_exits_cannot_be_attacked() -> None:
    with pytest.raises(UsageError, match="regression"):
        victim_for(classes=1, patience=1)
    victim = victim_for()
    with pytest.raises(UsageError, match="static") as raised:
        EncoderVictim(classifier(wordpiece()), victim.batcher, StaticExit(2), Budget())
    assert "--threshold" in str(raised.value.hint)


def test_a_text_checked_alone_is_one_query_more_and_then_known() -> None:
    victim = victim_for()
    victim.score([TEXTS[0]])
    alone = victim.confirm(TEXTS[0])
    assert victim.budget.queries == 2
    assert victim.confirm(TEXTS[0]) is alone
    assert victim.score([TEXTS[0]]) == [alone]
    assert victim.budget.queries == 2
    # Every exit is asked for, and that is another sample.
    victim.begin(all_exits=True)
    full = victim.confirm(TEXTS[0])
    assert full is not None
    assert full.exits is not None
    assert victim.budget.queries == 1
    victim.begin()
    assert victim.confirm(TEXTS[0]) == alone
    assert victim.confirm(TEXTS[0]) is not alone


def test_texts_of_a_batch_are_paid_one_by_one() -> None:
    victim = victim_for()
    victim.confirm(TEXTS[0])
    victim.score([TEXTS[0], TEXTS[2], TEXTS[1]])
    victim.gradients(TEXTS[:2], lambda logits, layers: logits.sum(dim=(1, 2)))
    victim.score(TEXTS[1:4])
    # The check of a text scored in a batch costs one more; the first was checked at once.
    assert [victim.paid(text) for text in TEXTS[:4]] == [1, 1 + 2 + 1, 1 + 1 + 1, 3 + 2 + 1 + 1]
    victim.confirm(TEXTS[3])
    assert victim.paid(TEXTS[3]) == 7


def test_another_account_pays_for_a_while() -> None:
    victim = victim_for(limit=3)
    victim.begin()
    victim.score(TEXTS[:2])
    mine = victim.budget
    with victim.account(Budget()) as other:
        assert len(victim.score(TEXTS)) == len(TEXTS)
        assert other.queries == len(TEXTS)
    assert victim.budget is mine
    assert mine.spent == 2
    assert TEXTS[0] not in victim._known
