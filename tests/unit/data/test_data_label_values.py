"""Any spelling of a label is the same class, in training and in evaluation; gaps are no class."""

from __future__ import annotations

import string
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from eexit_cli.core.errors import UsageError
from eexit_cli.data.label_values import MISSING, Cell
from eexit_cli.data.labels import Classes, infer, parse_classes, parse_values


def cells(*values: object) -> list[Cell]:
    return [Cell(value, "x.csv", "line", number) for number, value in enumerate(values, start=2)]


def number_spellings(number: int) -> list[object]:
    """Derived from Python's own reading of each: every one is this number."""
    sign, digits = ("-" if number < 0 else ""), str(abs(number))
    texts = [f"{sign}{digits}", f"{sign}{digits}.0", f"{sign}0{digits}", f" {sign}{digits}.00\t"]
    texts += [f"+{digits}", f"+0{digits}.0"] if number >= 0 else []
    texts += [f"{sign}{digits}e0", f"{sign}{digits}.", *(["-0", "-0.0"] if number == 0 else [])]
    assert all(Decimal(text.strip()) == number for text in texts)
    return [*texts, number, float(number), Decimal(number), Decimal(f"{number}.0")]


def word_spellings(word: str) -> list[object]:
    spaced = word.replace("_", " ")
    return [word, word.upper(), f" {word.title()} ", spaced, spaced.replace(" ", "-"), f"{word}\n"]


# However they are spelled, they stand for no label.
NO_LABELS = {"nan", "inf", "infinity", *(missing.casefold() for missing in MISSING)}
words = st.lists(st.text(string.ascii_lowercase, min_size=1, max_size=5), min_size=1, max_size=3)
labels = st.one_of(
    st.integers(-(10**6), 10**6).map(number_spellings),
    words.map("_".join).filter(lambda word: word not in NO_LABELS).map(word_spellings),
)


@given(st.data(), st.lists(labels, min_size=2, max_size=5))
def test_any_spelling_of_a_label_is_its_class_in_training_and_evaluation(data, kinds):
    distinct = {str(kind[0]): kind for kind in kinds}
    if len(distinct) < 2:
        return
    kinds = list(distinct.values())
    truth = [*range(len(kinds)), *data.draw(st.lists(st.integers(0, len(kinds) - 1), max_size=9))]
    trained = [data.draw(st.sampled_from(kinds[kind])) for kind in truth]
    names, ids = infer(cells(*trained), "x.csv")
    # One id for each label, whatever it was written like.
    assert len(names) == len(kinds) == len(set(zip(truth, ids, strict=True))) == len(set(ids))
    class_of = dict(zip(truth, ids, strict=True))
    evaluated = [data.draw(st.sampled_from(kinds[kind])) for kind in truth]
    assert parse_classes(cells(*evaluated), names) == [class_of[kind] for kind in truth]


@given(st.lists(st.integers(-50, 50), min_size=2, max_size=6, unique=True), st.data())
def test_numbers_are_classes_in_their_order(numbers, data):
    written = [data.draw(st.sampled_from(number_spellings(number))) for number in numbers]
    names, ids = infer(cells(*written), "x.csv")
    assert names == tuple(map(str, sorted(numbers)))
    assert [sorted(numbers)[index] for index in ids] == numbers


def test_what_is_not_the_same_label_stays_apart():
    assert infer(cells("-1", "1", "-1.0"), "x")[0] == ("-1", "1")
    assert infer(cells(-0.0, "0", "-0", 1), "x")[0] == ("0", "1")
    assert parse_classes(cells("-1.0", "1.0", 1), ("-1", "1")) == [0, 1, 1]
    assert infer(cells("A", "A-", "A+"), "x")[0] == ("A", "A+", "A-")
    assert infer(cells("+", "-"), "x")[0] == ("+", "-")
    # Beyond what a float tells apart.
    assert infer(cells("9007199254740993", 9007199254740992), "x")[1] == [1, 0]
    assert infer(cells("1e30", "x" * 40), "x")[0] == ("1" + "0" * 30, "x" * 40)


@pytest.mark.parametrize("value", [0, "0", 2, "2", 2.0, "true", 3])
def test_a_number_that_names_no_class_is_no_id_where_the_classes_are_numbers(value):
    names = ("1", "3") if value in (2, "2", "true", 0, "0") else ("1", "5")
    with pytest.raises(UsageError, match="outside the classes") as caught:
        parse_classes(cells(value), names)
    assert "or 0 to" not in caught.value.hint


@pytest.mark.parametrize(
    ("names", "value", "expected"),
    [
        (("1", "2"), 1.0, 0),
        (("1", "2"), "01", 0),
        (("negative", "positive"), 1.0, 1),
        (("negative", "positive"), "+1", 1),
        (("0", "1"), "1.0", 1),
        (("1", "0"), 1, 0),
        (("LABEL_0", "LABEL_1"), 1, 1),
        (("class 0", "class 1"), 1, 1),
        (("negative", "positive"), True, 1),
        (("negative", "positive"), "False", 0),
        (("False", "True"), True, 1),
        (("true", "false"), "FALSE", 1),
    ],
)
def test_a_name_wins_and_an_id_where_no_class_is_another_number(names, value, expected):
    assert parse_classes(cells(value), names) == [expected]


@pytest.mark.parametrize(
    "names", [("1 star", "2 stars"), ("LABEL_1", "LABEL_0"), ("one", "two", "label 7")]
)
def test_names_with_other_numbers_in_them_take_no_ids(names):
    assert not Classes(names).takes_ids
    with pytest.raises(UsageError, match="outside the classes"):
        parse_classes(cells(1), names)


def test_truth_values_of_three_classes_and_of_a_regression_are_nothing():
    with pytest.raises(UsageError, match="outside the classes"):
        parse_classes(cells(True), ("a", "b", "c"))
    with pytest.raises(UsageError, match="'True' is not a number"):
        parse_values(cells(1.5, True))


GAPS = [None, "", "  ", "NA", "N/A", "nan", "NaN", "<NA>", "null", "None", float("nan")]


@pytest.mark.parametrize("gap", [*GAPS, float("inf"), "-inf", Decimal("NaN")])
@pytest.mark.parametrize("others", [("0", "1"), (0.5, 1.5), ("good", "bad")])
def test_a_gap_is_an_error_that_names_its_row(gap, others):
    """Not a class, and no reason to read a regression as classes."""
    first, second = others
    with pytest.raises(UsageError, match=r"^x\.csv, line 4: the label is (empty|missing: ')"):
        infer(cells(first, second, gap, first), "x.csv")
    with pytest.raises(UsageError, match=r"^x\.csv, line 3: label .* is outside the classes"):
        parse_classes(cells("good", gap), ("bad", "good"))
    with pytest.raises(UsageError, match=r"^x\.csv, line 3: label .* is not a number"):
        parse_values(cells(0.5, gap))


@pytest.mark.parametrize("gap", [None, "", "  "])
def test_what_is_empty_is_called_so(gap):
    with pytest.raises(UsageError) as caught:
        parse_classes(cells("good", gap), ("bad", "good"))
    assert caught.value.message == "x.csv, line 3: label (empty) is outside the classes"


def test_the_first_five_rows_are_named_and_all_are_counted():
    with pytest.raises(UsageError) as caught:
        infer(cells(1, *[None] * 7, 2), "x.csv")
    assert caught.value.message == "x.csv, 7 lines (3, 4, 5, 6, 7, ...): the label is empty"
    with pytest.raises(UsageError) as caught:
        parse_values(cells(1, "NA", "NA"))
    assert caught.value.message == "x.csv, 2 lines (3, 4): label 'NA' is not a number"
    with pytest.raises(UsageError) as caught:
        parse_classes(cells("a", "c", "d", "b"), ("a", "b"))
    assert caught.value.message == "x.csv, 2 lines (3, 4): label 'c' is outside the classes"


@pytest.mark.parametrize(
    ("value", "kind"), [([27], "a list"), ({"a": 1}, "an object"), (b"x", "a sequence of bytes")]
)
def test_a_list_or_an_object_is_no_label(value, kind):
    with pytest.raises(UsageError, match=rf"line 3: the label is {kind}"):
        infer(cells("a", value, "b"), "x")
    # Not even for a model that was once trained on such texts.
    with pytest.raises(UsageError, match="outside the classes"):
        parse_classes(cells(value), (str(value), "b"))


def test_a_class_that_is_called_like_a_gap_must_be_known():
    assert parse_classes(cells("NA", "ZA"), ("NA", "ZA")) == [0, 1]
    # pandas reads these as text, too.
    assert infer(cells("none", "favor"), "x")[0] == ("favor", "none")
