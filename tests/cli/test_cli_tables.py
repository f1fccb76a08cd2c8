"""One table, five ways to print it: what one prints, another reader gets back."""

from __future__ import annotations

import csv
import io
import json
import re
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from eexit_cli.ui.measures import MEASURES, label, written
from eexit_cli.ui.screens.attack import highlighted, slowdown
from eexit_cli.ui.screens.evaluate import exits, quality, settings
from eexit_cli.ui.screens.words import criterion_words, shortened
from eexit_cli.ui.tables import Column, Sheet, render, sheet_of

TEXT = st.text(alphabet=st.characters(blacklist_categories=("Cs", "Cc")), max_size=12)
ROWS = st.lists(
    st.fixed_dictionaries(
        {
            "name": TEXT,
            "value": st.none() | st.integers() | st.floats(allow_nan=False, allow_infinity=False),
        }
    ),
    max_size=4,
)


def _sheet(rows) -> Sheet:
    return Sheet([Column("name"), Column("value", numeric=True)], rows)


@given(ROWS)
def test_csv_reads_back(rows) -> None:
    read = list(csv.DictReader(io.StringIO(render(_sheet(rows), "csv"), newline="")))
    assert [row["name"] for row in read] == [row["name"] for row in rows]
    for row, again in zip(rows, read, strict=True):
        expected = row["value"]
        assert (
            again["value"] == "" if expected is None else type(expected)(again["value"]) == expected
        )


@given(ROWS)
def test_json_reads_back(rows) -> None:
    assert json.loads(render(_sheet(rows), "json")) == rows


@given(ROWS)
def test_markdown_has_one_line_per_row_and_no_stray_bars(rows) -> None:
    lines = render(_sheet(rows), "markdown").split("\n")
    assert len(lines) == len(rows) + 3
    for line in lines[:-1]:
        assert len(re.findall(r"(?<!\\)(?:\\\\)*\|", line)) == 3


@given(TEXT)
def test_latex_cells_hold_no_special_character_unescaped(text) -> None:
    rows = [{"name": text, "value": 1}]
    body = render(_sheet(rows), "latex").split("\n")[4]
    cell = body.removesuffix(r" & 1 \\")
    cell = re.sub(
        r"\\(textbackslash|textasciitilde|textasciicircum|textless|textgreater|textbar)\{\}",
        "",
        cell,
    )
    cell = re.sub(r"\\[&%$#_{}]", "", cell)
    assert not set(cell) & set("&%$#_{}~^\\")


def test_latex_compiles_in_shape() -> None:
    text = render(_sheet([{"name": "50 % of a_b & c", "value": 0.5}]), "latex")
    assert text.startswith("\\begin{tabular}{lr}\n\\hline\nName & Value \\\\\n\\hline\n")
    assert r"50 \% of a\_b \& c & 0.5 \\" in text
    assert text.endswith("\\hline\n\\end{tabular}\n")


def test_sheet_of_takes_columns_as_they_come() -> None:
    sheet = sheet_of([{"a": 1}, {"a": 2, "b": "x"}])
    assert [(column.key, column.numeric) for column in sheet.columns] == [("a", True), ("b", False)]
    assert render(sheet, "csv") == "a,b\n1,\n2,x\n"


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("accuracy", 0.8765, "87.6 %"),
        ("accuracy_exit_3", 0.5, "50.0 %"),
        ("accuracy_full", 0.5, "50.0 %"),
        ("mean_exit_layer", 3.14159, "3.14"),
        ("speedup_layers", 1.9099, "1.91x"),
        ("saved_layers", 0.4764, "47.6 %"),
        ("cost_layers", 0.5236, "52.4 %"),
        ("latency_ms", 12.3456, "12.35 ms"),
        ("seconds", 300.0, "5.0 min"),
        ("queries_mean", 1234.5, "1,234.5"),
        ("flops_per_sample", 2.5e9, "2.50 GFLOP"),
        ("flops_per_sample", 5e5, "0.50 MFLOP"),
        ("threshold", 0.641161, "0.641161"),
        ("threshold", 1.0, "1"),
        ("mean_loss", 0.10001, "0.101"),
        ("mean_loss", 0.1 + 0.2, "0.300"),
        ("mean_loss_bound", 0.0991, "0.100"),
        ("mean_loss_low", 0.0999, "0.099"),
        ("mean_loss_high", 0.0991, "0.100"),
        ("p_value", 0.0500001, "0.051"),
        ("p_value", 0.05, "0.050"),
        ("p_value", 1.23e-7, "1.3e-7"),
        ("unheard_of", 0.123456, "0.1235"),
        ("anything", None, "-"),
        ("anything", True, "yes"),
        ("anything", "word", "word"),
    ],
)
def test_figures_are_written_for_people(name, value, expected) -> None:
    assert written(name, value) == expected


@given(st.floats(0, 1))
def test_what_a_guarantee_rests_on_is_never_past_itself(value) -> None:
    assert float(written("threshold", value)) == value
    for name in ("mean_loss_bound", "mean_loss_high", "p_value"):
        assert Fraction(written(name, value)) >= Fraction(repr(value))
    assert Fraction(written("mean_loss_low", value)) <= Fraction(repr(value))
    for stored in (
        {"criterion": "threshold", "confidence": "entropy", "threshold": value},
        {"criterion": "shallow-deep", "confidence": "softmax", "shallow_layer": 1}
        | {"threshold": value},
        {"criterion": "voting", "voting": value},
    ):
        assert float(criterion_words(stored).split()[-1]) == value


def test_the_three_speed_figures_keep_their_own_names() -> None:
    names = [label(name) for name in ("speedup_layers", "saved_layers", "cost_layers")]
    assert len(set(names)) == 3
    assert [name.split(" (")[0] for name in names] == ["Speedup", "Saved layers", "Cost"]
    assert len({title for title, _ in MEASURES.values()}) >= len(MEASURES) - 1


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        (
            {"criterion": "threshold", "confidence": "entropy", "threshold": 0.19},
            "entropy below 0.19",
        ),
        ({"criterion": "threshold", "confidence": "margin", "threshold": 0.9}, "margin above 0.9"),
        ({"criterion": "patience", "patience": 4}, "patience 4"),
        ({"criterion": "static", "static_layer": 3}, "always after layer 3"),
        ({"criterion": "voting", "threshold": 2.0}, "votes of 2"),
        ({"criterion": "full"}, "none, the full model"),
        (None, "the model's own"),
    ],
)
def test_criteria_in_words(settings, words) -> None:
    assert criterion_words(settings) == words


def test_every_criterion_of_the_catalog_has_words() -> None:
    from eexit_cli.confidence import MEASURES as MEASURE_CATALOG
    from eexit_cli.exits import CRITERIA

    sample = {"threshold": 0.5, "patience": 2, "static_layer": 1, "confidence": "entropy"}
    for name in CRITERIA:
        assert criterion_words({"criterion": name, **sample}) != name
    falling = {name for name in MEASURE_CATALOG if not MEASURE_CATALOG.load(name).rises}
    for name in MEASURE_CATALOG:
        words = criterion_words({"criterion": "threshold", "confidence": name, "threshold": 0.5})
        assert ("below" in words) == (name in falling)


def test_marks_follow_the_word_count_and_not_the_first_match() -> None:
    text = "a fine film, a great film"
    drawn = highlighted(text, [(3, "a"), (5, "film")], "red", brackets=True)
    assert drawn.plain == "a fine film, [a] great [film]"


def test_marks_fall_back_to_whole_words() -> None:
    text = "an ant and a bee"
    drawn = highlighted(text, [(99, "a"), (99, "bee"), (99, "wasp")], "red", brackets=True)
    assert drawn.plain == "an ant and [a] [bee]"


@given(TEXT, st.lists(st.tuples(st.integers(0, 5), TEXT), max_size=3))
def test_marking_never_changes_the_text(text, changes) -> None:
    assert highlighted(text, changes, "red").plain == text


def test_slowdown_pairs_before_and_after() -> None:
    metrics = {
        "accuracy_before": 0.9,
        "accuracy_after": 0.4,
        "mean_exit_layer_before": 2.0,
        "mean_exit_layer_after": 5.0,
        "gain_removed": 0.75,
        "num_layers": 6,
    }
    rows = slowdown({"metrics": metrics}).rows
    assert [(row["metric"], row["before"], row["after"]) for row in rows] == [
        ("accuracy", 0.9, 0.4),
        ("mean_exit_layer", 2.0, 5.0),
        ("gain_removed", None, 0.75),
    ]


def test_quality_puts_the_full_model_beside() -> None:
    metrics = {
        "accuracy": 0.8,
        "accuracy_full": 0.9,
        "mean_exit_layer": 2.0,
        "speedup_layers": 2.0,
        "latency_ms": 3.0,
        "latency_full_ms": 6.0,
        "accuracy_exit_1": 0.5,
        "exited_at_1": 7,
        "num_layers": 4,
    }
    rows = {row["metric"]: row for row in quality({"metrics": metrics}).rows}
    assert set(rows) == {"accuracy", "mean_exit_layer", "speedup_layers", "latency_ms"}
    assert rows["accuracy"]["full_model"] == 0.9
    assert rows["mean_exit_layer"]["full_model"] == 4
    assert rows["speedup_layers"]["full_model"] == 1
    assert rows["latency_ms"]["full_model"] == 6.0
    assert exits(metrics).rows == [{"exit": 1, "accuracy": 0.5, "exited_at": 7}]


def test_sweep_is_thinned_with_both_ends_kept() -> None:
    rows = [
        {
            "criterion": "threshold",
            "confidence": "entropy",
            "threshold": i,
            "mean_exit_layer": 6 - i / 10,
        }
        for i in range(40)
    ]
    shown = settings({"metrics": {}, "rows": rows}).rows
    assert len(shown) == 10
    assert (shown[0]["threshold"], shown[-1]["threshold"]) == (0, 39)


def test_shortened() -> None:
    assert shortened("a  b\nc") == "a b c"
    assert shortened("abcdef", 4) == "abc…"


@pytest.mark.parametrize(("width", "lines"), [(80, 1), (36, 2), (20, 3)])
def test_facts_wrap_between_pairs_only(width, lines) -> None:
    from rich.console import Console

    from eexit_cli.ui.screens.words import facts

    text = io.StringIO()
    pairs = {"model": "tiny one", "gone": None, "data": "a [bold], b", "exit": "none"}
    Console(file=text, width=width).print(facts(pairs))
    assert len(text.getvalue().splitlines()) == lines
    for pair in ("model tiny one", "data a [bold], b", "exit none"):
        assert pair in text.getvalue()
    assert "gone" not in text.getvalue()
