"""Each metric against a second derivation, or the library that defines it."""

from __future__ import annotations

import math
import re
import string
from collections import Counter
from collections.abc import Sequence
from decimal import Decimal
from functools import cache
from statistics import fmean

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from eexit_cli.core.edits import edit_distance
from eexit_cli.core.errors import UsageError
from eexit_cli.core.types import TaskInfo
from eexit_cli.metrics.generation import (
    GENERATION_METRICS,
    compute_generation,
    score_generation,
)
from eexit_cli.metrics.generation_answers import answer_words
from eexit_cli.metrics.generation_numbers import final_number
from eexit_cli.metrics.generation_rouge import sentences

# Three letters: ROUGE's stemmer leaves them as they are, and none is an article.
word = st.sampled_from(["cat", "dog", "sat", "mat", "ran", "big"])
words = st.lists(word, min_size=1, max_size=8)
texts = words.map(" ".join)


def info(*metrics: str) -> TaskInfo:
    return TaskInfo("any", "generation", metrics=metrics)


def one(metric: str, prediction: str, *references: str) -> float:
    return compute_generation(info(metric), [prediction], [list(references)])[metric]


def common_subsequence(one: Sequence[str], two: Sequence[str]) -> int:
    @cache
    def longest(i: int, j: int) -> int:
        if i == len(one) or j == len(two):
            return 0
        if one[i] == two[j]:
            return 1 + longest(i + 1, j + 1)
        return max(longest(i + 1, j), longest(i, j + 1))

    return longest(0, 0)


def harmonic(common: int, one: int, two: int) -> float:
    return 2 * common / (one + two) if common else 0.0


def ngrams(tokens: Sequence[str], n: int) -> Counter[tuple[str, ...]]:
    return Counter(tuple(tokens[i : i + n]) for i in range(len(tokens) - n + 1))


# ROUGE


@given(words, words)
def test_rouge_l_is_the_longest_common_subsequence(predicted, expected):
    common = common_subsequence(tuple(predicted), tuple(expected))
    assert one("rouge_l", " ".join(predicted), " ".join(expected)) == pytest.approx(
        harmonic(common, len(predicted), len(expected))
    )


@pytest.mark.parametrize("n", [1, 2])
@given(predicted=words, expected=words)
def test_rouge_n_counts_shared_ngrams(n, predicted, expected):
    left, right = ngrams(predicted, n), ngrams(expected, n)
    common = (left & right).total()
    assert one(f"rouge_{n}", " ".join(predicted), " ".join(expected)) == pytest.approx(
        harmonic(common, left.total(), right.total())
    )


def test_rouge_is_the_packages_with_stemming():
    from rouge_score.rouge_scorer import RougeScorer

    prediction = "The cats were running. They liked it!"
    reference = "They like running. The cat was there."
    found = compute_generation(
        info("rouge_1", "rouge_2", "rouge_l", "rouge_lsum"), [prediction], [reference]
    )
    names = {
        "rouge_1": "rouge1",
        "rouge_2": "rouge2",
        "rouge_l": "rougeL",
        "rouge_lsum": "rougeLsum",
    }
    scorer = RougeScorer(list(names.values()), use_stemmer=True)
    expected = scorer.score(
        "They like running.\nThe cat was there.", "The cats were running.\nThey liked it!"
    )
    for ours, theirs in names.items():
        assert found[ours] == expected[theirs].fmeasure
    # Sentence by sentence, the other order of the two sentences costs nothing.
    assert found["rouge_lsum"] > found["rouge_l"]
    # cats ~ cat, liked ~ like
    assert one("rouge_1", "liked cats", "like cat") == 1.0


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("One. Two! Three? Four", "One.\nTwo!\nThree?\nFour"),
        ('He said "no." Then left.', 'He said "no."\nThen left.'),
        ("line\nline. next 3.5 more", "line\nline.\nnext 3.5 more"),
        ("  one  ", "one"),
        ("", ""),
    ],
)
def test_sentences(text, expected):
    assert sentences(text) == expected


# BLEU


@settings(max_examples=30)
@given(st.lists(st.tuples(texts, texts), min_size=1, max_size=4))
def test_bleu_is_papinenis_formula(pairs):
    """Where every order of n-grams matches somewhere, smoothing plays no part."""
    # One that matches in every order.
    pairs = [*pairs, ("cat dog sat mat", "cat dog sat mat")]
    matches, totals = [], []
    for n in range(1, 5):
        matches.append(sum((ngrams(p.split(), n) & ngrams(r.split(), n)).total() for p, r in pairs))
        totals.append(sum(ngrams(p.split(), n).total() for p, _ in pairs))
    predicted = sum(len(p.split()) for p, _ in pairs)
    expected = sum(len(r.split()) for _, r in pairs)
    precision = math.exp(fmean(math.log(m / t) for m, t in zip(matches, totals, strict=True)))
    brevity = 1.0 if predicted >= expected else math.exp(1 - expected / predicted)
    found = compute_generation(info("bleu"), [p for p, _ in pairs], [r for _, r in pairs])
    assert found["bleu"] == pytest.approx(precision * brevity)


def test_bleu_with_several_references_is_sacrebleus():
    import sacrebleu

    predictions = ["the cat sat on the big mat", "a dog ran to the house"]
    references = [
        ["a cat sat on the mat", "the cat sat on a big mat", "cats sit"],
        ["the dog ran to a house"],
    ]
    streams = [[references[0][n], references[1][0] if n == 0 else None] for n in range(3)]
    expected = sacrebleu.corpus_bleu(predictions, streams).score / 100
    found = score_generation(info("bleu"), predictions, references)
    assert found.corpus["bleu"] == pytest.approx(expected)
    for sample, prediction, answers in zip(found.samples, predictions, references, strict=True):
        assert sample["bleu"] == sacrebleu.sentence_bleu(prediction, answers).score / 100


# Answers


@pytest.mark.parametrize(
    ("prediction", "reference", "exact", "squad", "f1"),
    [
        ("The  Paris!", "paris", 0, 1, 1),
        ("in Paris, France", "Paris", 0, 0, 2 * (1 / 3) / (1 / 3 + 1)),
        (" a b ", "a  b", 1, 1, 1),
        ("", "", 1, 1, 0),
        ("the", "a", 0, 1, 0),
        ("", "x", 0, 0, 0),
        ("K Y UW", "K Y UW", 1, 1, 1),
        ("K Y UW", "k y uw", 0, 1, 1),
    ],
)
def test_answers(prediction, reference, exact, squad, f1):
    assert one("exact_match", prediction, reference) == exact
    assert one("squad_exact_match", prediction, reference) == squad
    assert one("squad_f1", prediction, reference) == pytest.approx(f1)


@given(words, words)
def test_f1_is_the_harmonic_mean_of_precision_and_recall(predicted, expected):
    rest, hits = list(expected), 0
    for token in predicted:
        if token in rest:
            rest.remove(token)
            hits += 1
    precision, recall = hits / len(predicted), hits / len(expected)
    f1 = 2 * precision * recall / (precision + recall) if hits else 0.0
    assert one("squad_f1", " ".join(predicted), " ".join(expected)) == pytest.approx(f1)


def squad_1_1(prediction: str, ground_truth: str) -> float:
    """``f1_score`` of evaluate-v1.1.py, SQuAD's official program, written out again."""

    def normalize_answer(text: str) -> str:
        exclude = set(string.punctuation)
        lowered = "".join(ch for ch in text.lower() if ch not in exclude)
        return " ".join(re.sub(r"\b(a|an|the)\b", " ", lowered).split())

    prediction_tokens = normalize_answer(prediction).split()
    ground_truth_tokens = normalize_answer(ground_truth).split()
    common = Counter(prediction_tokens) & Counter(ground_truth_tokens)
    num_same = sum(common.values())
    if num_same == 0:
        return 0
    precision = 1.0 * num_same / len(prediction_tokens)
    recall = 1.0 * num_same / len(ground_truth_tokens)
    return (2 * precision * recall) / (precision + recall)


answer = st.lists(st.sampled_from(["", "the", "A", "Paris", "paris!", "in", "the-", "3.5"])).map(
    " ".join
)


@given(answer, st.lists(answer, min_size=1, max_size=3))
def test_f1_is_that_of_squads_official_program(prediction, references):
    expected = max(squad_1_1(prediction, reference) for reference in references)
    assert one("squad_f1", prediction, *references) == pytest.approx(expected)


def test_articles_inside_words_stay():
    assert answer_words("An anthem, a la the-atre") == ["anthem", "la", "theatre"]


# Numbers

REFERENCE = "Half of 48 is <<48/2=24>>24.\n48 + 24 = 72 are sold.\n#### 72"


@pytest.mark.parametrize(
    ("output", "right"),
    [
        ("It is 24 and 48.\n#### 72", True),
        ("#### 72\n\nQuestion: 3 birds\nAnswer: #### 5", True),
        ("#### 71, for 72", False),
        ("So the answer is 72.", True),
        ("The answer is $72.00!", True),
        ("72 of 100", False),
        ("72.5", False),
        ("-72", False),
        ("#### none, but 72", True),
        ("####\n72", True),
        ("72 ####", True),
        ("seventy-two", False),
        ("", False),
    ],
)
def test_final_numbers_by_hand(output, right):
    assert one("final_number_match", output, REFERENCE) == right


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("#### 1,234", "1234"),
        ("#### $1,234,567.50.", "1234567.5"),
        ("#### -3", "-3"),
        ("a rate of .5", "0.5"),
        ("10,", "10"),
        ("x2 y3", "3"),
        ("#### 5 apples and 6 pears", "5"),
        ("no number", None),
    ],
)
def test_the_number_of_a_text(text, number):
    assert final_number(text) == (None if number is None else Decimal(number))


def test_a_reference_without_a_number_is_a_text():
    assert one("final_number_match", "no  idea", "no idea") == 1
    assert one("final_number_match", "no idea 5", "no idea") == 0


# Phonemes

phoneme = st.sampled_from(["AH", "B", "K", "S"])
spoken = st.lists(phoneme, max_size=6)


def fewest_edits(one: tuple[str, ...], two: tuple[str, ...]) -> int:
    """From the beginning and by what happens to the first symbols, not by a table of prefixes."""

    @cache
    def edits(left: tuple[str, ...], right: tuple[str, ...]) -> int:
        if not left or not right:
            return len(left) + len(right)
        if left[0] == right[0]:
            return edits(left[1:], right[1:])
        return 1 + min(edits(left[1:], right), edits(left, right[1:]), edits(left[1:], right[1:]))

    return edits(one, two)


@given(spoken, spoken)
def test_edit_distance(left, right):
    assert edit_distance(left, right) == fewest_edits(tuple(left), tuple(right))


@given(spoken, spoken, spoken)
def test_edit_distance_is_a_metric(a, b, c):
    assert edit_distance(a, b) == edit_distance(b, a)
    assert (edit_distance(a, b) == 0) is (a == b)
    assert edit_distance(a, c) <= edit_distance(a, b) + edit_distance(b, c)


@given(st.lists(st.tuples(spoken, spoken.filter(bool)), min_size=1, max_size=5))
def test_the_rate_is_edits_over_phonemes_of_the_whole_corpus(pairs):
    found = score_generation(
        info("phoneme_error_rate"),
        [" ".join(p) for p, _ in pairs],
        [" ".join(r) for _, r in pairs],
    )
    edits = [fewest_edits(tuple(p), tuple(r)) for p, r in pairs]
    phonemes = [len(r) for _, r in pairs]
    assert found.corpus["phoneme_error_rate"] == pytest.approx(sum(edits) / sum(phonemes))
    for sample, errors, length in zip(found.samples, edits, phonemes, strict=True):
        assert sample["phoneme_error_rate"] == pytest.approx(errors / length)


def test_the_rate_by_hand():
    found = compute_generation(
        info("phoneme_error_rate", "exact_match"),
        ["K AH T", "B", "S AH S AH"],
        ["K AE T", "B", "S"],
    )
    assert found == {
        "phoneme_error_rate": pytest.approx(4 / 5),
        "exact_match": pytest.approx(1 / 3),
    }
    assert GENERATION_METRICS.load("phoneme_error_rate").lower_is_better


# All of them


@pytest.mark.parametrize("metric", sorted(GENERATION_METRICS))
def test_the_best_reference_counts(metric):
    good, bad = "the big cat sat on a mat today", "something else entirely was written here now"
    both = one(metric, good, bad, good)
    assert both == one(metric, good, good, bad)
    assert both == pytest.approx(one(metric, good, good))
    assert both != pytest.approx(one(metric, good, bad))


@pytest.mark.parametrize("metric", sorted(GENERATION_METRICS))
def test_empty_texts_are_scored_not_refused(metric):
    lower = GENERATION_METRICS.load(metric).lower_is_better
    assert one(metric, "", "some words here now") == (1.0 if lower else 0.0)
    assert math.isfinite(one(metric, "some words", ""))


@pytest.mark.parametrize("metric", sorted(set(GENERATION_METRICS) - {"bleu", "phoneme_error_rate"}))
@given(pairs=st.lists(st.tuples(texts, texts), min_size=1, max_size=5))
def test_the_corpus_is_the_mean_of_its_samples_in_0_1(metric, pairs):
    found = score_generation(info(metric), [p for p, _ in pairs], [r for _, r in pairs])
    each = [sample[metric] for sample in found.samples]
    assert all(0 <= value <= 1 for value in each)
    assert found.corpus[metric] == pytest.approx(fmean(each))


def test_the_tasks_metrics_in_its_order():
    metrics = ("rouge_l", "bleu", "exact_match")
    found = score_generation(info(*metrics), ["a b"], ["a b"])
    assert tuple(found.corpus) == tuple(found.samples[0]) == metrics


def test_an_unknown_metric_suggests_the_nearest():
    with pytest.raises(UsageError, match="Unknown generation metric 'rouge_3'") as caught:
        compute_generation(info("rouge_3"), ["a"], ["a"])
    assert "rouge_1" in caught.value.hint


@pytest.mark.parametrize(("predictions", "references"), [([], []), (["a"], ["a", "b"])])
def test_samples_must_match(predictions, references):
    with pytest.raises(ValueError, match="predictions"):
        compute_generation(info("exact_match"), predictions, references)
