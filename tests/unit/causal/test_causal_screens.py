"""Screens of self-speculation: what they say of speed is what their intervals say."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from synthetic_decodings import drafts_run

from eexit_cli.core.types import RunResult
from eexit_cli.store.results import ResultStore
from eexit_cli.ui.output import Output
from eexit_cli.ui.screens.evaluate import show_evaluation


def shown(run: Any, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("COLUMNS", "180")
    document = run.document()
    document["metrics"] |= {
        "timing_repeats": 5,
        "latency_samples": 50,
        "throughput_samples": 128,
        "speedup_throughput": 0.9,
        "speedup_throughput_low": 0.8,
        "speedup_throughput_high": 1.1,
    }
    for row in document["rows"]:
        # No difference in batches; at batch 1 the intervals of drafts_run.
        row |= {"speedup_throughput": 1.0, "speedup_throughput_low": 0.9}
        row |= {"speedup_throughput_high": 1.1}
    show_evaluation(Output(), RunResult(document, run.path))
    return " ".join(capsys.readouterr().out.split())


def test_no_difference_is_said_of_the_seconds_that_are_shown(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    run = drafts_run(ResultStore(tmp_path), exits=(1, 2))
    told = shown(run, capsys, monkeypatch)
    assert "Drafts change seconds alone" in told
    assert "Layer by layer" not in told
    for row in run.document()["rows"]:  # type: ignore[index]
        unsure = row["speedup_seconds_low"] <= 1 <= row["speedup_seconds_high"]
        named = f"layer {row['exit_layer']}, 4 drafted" in told.partition("No difference")[2]
        assert named == unsure
