"""What the shells complete, and the scripts that make them."""

from __future__ import annotations

from pathlib import Path

import pytest

from eexit_cli.store.results import ResultStore
from eexit_cli.ui import completion
from eexit_cli.ui.completion_scripts import FILES, generate

FOLDER = Path(__file__).parents[2] / "completions"


@pytest.mark.parametrize("shell", list(FILES))
def test_scripts_are_up_to_date(shell) -> None:
    """Regenerate with: python -m eexit_cli.ui.completion_scripts completions"""
    assert (FOLDER / FILES[shell]).read_text(encoding="utf-8") == generate(shell)


def test_no_other_scripts_lie_around() -> None:
    assert {path.name for path in FOLDER.iterdir()} == set(FILES.values())


def _complete(eexit_process, line: str) -> list[str]:
    words = line.split(" ")
    done = eexit_process(
        _EEXIT_COMPLETE="complete_bash",
        COMP_WORDS=line,
        COMP_CWORD=str(len(words) - 1),
    )
    assert (done.code, done.err) == (0, "")
    return done.out.split()


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("eexit att", ["attack"]),
        ("eexit attack --recipe same-c", ["same-char"]),
        ("eexit evaluate --confidence m", ["max-prob", "margin", "mlp"]),
        ("eexit evaluate --confidence linear,satu", ["linear,saturation"]),
        ("eexit evaluate --decay p", ["paper"]),
        ("eexit train --strategy two", ["two-stage"]),
        ("eexit attack --task movie", ["movie-reviews"]),
        ("eexit attack --dtype b", ["bfloat16"]),
        ("eexit attack --split va", ["validation"]),
        ("eexit plot slow", ["slowdown"]),
        ("eexit attack --beam", ["--beam-width"]),
    ],
)
def test_shell_completes(eexit_process, line, expected) -> None:
    assert _complete(eexit_process, line) == expected


def test_shell_completes_runs(eexit_process, tmp_path) -> None:
    with ResultStore(tmp_path / "results").create("attack", {"model": "deebert"}) as run:
        pass
    assert _complete(eexit_process, f"eexit results show {run.id[:8]}") == [run.id]


def test_models_are_completed(tiny_model, monkeypatch) -> None:
    monkeypatch.setenv("EEXIT_MODELS_DIR", str(tiny_model.parent))
    assert "tiny" in completion.models("ti")


def test_failing_completion_offers_nothing(monkeypatch, tmp_path) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setattr(ResultStore, "list", lambda self: 1 / 0)
    assert completion.runs("") == []
