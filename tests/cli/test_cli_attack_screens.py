"""The screens of attacks: a table per recipe and per victim, whole on screens of any width."""

from __future__ import annotations

import csv
import io
import re
from pathlib import Path
from typing import Any

import pytest

from eexit_cli.core.types import RunResult
from eexit_cli.ui.output import Output
from eexit_cli.ui.screens.attack import show_attack
from eexit_cli.ui.screens.attack_table import costs, effects, gain_words

RECIPES = [
    *("same-token", "same-char", "waffle", "universal", "textfooler", "pwws", "deepwordbug"),
    *("textbugger", "bert-attack", "random"),
]


def row(name: str, number: int) -> dict[str, Any]:
    both = {
        "mean_exit_layer": (3.91, 5.5 - number / 10),
        "speedup_layers": (1.53, 1.09),
        "speedup_seconds": (1.49, 1.02),
        "saved_layers": (0.35, 0.08),
        "cost_layers": (0.65, 0.92),
        "efficacy": (0.44, 0.12),
        "latency_ms": (10.21, 14.44),
        "latency_full_ms": (15.2, 15.3),
        "accuracy": (0.865, 0.42),
    }
    figures = {
        f"{k}_{w}": v
        for k, pair in both.items()
        for w, v in zip(("before", "after"), pair, strict=True)
    }
    return {
        "recipe": name,
        **figures,
        "num_layers": 6,
        "samples": 200,
        "attacked": 173,
        "skipped": 27,
        "gain_removed": 0.76 - number / 20,
        "gain_removed_low": 0.70 - number / 20,
        "gain_removed_high": 0.82 - number / 20,
        "interval_level": 0.95,
        "last_layer_rate": 0.61,
        "goal_success_rate": 0.61,
        "queries_mean": 1000.0,
        "gradient_passes_mean": 123.4,
        "seconds_mean": 12.34,
        "changes_mean": 2.5,
        "similarity_embedding_mean": 0.93,
    }


@pytest.fixture
def table(tmp_path: Path) -> RunResult:
    rows: list[dict[str, Any]] = [row(name, number) for number, name in enumerate(RECIPES)]
    rows[3] |= {
        "prefix": "awful boring plot",
        "search_queries": 5120,
        "search_gradient_passes": 640,
    }
    comparisons = [
        {
            "recipe": "same-token",
            "against": name,
            "difference_layers": number / 10,
            "p_value": 0.001,
            "p_holm": 0.0123,
        }
        for number, name in enumerate(RECIPES[1:], start=1)
    ]
    document = {
        "run_id": "a-run",
        "command": "attack",
        "config": {"model": "deebert", "recipe": "all", "recipes": RECIPES},
        "metrics": {key: value for key, value in rows[0].items() if key != "recipe"},
        "rows": [*rows, {"recipe": "bae", "status": "needs a model (hf download it)"}],
        "report": {"metrics_of": "same-token", "comparisons": comparisons},
    }
    return RunResult(document, tmp_path)


@pytest.fixture
def shown(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Any:
    monkeypatch.setenv("COLUMNS", "100")

    def show(result: RunResult, **options: Any) -> str:
        show_attack(Output(**options), result)
        return capsys.readouterr().out

    return show


def test_every_recipe_has_one_line_per_table_with_its_figures_whole(shown, table) -> None:
    lines = shown(table).splitlines()
    assert max(map(len, lines)) <= 100
    for number, name in enumerate(RECIPES):
        effect, cost, *_ = (line for line in lines if re.match(rf" {name} ", line))
        gain = f"{76 - 5 * number:.1f} % [{70 - 5 * number:.0f}, {82 - 5 * number:.0f}]"
        assert gain in effect
        for figure in (f"{5.5 - number / 10:.2f}", "1.09x", "1.02x", "14.44 ms", "42.0 %"):
            assert figure in effect
        against = f"-{number / 10:.2f} (0.012)"
        assert (against in effect) == (name != "same-token")
        for figure in ("173", "0.120", "61.0 %", "1,000", "123.4", "12.34 s", "2.50", "0.930"):
            assert figure in cost
    text = " ".join(" ".join(lines).split())
    assert "n = 200" in text
    assert "95 % bootstrap intervals" in text
    assert "bae needs a model (hf download it)" in text
    assert "universal puts awful boring plot before every input" in text
    assert "5,120 queries" in text
    clean = next(line for line in lines if line.startswith(" (no attack)"))
    assert all(figure in clean for figure in ("3.91", "1.53x", "1.49x", "10.21 ms", "86.5 %"))


DECODER = {
    "unit": "letters",
    "agreement": (0.97, 0.43),
    "output_similarity": (0.98, 0.71),
    "total_layers_mean": (9.1, 40.2),
    "tokens_mean": (6.1, 8.2),
    "similarity_characters_mean": 0.789,
}
_OF_CLASSIFIERS = {
    "accuracy_before",
    "accuracy_after",
    "similarity_embedding_mean",
}


def of_decoder(row: dict[str, Any], **more: Any) -> dict[str, Any]:
    """The row with a decoder's figures; pairs are before and after."""
    found = {key: value for key, value in row.items() if key not in _OF_CLASSIFIERS}
    for name, value in {**DECODER, **more}.items():
        if isinstance(value, tuple):
            found |= {f"{name}_before": value[0], f"{name}_after": value[1]}
        else:
            found[name] = value
    return found


@pytest.fixture
def spelling(table: RunResult) -> RunResult:
    document = table.document
    rows = [of_decoder(row, phoneme_error_rate_before=0.054) for row in document["rows"][:3]]
    return RunResult({**document, "rows": rows}, table.path)


@pytest.mark.parametrize("width", [60, 80, 120])
@pytest.mark.parametrize("kind", ["table", "spelling"])
def test_no_screen_is_too_narrow_for_a_name_or_a_figure(
    shown, monkeypatch, request, kind: str, width: int
) -> None:
    result = request.getfixturevalue(kind)
    monkeypatch.setenv("COLUMNS", str(width))
    printed = shown(result)
    assert max(map(len, printed.splitlines())) <= width
    assert "…" not in printed
    for sheet in (effects(result.document), costs(result.document)):
        for row in sheet.rows:
            name = sheet.columns[0].cell(row)
            lines = [line for line in printed.splitlines() if line.startswith(f" {name} ")]
            assert lines, name
            for column in sheet.columns[1:]:
                assert any(column.cell(row) in line for line in lines), column.cell(row)
        for column in sheet.columns:
            for word in column.title.split():
                assert word in printed


def test_a_decoder_shows_what_its_outputs_are_worth_and_counts_letters(shown, spelling) -> None:
    printed = shown(spelling)
    lines = printed.splitlines()
    clean = " ".join(line for line in lines if line.startswith(" (no attack) "))
    assert "97.0 %" in clean
    assert "98.0 %" in clean
    own = " ".join(line for line in lines if line.startswith(" same-token "))
    for figure in ("43.0 %", "71.0 %", "0.789", "2.50"):
        assert figure in own
    assert "Letters" in printed
    assert "Words" not in printed
    headings = " ".join(printed.split())
    assert "At last Own" in headings
    assert "layer goal" in headings
    assert " - " not in own
    text = " ".join(printed.split())
    assert "Phoneme error rate 5.4 % without an attack; nobody knows the right output" in text


def test_a_summary_is_scored_after_the_attack_too(shown, table) -> None:
    scores = {"unit": "words", "rouge_l": (0.412, 0.297), "quality_samples": 180}
    rows = [of_decoder(row, **scores) for row in table.document["rows"][:2]]
    printed = shown(RunResult({**table.document, "rows": rows}, table.path))
    lines = printed.splitlines()
    assert "41.2 %" in " ".join(line for line in lines if line.startswith(" (no attack) "))
    assert "29.7 %" in " ".join(line for line in lines if line.startswith(" same-token "))
    assert "ROUGE-L" in printed
    assert "Words" in printed
    assert "nobody knows" not in printed
    assert "ROUGE-L: over the 180 of several words" in " ".join(printed.split())


def test_one_recipe_names_its_unit(shown, spelling) -> None:
    row = spelling.document["rows"][0]
    metrics = {key: value for key, value in row.items() if not isinstance(value, str)}
    only = {**spelling.document, "rows": [row], "metrics": metrics}
    printed = shown(RunResult(only, spelling.path))
    assert "Letters changed per sample" in printed
    assert "Words changed" not in printed


def test_a_recipe_that_left_samples_out_says_what_it_did_to_the_others(shown, table) -> None:
    rows = table.document["rows"]
    for row in rows[:-1]:
        row["gain_removed_attacked"] = row["gain_removed"]
    rows[5] |= {"gain_removed": 0.183, "gain_removed_attacked": 0.217, "attacked": 167}
    words = "pwws removed 18.3 % over all 200, 21.7 % over the 167 that it attacked"
    text = " ".join(shown(table).split())
    assert words in text
    assert text.count("that it attacked") == 1
    only = {**table.document, "rows": rows[5:6], "metrics": rows[5]}
    assert words in " ".join(shown(RunResult(only, table.path)).split())


def test_files_get_every_figure_of_every_row(shown, table) -> None:
    rows = list(csv.DictReader(io.StringIO(shown(table, format="csv"))))
    assert [row["recipe"] for row in rows] == [*RECIPES, "bae"]
    assert float(rows[2]["gain_removed"]) == table.document["rows"][2]["gain_removed"]
    assert rows[0]["latency_full_ms_after"] == "15.3"
    assert rows[-1]["status"] == "needs a model (hf download it)"


def test_one_recipe_says_how_sure_its_figure_is(shown, table) -> None:
    only = {**table.document, "rows": table.document["rows"][:1]}
    text = " ".join(shown(RunResult(only, table.path)).split())
    assert "200 samples: gain removed 76.0 % [70, 82], in brackets 95 % bootstrap" in text


def test_a_replay_with_defences_fits_and_says_what_it_does_not_know(shown, tmp_path) -> None:
    rows = []
    for recipe in ("same-token", "deepwordbug"):
        for defence in ("none", "patience", "voting", "recalibrated"):
            extra = {"patience": 4} if defence == "patience" else {}
            rows.append(
                {
                    **row(recipe, 1),
                    "source": "deebert",
                    "source_run": "a-run",
                    "victim": "author/pabee-bert",
                    "defence": defence,
                    "layers_recovered": 0.125,
                    "accuracy_recovered": None if defence == "voting" else -0.5,
                    **extra,
                }
            )
    document = {
        "run_id": "b-run",
        "command": "attack",
        "config": {"model": "author/pabee-bert", "transfer": ["a-run"]},
        "metrics": {},
        "rows": rows,
        "report": {},
    }
    lines = shown(RunResult(document, tmp_path)).splitlines()
    assert max(map(len, lines)) <= 100
    first = [line for line in lines if re.match(r" same-token ", line)]
    assert len(first) == 4
    assert all("pabee-bert" in line and "3.91 → 5.40" in line for line in first)
    assert "its own" in first[0]
    assert "12.5 %" not in first[0]
    assert "patience 4" in first[1]
    assert "12.5 %" in first[1]
    assert "-50.0 %" in first[1]
    assert first[2].rstrip().endswith("-")
    text = " ".join(" ".join(lines).split())
    assert "an attacker who knows the victim or its defence may do better" in text


def test_no_difference_has_no_sign_of_its_own(shown, table) -> None:
    for pair in table.document["report"]["comparisons"]:
        pair["difference_layers"] = 0.0
    printed = shown(table)
    assert printed.count("+0.00 (0.012)") == len(RECIPES) - 1
    assert "-0.00" not in printed


def test_runs_and_victims_of_one_name_are_told_apart(shown, tmp_path) -> None:
    rows = [
        {
            **row("same-token", 1),
            "source": "deebert",
            "source_run": run,
            "victim": victim,
            "defence": "none",
        }
        for run in ("a-run-ab12", "a-run-cd34")
        for victim in ("one/spell", "two/spell")
    ]
    document = {
        "run_id": "b-run",
        "command": "attack",
        "config": {"model": "one/spell,two/spell", "transfer": ["a-run-ab12", "a-run-cd34"]},
        "metrics": {},
        "rows": rows,
        "report": {"sources": {"a-run-ab12": {}, "a-run-cd34": {"compat": "upstream"}}},
    }
    lines = shown(RunResult(document, tmp_path)).splitlines()
    assert max(map(len, lines)) <= 100
    found = [line.split()[:3] for line in lines if line.startswith(" deebert ")]
    assert [cells[:2] for cells in found[:2]] == [["deebert", f"{n}/spell"] for n in ("one", "two")]
    assert found[2:] == [["deebert", "upstream", f"{name}/spell"] for name in ("one", "two")]
    document["report"] = {}  # as an older eexit left it
    text = shown(RunResult(document, tmp_path))
    assert "deebert (ab12)" in text
    assert "deebert (cd34)" in text


def test_a_gain_without_interval_or_without_gain() -> None:
    assert gain_words({"gain_removed": 0.5}) == "50.0 %"
    assert gain_words({"gain_removed": None}) == "-"
