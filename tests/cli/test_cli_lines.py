"""Lines for people: broken between words, aligned, and no figure that says nothing."""

from __future__ import annotations

import io
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len
from rich.console import Console
from synthetic_calibrations import calibration_run
from synthetic_runs import attack_run, evaluate_run

from eexit_cli.core.types import RunResult
from eexit_cli.store.results import ResultStore
from eexit_cli.ui.output import Output
from eexit_cli.ui.screens import show_result
from eexit_cli.ui.screens.attack_table import gain_words
from eexit_cli.ui.screens.calibrate import _telling
from eexit_cli.ui.screens.listings import run_data, run_setting, runs
from eexit_cli.ui.screens.predict import _draw_opinions
from eexit_cli.ui.screens.speed import speed_words
from eexit_cli.ui.streams import in_lines

COMMAND = (
    "Next: eexit evaluate --model own --threshold calibrated:20261127-145308-calibrate-calm-6405"
)


def test_a_commands_lines_can_be_copied() -> None:
    lines = in_lines(COMMAND, 60).split("\n")
    assert len(lines) > 1
    assert all(line.endswith(" \\") for line in lines[:-1])
    assert " ".join(line.strip(" \\") for line in lines) == COMMAND


@given(
    words=st.lists(st.text("abc-/.", min_size=1, max_size=12), min_size=1, max_size=40),
    width=st.integers(20, 100),
    before=st.integers(0, 7),
)
def test_words_stay_whole(words, width, before) -> None:
    shown = in_lines(" ".join(words), width, before)
    assert shown.split() == words
    for number, line in enumerate(shown.split("\n")):
        assert len(line) + (before if number == 0 else 0) <= max(width, 20)


def test_what_fits_stays_as_it_is() -> None:
    assert in_lines(COMMAND, 200) == COMMAND
    assert in_lines(COMMAND, len(COMMAND)) == COMMAND
    assert in_lines("  two  spaces\nand a line", 30) == "  two  spaces\nand a line"


def test_answers_of_any_length_are_aligned() -> None:
    class Shown:
        console = Console(file=io.StringIO(), width=120, color_system=None)

        def say(self, line: str) -> None:
            self.console.print(line)

    exits = [
        {
            "layer": layer,
            "executed": True,
            "prediction": 0,
            "label_name": name,
            "probability": 0.5,
            "measure": "entropy",
            "confidence": 0.25,
        }
        for layer, name in enumerate(("no", "undecided", "中性"), start=1)
    ]
    output = Shown()
    _draw_opinions(output, {"exits": exits, "exit_layer": 3, **exits[2]}, 3)  # type: ignore[arg-type]
    lines = output.console.file.getvalue().splitlines()[:3]  # type: ignore[attr-defined]
    assert len({cell_len(line[: line.index("entropy")]) for line in lines}) == 1


@pytest.mark.parametrize(
    ("low", "high", "words"),
    [(0.78, 0.88, "83.1 % [78, 88]"), (0.831, 0.831, "83.1 % [all 5 alike]")],
)
def test_an_interval_without_width_says_of_how_many(low, high, words) -> None:
    row = {"gain_removed": 0.831, "gain_removed_low": low, "gain_removed_high": high, "samples": 5}
    assert gain_words(row) == words


def test_a_few_settings_are_named_and_many_counted() -> None:
    figures = {"speedup_seconds": 1.0, "timing_repeats": 5, "latency_samples": 9}
    assert speed_words(figures, ["a", "b"]).endswith("measured: a; b.")
    assert speed_words(figures, list("abcdefg")).endswith("measured for 7 settings.")


@pytest.mark.parametrize(
    ("config", "data", "setting"),
    [
        (
            {"task": "movie-reviews", "limit": 40, "recipe": "a,b", "recipes": ["a", "b"]},
            "movie-reviews, 40",
            "a, b",
        ),
        (
            {"data_file": "/x/mine.csv", "delta": 0.1, "confidence": ["softmax", "margin"]},
            "mine.csv",
            "delta 0.1; softmax, margin",
        ),
        ({"task": "t", "sweep": True, "exit": {"patience": 2}}, "t", "sweep"),
        ({"transfer": ["20261127-attack-calm-ab12", "r2"]}, "", "replay of ab12, r2"),
        ({"task": "t", "backbone": "pabee"}, "t", "from pabee"),
        ({}, "", ""),
    ],
)
def test_runs_are_told_apart(config, data, setting) -> None:
    assert (run_data(config), run_setting(config)) == (data, setting)


def test_a_run_that_is_not_finished_says_so_in_place_of_a_result(tmp_path) -> None:
    store = ResultStore(tmp_path)
    store.create("attack", {"model": "m", "task": "t"}).close()
    (row,) = runs(store.list()).rows
    sheet = runs(store.list())
    assert row["status"] != "finished"
    (outcome,) = [column for column in sheet.columns if column.key == "result"]
    assert outcome.cell(row) == row["status"]


@pytest.mark.parametrize("form", ["markdown", "latex"])
def test_several_recipes_are_the_screens_few_columns(tmp_path, capsys, form) -> None:
    run = _of_two_recipes(tmp_path)
    show_result(Output(format=form), RunResult(run.document(), run.path))
    out = capsys.readouterr().out
    heads = [line for line in out.splitlines() if "Recipe" in line]
    assert len(heads) == 2
    separator = "|" if form == "markdown" else "&"
    assert all(3 < head.count(separator) < 13 for head in heads)
    # Two Markdown tables without a blank line between are one.
    assert "\n\n" in out
    show_result(Output(format="csv"), RunResult(run.document(), run.path))
    names = set(capsys.readouterr().out.splitlines()[0].split(","))
    assert names == {name for row in run.document()["rows"] for name in row}


def _of_two_recipes(folder):
    """With what the screens of several recipes read beside the figures."""
    store = ResultStore(folder)
    run = attack_run(store, recipes=("same-token", "random"))
    path = run.path / "all_results.json"
    document = json.loads(path.read_text())
    document["report"] = {"metrics_of": "same-token", "comparisons": []}
    path.write_text(json.dumps(document))
    return store.open(run.id)


def test_an_attack_that_found_nothing_leads_to_exits_that_save_layers(tmp_path, capsys) -> None:
    store = ResultStore(tmp_path)
    run = attack_run(store, strength=0.0)
    path = run.path / "all_results.json"
    document = json.loads(path.read_text())
    show_result(Output(), RunResult(document, run.path))
    assert "eexit plot slowdown" in capsys.readouterr().err
    document["metrics"]["attacked"] = 0
    show_result(Output(), RunResult(document, run.path))
    said = capsys.readouterr().err
    assert "eexit evaluate --model deebert --sweep" in said
    assert "eexit plot" not in said


def test_settings_that_were_listed_stand_for_themselves(tmp_path, capsys) -> None:
    run = evaluate_run(ResultStore(tmp_path), sweep=True)
    document = run.document()
    show_result(Output(), RunResult(document, run.path))
    assert "Exit by exit" in capsys.readouterr().out
    document["config"]["sweep"] = False
    show_result(Output(), RunResult(document, run.path))
    assert "Exit by exit" not in capsys.readouterr().out


def test_a_calibrations_verdict_comes_first_and_only_rows_that_differ(tmp_path, capsys) -> None:
    run = calibration_run(ResultStore(tmp_path / "results"), delta=0.2, curves=False)
    document = run.document()
    lines = shown_lines(document, run, capsys)
    first = next(line for line in lines if line.strip())
    mean = document["metrics"]["mean_exit_layer"]
    assert first.startswith("Certified: threshold ")
    assert f"{mean:.2f}" in first
    assert "layers on average" in first
    assert any("Certified  Chosen" in line for line in lines)
    assert not any("Rejected" in line for line in lines)
    # All other p-values give the same: no table of equal rows.
    own = document["report"]["alternatives"]
    chosen = next(row for row in own if row["p_value"] == document["config"]["p_value"])
    for row in own:
        row |= {"threshold": chosen["threshold"], "at_least": chosen["at_least"]}
    lines = shown_lines(document, run, capsys)
    assert not any("What each p-value" in line for line in lines)
    assert any(line.startswith("The same threshold by: ") for line in lines)


def test_the_next_command_names_what_the_calibration_holds_for(tmp_path, capsys) -> None:
    run = calibration_run(ResultStore(tmp_path / "results"), curves=False)
    document = run.document()
    document["report"]["stored"] = "somewhere"

    def command() -> str:
        capsys.readouterr()
        show_result(Output(), RunResult(document, run.path))
        said = " ".join(capsys.readouterr().err.replace("\\", "").split())
        return said.partition("Next: ")[2].partition(" eexit plot")[0]

    plain = command()
    assert "--threshold calibrated" in plain
    document["config"] |= {"dtype": "float32", "weights": "float", "lower_case": None}
    assert command() == plain
    document["config"] |= {"weights": "int8", "max_length": 40, "lower_case": False}
    assert command() == f"{plain} --weights int8 --max-length 40 --no-lower-case"


def test_halves_of_one_split_are_called_so(tmp_path, capsys) -> None:
    run = calibration_run(ResultStore(tmp_path / "results"), curves=False)
    document = run.document()
    document["config"] |= {"calibration_split": "test", "test_split": "test"}
    said = " ".join(shown_lines(document, run, capsys))
    assert "300 samples of test" in said
    assert "300 others of it, none in both" in said
    document["config"]["criterion"] = "patience"
    assert any(line.startswith(" Patience ") for line in shown_lines(document, run, capsys))


def test_many_thresholds_are_thinned_and_the_accepted_one_stays() -> None:
    rows = [
        {"index": at, "threshold": 1 - at / 40, "mean_loss": at / 100, "mean_exit_layer": 6.0,
         "rejected": at <= 30, "chosen": at == 30}
        for at in range(33)
    ]  # fmt: skip
    kept = [row["index"] for row in _telling(rows)]
    assert len(kept) < 18
    assert {0, 29, 30, 31, 32} <= set(kept)
    assert kept == sorted(kept)
    # Of a stretch that is written alike its first row stays.
    steps = [{**row, "mean_loss": row["index"] // 10, "rejected": True} for row in rows]
    assert [row["index"] for row in _telling(steps)] == [0, 10, 20, 29, 30, 31, 32]
    same = [{**row, "mean_loss": 0.0, "rejected": True} for row in rows]
    assert [row["index"] for row in _telling(same)] == [0, 29, 30, 31, 32]


def shown_lines(document, run, capsys) -> list[str]:
    capsys.readouterr()
    show_result(Output(), RunResult(document, run.path))
    return capsys.readouterr().out.splitlines()
