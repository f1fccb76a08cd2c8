from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from eexit_cli.core.errors import UsageError
from eexit_cli.core.types import TaskInfo
from eexit_cli.data.label_values import Cell
from eexit_cli.data.labels import align, are_generic, infer, parse_classes, parse_values
from eexit_cli.data.samples import Samples

MNLI = TaskInfo("mnli", "classification", ("entailment", "neutral", "contradiction"), pair=True)
SENTIMENT = TaskInfo("sst2", "classification", ("negative", "positive"))
SCORE = TaskInfo("stsb", "regression", pair=True)


def samples(labels: list[int] | None) -> Samples:
    size = 3 if labels is None else len(labels)
    return Samples([str(i) for i in range(size)], ["text"] * size, None, labels)


def cells(*values: object) -> list[Cell]:
    return [Cell(value, "x.csv", "line", number) for number, value in enumerate(values, start=2)]


def test_labels_follow_the_models_order(recorder):
    names = ("contradiction", "entailment", "neutral")
    info, found = align(MNLI, samples([0, 1, 2]), names, recorder)
    assert info.label_names == names
    assert found.labels == [1, 2, 0]
    assert [names[label] for label in found.labels] == list(MNLI.label_names)
    assert recorder.messages == []


@pytest.mark.parametrize("names", [("POS", "neg"), ("Positive", "Negative"), ("pos", "neg")])
def test_names_match_by_case_and_beginning(recorder, names):
    _, found = align(SENTIMENT, samples([0, 1]), names, recorder)
    assert found.labels == [1, 0]


def test_separators_do_not_count(recorder):
    task = TaskInfo("rte", "classification", ("entailment", "not_entailment"))
    _, found = align(task, samples([0, 1]), ("not entailment", "Entailment"), recorder)
    assert found.labels == [1, 0]


def test_numbered_names_keep_the_order_and_three_of_them_are_announced(recorder):
    info, found = align(SENTIMENT, samples([0, 1]), ("LABEL_0", "LABEL_1"), recorder)
    assert (info, found.labels, recorder.messages) == (SENTIMENT, [0, 1], [])
    _, found = align(MNLI, samples([2, 0]), ("LABEL_0", "LABEL_1", "LABEL_2"), recorder)
    assert found.labels == [2, 0]
    assert "entailment, neutral, contradiction" in recorder.messages[0]


@pytest.mark.parametrize("names", [("spam", "ham"), ("negative", "neg")])
def test_foreign_names_keep_the_order_and_say_so(recorder, names):
    info, found = align(SENTIMENT, samples([1, 0]), names, recorder)
    assert info == SENTIMENT
    assert found.labels == [1, 0]
    assert names[0] in recorder.messages[0]


def test_hidden_labels_stay_hidden(recorder):
    info, found = align(SENTIMENT, samples(None), ("positive", "negative"), recorder)
    assert info.label_names == ("positive", "negative")
    assert found.labels is None


@pytest.mark.parametrize(
    ("task", "names"),
    [(MNLI, ("negative", "positive")), (SENTIMENT, ()), (SENTIMENT, ("x",)), (SCORE, ("a", "b"))],
)
def test_another_number_of_outputs_is_an_error(recorder, task, names):
    with pytest.raises(UsageError, match=f"Task '{task.name}' needs") as caught:
        align(task, samples([0]), names, recorder)
    assert "--task" in caught.value.hint


@pytest.mark.parametrize("names", [(), ("LABEL_0",)])
def test_regression_fits_regression(recorder, names):
    assert align(SCORE, samples([1]), names, recorder) == (SCORE, samples([1]))


@given(st.permutations(["alpha", "beta", "gamma", "delta"]), st.lists(st.integers(0, 3)))
def test_aligning_never_changes_a_samples_class(order, labels):
    task = TaskInfo("t", "classification", ("alpha", "beta", "gamma", "delta"))
    info, found = align(task, samples(labels), order, None)  # type: ignore[arg-type]
    assert [info.label_names[label] for label in found.labels or ()] == [
        task.label_names[label] for label in labels
    ]


def test_generic_names():
    assert are_generic(["LABEL_0", "label-1", "2"])
    assert not are_generic(["LABEL_0", "positive"])


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("positive", 1),
        (" Positive ", 1),
        ("NEGATIVE", 0),
        (1, 1),
        ("1", 1),
        ("0.0", 0),
        (1.0, 1),
        (True, 1),
    ],
)
def test_a_class_by_name_or_id(value, expected):
    assert parse_classes(cells(value), ("negative", "positive")) == [expected]


def test_a_name_wins_over_an_id():
    assert parse_classes(cells("1", "5"), ("5", "1")) == [1, 0]


def test_case_decides_where_names_differ_by_it_alone():
    assert parse_classes(cells("US", "us"), ("us", "US")) == [1, 0]
    with pytest.raises(UsageError, match="label 'Us' is outside the classes"):
        parse_classes(cells("Us"), ("us", "US"))


@pytest.mark.parametrize("value", [2, "-1", "0.5", "nan", "inf", "good", "", None, 10**400, [1]])
def test_a_label_outside_the_classes(value):
    with pytest.raises(UsageError, match=r"^x\.csv, line 3: label .* is outside the") as caught:
        parse_classes(cells(0, value), ("negative", "positive"))
    assert "negative, positive (or 0 to 1)" in caught.value.hint


def test_the_nearest_class_is_named():
    with pytest.raises(UsageError) as caught:
        parse_classes(cells("positiv"), ("negative", "positive"))
    assert caught.value.hint.startswith("Did you mean positive")


def test_values():
    assert parse_values(cells("1.5", 2, "-3e-1")) == [1.5, 2.0, -0.3]
    for bad in ("", None, "high", "nan", "inf"):
        with pytest.raises(UsageError, match=r"line 2: label .* is not a number"):
            parse_values(cells(bad))


def test_infer_classes_from_names_numbers_and_fractions():
    assert infer(cells("neg", "pos", "NEG"), "x") == (("neg", "pos"), [0, 1, 0])
    assert infer(cells("5", "1", 3), "x") == (("1", "3", "5"), [2, 0, 1])
    assert infer(cells("0.5", "1"), "x") == ((), [0.5, 1.0])
    assert infer(cells("1", "yes"), "x") == (("1", "yes"), [0, 1])


def test_infer_refuses_one_class_and_gaps():
    with pytest.raises(UsageError, match=r"x\.csv has one label only \('good'\)"):
        infer(cells("good", "Good"), "x.csv")
    with pytest.raises(UsageError, match="line 3: the label is empty"):
        infer(cells("good", " "), "x.csv")
