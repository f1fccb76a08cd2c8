"""Per-sample losses: ROUGE-L against its definition, clipping per sample, refusals."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from eexit_cli.calibration import CONSISTENCIES, TEXT_METRICS
from eexit_cli.calibration.risks import RISK, TEXTUAL, LossFunction, same_class
from eexit_cli.core.errors import UsageError

TOKENS = st.lists(st.sampled_from(["ah0", "b", "k", "ae1", "t"]), max_size=7).map(" ".join)


def lcs(a: list[str], b: list[str]) -> int:
    table = np.zeros((len(a) + 1, len(b) + 1), dtype=int)
    for i, x in enumerate(a):
        for j, y in enumerate(b):
            table[i + 1, j + 1] = (
                table[i, j] + 1 if x == y else max(table[i, j + 1], table[i + 1, j])
            )
    return int(table[-1, -1])


def rouge_by_hand(prediction: str, reference: str) -> float:
    a, b = prediction.split(), reference.split()
    if a == b:
        return 1.0
    common = lcs(a, b)
    if common == 0:
        return 0.0
    precision, recall = common / len(a), common / len(b)
    return 2 * precision * recall / (precision + recall)


@pytest.mark.parametrize("name", ["rouge-l", "rouge-l-tokens"])
@given(prediction=TOKENS, reference=TOKENS)
def test_rouge_l_is_the_f1_of_the_longest_common_subsequence(name, prediction, reference):
    got = TEXT_METRICS.load(name)(prediction, reference)
    assert got == pytest.approx(rouge_by_hand(prediction, reference))


def test_words_are_lower_cased_and_phonemes_are_not():
    assert TEXT_METRICS.load("rouge-l")("The cat.", "the CAT") == pytest.approx(1.0)
    assert TEXT_METRICS.load("rouge-l-tokens")("AH0 t", "ah0 T") == 0.0
    # Marks that the words' tokenizer drops are phonemes to the other.
    assert TEXT_METRICS.load("rouge-l-tokens")("' a", "' b") == pytest.approx(0.5)


@pytest.mark.parametrize("name", sorted(TEXT_METRICS))
@given(text=st.text(max_size=20), other=st.text(max_size=20))
def test_metrics_are_in_the_unit_interval_and_one_for_equal_texts(name, text, other):
    quality = TEXT_METRICS.load(name)
    assert quality(text, text) == 1.0
    assert 0.0 <= quality(text, other) <= 1.0


@given(
    texts=st.lists(st.tuples(TOKENS, TOKENS, TOKENS), min_size=1, max_size=5),
)
def test_consistencies_are_their_definitions(texts):
    early, full, target = map(list, zip(*texts, strict=True))
    quality = TEXT_METRICS.load("rouge-l-tokens")
    textual = LossFunction(TEXTUAL, quality, full)(early)
    risk = LossFunction(RISK, quality, full, target)(early)
    for i, (e, f, t) in enumerate(texts):
        assert textual[i] == pytest.approx(1 - rouge_by_hand(e, f))
        worse = (1 - rouge_by_hand(e, t)) - (1 - rouge_by_hand(f, t))
        assert risk[i] == pytest.approx(max(0.0, worse))


def test_the_full_model_has_no_loss():
    texts = ["", "a b", "..."]
    for consistency in CONSISTENCIES:
        losses = LossFunction(
            CONSISTENCIES.load(consistency), TEXT_METRICS.load("rouge-l"), texts, ["a", "b", ""]
        )(texts)
        assert losses.tolist() == [0.0, 0.0, 0.0]


def test_risk_is_clipped_per_sample_and_not_after_averaging():
    full, target, early = [0, 0, 1, 1], [0, 1, 1, 1], [1, 1, 1, 0]
    losses = LossFunction(RISK, same_class, full, target)(early)
    # One error mended, two made: the mean after clipping would be 1/4.
    assert losses.tolist() == [1.0, 0.0, 0.0, 1.0]
    assert LossFunction(TEXTUAL, same_class, full)(early).tolist() == [1.0, 1.0, 0.0, 1.0]


class TestRefusals:
    def test_risk_without_labels(self):
        with pytest.raises(UsageError, match="needs labels") as caught:
            LossFunction(RISK, same_class, [0, 1])
        assert "--consistency textual" in caught.value.hint

    @pytest.mark.parametrize("value", [-0.5, 1.2, float("nan"), 42.0])
    def test_a_metric_outside_the_unit_interval(self, value):
        losses = LossFunction(TEXTUAL, lambda a, b: value, ["a"])
        with pytest.raises(UsageError, match=r"values in \[0, 1\]"):
            losses(["b"])

    def test_lengths_that_differ(self):
        with pytest.raises(UsageError, match="2 early outputs but 1"):
            LossFunction(TEXTUAL, same_class, [0])([0, 1])
        with pytest.raises(UsageError, match="1 outputs but 2 references"):
            LossFunction(RISK, same_class, [0], [0, 1])
