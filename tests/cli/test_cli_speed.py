"""Measured speed on screens: a median with its interval, and no verdict finer than that."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
from synthetic_decodings import decoding_run
from synthetic_runs import attack_run, evaluate_run

from eexit_cli.config.common import TimingConfig
from eexit_cli.config.field import option_of
from eexit_cli.core.types import RunResult
from eexit_cli.metrics.latency import LEAST_REPEATS
from eexit_cli.store.results import ResultStore, Run
from eexit_cli.ui.output import Output
from eexit_cli.ui.screens import show_result
from eexit_cli.ui.screens.speed import is_none, speed_words, with_spread

TIMED = {"timing_repeats": 5, "latency_samples": 50}


def figures(median: float, low: float, high: float, when: str = "") -> dict[str, Any]:
    name = "speedup_seconds"
    return {f"{name}{when}": median, f"{name}_low{when}": low, f"{name}_high{when}": high, **TIMED}


@pytest.mark.parametrize(
    ("ends", "shown", "none"),
    [
        ((1.56, 1.4, 1.7), "1.56x [1.40, 1.70]", False),
        ((0.96, 0.9, 1.1), "0.96x [0.90, 1.10]", True),
        # Rounded outwards: neither end is printed nearer than it is.
        ((1.2, 1.0049, 1.3001), "1.20x [1.00, 1.31]", True),
        ((0.9, 0.8, 0.9949), "0.90x [0.80, 1.00]", True),
        ((0.9, 0.8, 0.98), "0.90x [0.80, 0.98]", False),
    ],
)
def test_a_speedup_has_its_interval(ends: tuple[float, float, float], shown: str, none) -> None:
    found = figures(*ends)
    assert with_spread("speedup_seconds", found) == shown
    assert is_none("speedup_seconds", found) is none
    words = speed_words(found)
    assert "median of 5 repeats on 50 samples" in words
    assert ("No difference to the full model was measured" in words) is none


def test_what_was_timed_once_says_so_and_what_was_not_timed_nothing() -> None:
    assert with_spread("speedup_seconds", {"speedup_seconds": 1.5}) == "1.50x"
    assert speed_words({"speedup_seconds": 1.5}) == "Speed was timed once and has no interval."
    assert speed_words({"accuracy": 0.5}) == ""
    assert is_none("speedup_seconds", {"speedup_seconds": 1.0}) is False


def test_the_option_takes_no_fewer_repeats_than_an_interval_needs() -> None:
    assert {f.name: option_of(f).least for f in fields(TimingConfig)}[
        "timing_repeats"
    ] == LEAST_REPEATS


def shown(run: Run, monkeypatch, capsys, *, rows=(), **metrics: Any) -> str:
    """The screen of a run whose document has these figures too."""
    monkeypatch.setenv("COLUMNS", "80")
    document = run.document() or {}
    document["metrics"] |= metrics
    document["rows"] = [row | more for row, more in zip(document["rows"], rows, strict=False)]
    document.setdefault("report", {}).setdefault("metrics_of", "same-token")
    document["config"].setdefault("recipes", [])
    show_result(Output(), RunResult(document, run.path))
    out = capsys.readouterr().out
    assert max(map(len, out.splitlines())) <= 80
    return " ".join(out.split())


def test_classifiers(tmp_path: Path, monkeypatch, capsys) -> None:
    run = evaluate_run(ResultStore(tmp_path))
    out = shown(run, monkeypatch, capsys, **figures(0.96, 0.9, 1.1))
    assert "Speedup in seconds, batch 1 0.96x [0.90, 1.10]" in out
    assert "measured: Speedup in seconds, batch 1." in out
    assert "low end" not in out


def test_decoders_name_the_settings_that_are_as_fast_as_the_full_model(
    tmp_path: Path, monkeypatch, capsys
) -> None:
    run = decoding_run(ResultStore(tmp_path), top_k=(0,), thresholds=(0.9, 0.5))
    ends = [(0.96, 0.8, 1.3), (2.27, 2.1, 2.4)]
    rows = [
        {
            "speedup_throughput": median,
            "speedup_throughput_low": low,
            "speedup_throughput_high": high,
        }
        for median, low, high in ends
    ]
    out = shown(run, monkeypatch, capsys, rows=rows)
    assert "0.96x [0.80, 1.30]" in out
    assert "2.27x [2.10, 2.40]" in out
    assert "No difference to the full model was measured: softmax > 0.9." in out


def test_attacks_say_it_of_before_and_after(tmp_path: Path, monkeypatch, capsys) -> None:
    run = attack_run(ResultStore(tmp_path))
    found = figures(1.56, 1.4, 1.7, "_before") | figures(0.94, 0.9, 1.0, "_after")
    document = run.document() or {}
    rows = [found for _ in document["rows"]]
    out = shown(run, monkeypatch, capsys, rows=rows, **found)
    assert "1.56x [1.40, 1.70] 0.94x [0.90, 1.00]" in out
    assert "measured: after the attack." in out


def test_files_get_the_ends_of_the_intervals_as_figures(tmp_path: Path, capsys) -> None:
    run = evaluate_run(ResultStore(tmp_path))
    document = run.document() or {}
    document["metrics"] |= figures(0.96, 0.9, 1.1)
    show_result(Output(format="csv"), RunResult(document, run.path))
    lines = capsys.readouterr().out.splitlines()
    assert [line for line in lines if line.startswith("speedup_seconds")] == [
        "speedup_seconds,0.96,",
        "speedup_seconds_low,0.9,",
        "speedup_seconds_high,1.1,",
    ]
