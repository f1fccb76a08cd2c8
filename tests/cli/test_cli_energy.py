"""Measured energy on screens and in files, and what is said where there is none."""

from __future__ import annotations

import csv
import io
from pathlib import Path
from typing import Any

import pytest
from synthetic_decodings import decoding_run
from synthetic_runs import attack_run, evaluate_run

from eexit_cli.core.types import RunResult
from eexit_cli.store.results import ResultStore, Run
from eexit_cli.ui.measures import joules, watts
from eexit_cli.ui.output import Output
from eexit_cli.ui.screens import show_result

TOLD = {
    "counters": ["package-0", "dram of package-0"],
    "lacking": {},
    "idle_seconds": 3.0,
    "least_seconds": 0.5,
}
LACKING = {"counters": [], "lacking": {"processor": "no counter here"}}


def figures(
    value: float | None, when: str = "", *, of: str = "joules_per_sample"
) -> dict[str, Any]:
    """With an interval a tenth to either side."""
    ends = (None, None, None) if value is None else (value, 0.9 * value, 1.1 * value)
    names = (f"{of}{when}", f"{of}_low{when}", f"{of}_high{when}")
    return dict(zip(names, ends, strict=True))


def shown(run: Run, monkeypatch, capsys, *, rows=(), told=None, format=None, **metrics: Any) -> str:
    monkeypatch.setenv("COLUMNS", "80")
    document = run.document() or {}
    document["metrics"] |= metrics
    document["rows"] = [row | more for row, more in zip(document["rows"], rows, strict=False)]
    document.setdefault("report", {}).setdefault("metrics_of", "same-token")
    if told is not None:
        document["report"]["energy"] = told
    document["config"].setdefault("recipes", [])
    show_result(Output(format=format) if format else Output(), RunResult(document, run.path))
    out = capsys.readouterr().out
    if format:
        return out
    assert max(map(len, out.splitlines())) <= 80
    return " ".join(out.split())


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (0.2034, "203 mJ"),
        (0.008214, "8.21 mJ"),
        (0.000042, "0.0420 mJ"),
        (0.0999, "99.9 mJ"),
        (1.0, "1.00 J"),
        (203.4, "203 J"),
        (20340, "20,340 J"),
        (0.0, "0 mJ"),
        (-0.0123, "-12.3 mJ"),
    ],
)
def test_joules_have_three_digits(value: float, words: str) -> None:
    assert joules(value) == words
    assert watts(value) == f"{value:.1f} W"


ENERGY: dict[str, Any] = {
    **figures(0.02034),
    **figures(0.583, of="joules_share"),
    "joules_per_sample_full": 0.0349,
    "processor_joules_per_sample": 0.019,
    "memory_joules_per_sample": 0.00134,
    "idle_watts": 12.34,
}


def test_an_evaluation_has_joules_beside_the_full_models(tmp_path, monkeypatch, capsys) -> None:
    run = evaluate_run(ResultStore(tmp_path))
    out = shown(run, monkeypatch, capsys, told=TOLD, **ENERGY)
    assert "Joules per sample, batch 1 20.3 mJ [18.3, 22.4] 34.9 mJ" in out
    assert "Joules, share of the full model's 58.3 % [52.4, 64.2]" in out
    assert "Joules per sample, memory 1.34 mJ" in out
    assert "joules above idle (12.3 W, measured for 3 s), counted by package-0, dram of" in out
    assert "turns of at least 0.5 s" in out
    assert "Other processes on this machine count too." in out
    assert "low end" not in out


def test_an_evaluation_without_a_counter_says_why(tmp_path, monkeypatch, capsys) -> None:
    run = evaluate_run(ResultStore(tmp_path))
    nothing = dict.fromkeys(ENERGY)
    out = shown(run, monkeypatch, capsys, told=LACKING, **nothing)
    assert "Energy of the processor: not measured, no counter here" in out
    assert "Joules" not in out
    assert "above idle" not in out
    # Files hold the names, with nothing in them.
    table = shown(run, monkeypatch, capsys, told=LACKING, format="csv", **nothing)
    values = {row["metric"]: row["early_exit"] for row in csv.DictReader(io.StringIO(table))}
    assert values["joules_per_sample"] == values["joules_per_sample_low"] == ""


def test_what_was_not_asked_for_is_not_mentioned(tmp_path: Path, monkeypatch, capsys) -> None:
    store = ResultStore(tmp_path)
    for run in (evaluate_run(store), evaluate_run(store, sweep=True), attack_run(store)):
        out = shown(run, monkeypatch, capsys, rows=[{}] * 99)
        assert "oules" not in out
        assert "nergy" not in out


def test_settings_of_a_classifier_have_a_column(tmp_path: Path, monkeypatch, capsys) -> None:
    run = evaluate_run(ResultStore(tmp_path), sweep=True)
    rows = [{**ENERGY, **figures(0.02 + at / 1000)} for at in range(99)]
    out = shown(run, monkeypatch, capsys, rows=rows, told=TOLD, **ENERGY)
    assert "Joules" in out
    assert "20.0 mJ [18.0, 22.0]" in out
    assert "watts" not in out


def test_settings_of_a_decoder_have_joules_per_token(tmp_path, monkeypatch, capsys) -> None:
    run = decoding_run(ResultStore(tmp_path), top_k=(0,), thresholds=(0.9, 0.5))
    of_tokens = [figures(value, of="joules_per_token") for value in (0.004, 0.003)]
    rows = [{**ENERGY, **each} for each in of_tokens]
    out = shown(run, monkeypatch, capsys, rows=rows, told=TOLD, **rows[0])
    assert "Joules a token" in out
    assert "3.00 mJ [2.70, 3.30]" in out
    assert shown(run, monkeypatch, capsys, rows=[{}, {}]).count("Joules") == 0


def before_and_after(before: float, after: float) -> dict[str, Any]:
    return {
        **figures(before, "_before"),
        **figures(after, "_after"),
        "joules_per_sample_full_before": 0.05,
        "joules_per_sample_full_after": 0.05,
        **figures(before / 0.05, "_before", of="joules_share"),
        **figures(after / 0.05, "_after", of="joules_share"),
        **figures(after / before, of="joules_growth"),
        "idle_watts": 12.34,
    }


def test_an_attack_has_joules_before_and_after(tmp_path: Path, monkeypatch, capsys) -> None:
    run = attack_run(ResultStore(tmp_path))
    found = before_and_after(0.02, 0.05)
    rows = [found for _ in (run.document() or {})["rows"]]
    out = shown(run, monkeypatch, capsys, rows=rows, told=TOLD, **found)
    assert "Joules per sample, batch 1 20.0 mJ [18.0, 22.0] 50.0 mJ [45.0, 55.0]" in out
    assert "Joules per sample, batch 1, full 50.0 mJ 50.0 mJ model" in out
    assert "Joules after / before 2.50x [2.25, 2.75]" in out
    assert "Other processes on this machine count too." in out
    # Joules are no metric of the task, whose leading one the tables show.
    assert out.index("Accuracy") < out.index("Joules")


def test_an_attack_without_a_counter_says_why(tmp_path: Path, monkeypatch, capsys) -> None:
    run = attack_run(ResultStore(tmp_path))
    nothing = dict.fromkeys(before_and_after(1, 2))
    rows = [nothing for _ in (run.document() or {})["rows"]]
    out = shown(run, monkeypatch, capsys, rows=rows, told=LACKING, **nothing)
    assert "not measured, no counter here" in out
    assert "Joules" not in out
