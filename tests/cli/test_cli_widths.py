"""Tables at every width: no cell cropped, no number and no word broken that has room."""

from __future__ import annotations

import io
import json
import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from rich.cells import cell_len
from rich.console import Console
from synthetic_calibrations import calibration_run
from synthetic_decodings import decoding_run
from synthetic_runs import attack_run, evaluate_run, transfer_run

from eexit_cli.core.types import RunResult
from eexit_cli.store.results import ResultStore
from eexit_cli.ui.drawing import GAP, Drawn, shortened_middle
from eexit_cli.ui.output import Output
from eexit_cli.ui.screens import show_result
from eexit_cli.ui.screens.listings import SHORTEST_ID, properties, recipes, runs
from eexit_cli.ui.tables import Column, Sheet

WIDTHS = (60, 80, 120)


def printed(sheet: Sheet, width: int) -> list[str]:
    text = io.StringIO()
    Console(file=text, width=width, color_system=None).print(sheet.drawn())
    lines = text.getvalue().split("\n")
    assert max(map(cell_len, lines)) <= width
    return lines


def columns_of(sheet: Sheet, width: int) -> dict[int, tuple[str, list[str]]] | None:
    """Heading and lines of each column, cut out of what is printed; None where it is in blocks."""
    parts = Drawn(sheet).parts(width)
    if parts is None:
        return None
    lines = printed(sheet, width)
    if sheet.title is not None:
        lines = lines[1:]
    headed = any(column.title for column in sheet.columns)
    found: dict[int, tuple[str, list[str]]] = {}
    for part in parts:
        if headed:
            rule = next(i for i, line in enumerate(lines) if line.startswith(" ─"))
            head, body = lines[1:rule], lines[rule + 1 :]
        else:
            head, body = [], lines[1:]
        stop = next(i for i, line in enumerate(body) if not line.strip())
        body, lines = body[:stop], body[stop + 1 :]
        start = 1
        for place, room in zip(part.columns, part.widths, strict=True):
            cut = slice(start, start + room)
            found[place] = (
                " ".join(line[cut].strip() for line in head),
                [line[cut] for line in body if line[cut].strip()],
            )
            start += room + GAP
    return found


def check(sheet: Sheet, width: int) -> None:
    """All cells are there, and words are broken only where they alone are too wide."""
    cells = [[column.cell(row) for row in sheet.rows] for column in sheet.columns]
    found = columns_of(sheet, width)
    if found is None:
        together = "".join("".join(printed(sheet, width)).split())
        for column in cells:
            for cell in column:
                assert "".join(cell.split())[:20] in together
        return
    assert sorted(found) == list(range(len(sheet.columns)))
    for place, (heading, lines) in found.items():
        column = sheet.columns[place]
        if any(other.title for other in sheet.columns):
            assert heading.split() == column.title.split()
        if column.shortest is not None:
            for cell, line in zip(cells[place], lines, strict=True):
                assert line.rstrip() == shortened_middle(cell, len(line))
            continue
        words = [word for cell in cells[place] for word in cell.split()]
        assert "".join("".join(lines).split()) == "".join(words)
        if any(other.title for other in sheet.columns):
            assert " ".join(lines).split() == words
        if column.numeric or column.whole:
            written = [cell.strip() for cell in cells[place] if cell.strip()]
            assert [line.strip() for line in lines] == written


WORD = st.text(alphabet="abcxyz0189.%-[]", min_size=1, max_size=14)
TEXTS = st.lists(WORD, min_size=1, max_size=6).map(" ".join)


@st.composite
def sheets(draw: st.DrawFn) -> Sheet:
    count = draw(st.integers(1, 9))
    kinds = [draw(st.sampled_from(["text", "whole", "number"])) for _ in range(count)]
    cells = {"text": TEXTS, "whole": WORD, "number": WORD}
    columns = [
        Column(
            str(place),
            draw(st.lists(WORD, min_size=1, max_size=3).map(" ".join)),
            text=lambda row, place=place: row[str(place)],
            numeric=kind == "number",
            whole=kind == "whole",
        )
        for place, kind in enumerate(kinds)
    ]
    rows = draw(
        st.lists(
            st.fixed_dictionaries({str(place): cells[kind] for place, kind in enumerate(kinds)}),
            min_size=1,
            max_size=5,
        )
    )
    return Sheet(columns, rows, draw(st.none() | st.just("A title")))


@settings(max_examples=60)
@given(sheets(), st.integers(40, 130))
@example(Sheet([Column("a", "A"), Column("b", "B", numeric=True)], [{"a": "x" * 90, "b": 1}]), 40)
def test_no_text_of_a_cell_is_lost_at_any_width(sheet: Sheet, width: int) -> None:
    found = columns_of(sheet, width)
    if found is None:
        rows = ["".join(column.cell(row) for column in sheet.columns) for row in sheet.rows]
        letters = "".join(printed(sheet, width))
        for row in rows:
            for word in row.split():
                assert set(word) <= set(letters)
        return
    check(sheet, width)


@settings(max_examples=30)
@given(st.lists(st.lists(TEXTS, min_size=3, max_size=3), min_size=1, max_size=4))
def test_blocks_hold_each_value_beside_its_heading(rows: list[list[str]]) -> None:
    long = "an-identifier-that-leaves-no-room-for-anything-else"
    columns = [Column("id", "Id", whole=True), *(Column(f"c{i}", f"C{i}") for i in range(3))]
    sheet = Sheet(
        columns,
        [
            {"id": f"{long}-{number}", **{f"c{i}": cell for i, cell in enumerate(row)}}
            for number, row in enumerate(rows)
        ],
    )
    assert Drawn(sheet).parts(46) is None
    lines = [line for line in printed(sheet, 46) if line.strip()]
    values: list[tuple[str, str]] = []
    for line in lines:
        if line[:2].strip():
            values.append((line[:2], ""))
        values[-1] = (values[-1][0], f"{values[-1][1]} {line[4:].strip()}")
    expected = [
        (name, value)
        for number, row in enumerate(rows)
        for name, value in zip(("Id", "C0", "C1", "C2"), (f"{long}-{number}", *row), strict=True)
    ]
    assert [(name, "".join(value.split())) for name, value in values] == [
        (name, "".join(value.split())) for name, value in expected
    ]


def training(store: ResultStore, rows: list[dict[str, Any]]) -> Any:
    with store.create("train", {"model": "deebert", "task": "sst2", "output": "mine"}) as run:
        metrics = {f"accuracy_exit_{i}": 0.5 + i / 100 for i in range(1, 7)}
        metrics |= {f"f1_exit_{i}": 0.4 + i / 100 for i in range(1, 7)}
        run.finish(metrics=metrics, rows=rows)
    return run


SCREENS = {
    "attack": attack_run,
    "attack with every recipe": lambda store: attack_run(
        store, recipes=("same-token", "same-char", "bert-attack", "deepwordbug", "random")
    ),
    "evaluation": evaluate_run,
    "sweep": lambda store: evaluate_run(store, sweep=True),
    "decoding": decoding_run,
    "decoding grid": lambda store: decoding_run(store, top_k=(0, 10), thresholds=(0.9, 0.5)),
    "decoding sweep": lambda store: decoding_run(
        store, sweep=("softmax", "transformer_mlp_64"), static=True
    ),
    "calibration": calibration_run,
    "training": lambda store: training(store, []),
    "training of classifiers": lambda store: training(
        store,
        [
            {"confidence": name, **{f"auroc_exit_{i}": 0.9 - i / 100 for i in range(1, 13)}}
            for name in ("linear", "transformer_mlp_64")
        ],
    ),
}


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("screen", SCREENS)
def test_every_screen_shows_every_cell_whole(
    screen: str,
    width: int,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    store = ResultStore(tmp_path / "results")
    run = SCREENS[screen](store)
    monkeypatch.setenv("COLUMNS", str(width))
    shown: list[Sheet] = []
    print_sheet = Output.sheet
    monkeypatch.setattr(
        Output, "sheet", lambda self, sheet: shown.append(sheet) or print_sheet(self, sheet)
    )
    document = json.loads((run.path / "all_results.json").read_text(encoding="utf-8"))
    document["config"].setdefault("recipes", [])
    document.setdefault("report", {}).setdefault("metrics_of", "same-token")
    show_result(Output(), RunResult(document, run.path))
    out = capsys.readouterr().out
    assert shown
    assert max(map(cell_len, out.splitlines())) <= width
    for sheet in shown:
        check(sheet, width)
        for column in sheet.columns:
            for row in sheet.rows:
                if column.numeric or column.whole:
                    assert column.cell(row) in out


@pytest.mark.parametrize("width", WIDTHS)
def test_transfer_rows_stay_told_apart(width: int, tmp_path: Path) -> None:
    run = transfer_run(ResultStore(tmp_path), defences=True)
    rows = (run.document() or {})["rows"]
    names = ("source", "recipe", "victim", "defence")
    columns = [
        *(Column(name) for name in names),
        *(Column(f"f{i}", f"Figure {i}", text=lambda row: "12.34 → 56.78 %") for i in range(6)),
    ]
    sheet = Sheet(columns, rows)
    check(sheet, width)
    for part in Drawn(sheet).parts(width) or ():
        assert part.columns[:4] == (0, 1, 2, 3)


@pytest.mark.parametrize("width", WIDTHS)
def test_the_list_of_runs_keeps_results_and_ids_that_open(width: int, tmp_path: Path) -> None:
    store = ResultStore(tmp_path)
    recipe = "pwws-deepwordbug-textfooler-textbugger-bae"
    attack_run(store, recipes=(recipe,))
    attack_run(store)
    calibration_run(store)
    sheet = runs(store.list())
    check(sheet, width)
    text = "\n".join(printed(sheet, width))
    shown = [word for word in text.split() if re.match(r"\d{8}-\d{6}", word)]
    assert {store.open(name).id for name in shown} == {row["run"] for row in sheet.rows}
    assert all(len(name) >= SHORTEST_ID for name in shown)
    for row in sheet.rows:
        assert row["result"].split()[0] in text


@pytest.mark.parametrize("width", [40, *WIDTHS])
def test_the_catalog_of_recipes_and_lists_of_facts_break_no_word(width: int) -> None:
    from eexit_cli.ui import catalogs

    check(recipes(catalogs.entries("recipe")), width)
    facts = {"path": Path("/a/very/long/path") / ("x" * 70), "note": "words of a note " * 9}
    sheet = properties(facts)
    check(sheet, width)
    assert re.sub(r"\s", "", "".join(printed(sheet, width))).count("x" * 70) == 1


def test_what_an_export_says_of_shares_is_in_per_cent() -> None:
    facts = {"same_exits": 0.956, "same_labels": 1.0, "accuracy_file": 0.882, "pearson_model": 0.5}
    text = " ".join("".join(printed(properties(facts), 80)).split())
    assert text == (
        "same exits 95.6 % same labels 100.0 % accuracy file 88.2 % pearson model 0.500"
    )
