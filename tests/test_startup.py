"""``eexit --help`` is quick because it imports nothing that it does not show."""

from __future__ import annotations

import subprocess
import sys

import pytest

HEAVY = {"torch", "transformers", "textattack", "pandas", "matplotlib", "datasets", "numpy"}


def _imported_by(*arguments: str) -> tuple[set[str], subprocess.CompletedProcess[str]]:
    done = subprocess.run(
        [sys.executable, "-X", "importtime", "-m", "eexit_cli", *arguments],
        capture_output=True,
        text=True,
        check=False,
    )
    lines = [line for line in done.stderr.splitlines() if line.startswith("import time:")]
    return {line.rpartition("|")[2].strip().split(".")[0] for line in lines}, done


@pytest.mark.parametrize(
    "arguments",
    [
        ("--help",),
        ("--version",),
        ("attack", "--help"),
        ("train", "--help"),
        ("plot", "--help"),
        ("report", "--help"),
        ("attack", "--recipe", "no-such-recipe"),
        ("results", "list"),
    ],
    ids=" ".join,
)
def test_nothing_heavy_is_imported(
    arguments: tuple[str, ...], tmp_path: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EEXIT_RESULTS_DIR", str(tmp_path))
    modules, done = _imported_by(*arguments)
    assert done.returncode == (2 if "no-such-recipe" in arguments else 0), done.stderr
    assert "typer" in modules
    assert not modules & HEAVY


@pytest.mark.parametrize("arguments", [("--help",), ("attack", "--help")], ids=" ".join)
def test_help_is_drawn_without_rich(arguments: tuple[str, ...]) -> None:
    """Importing rich takes longer than all that help does."""
    modules, done = _imported_by(*arguments)
    assert done.returncode == 0
    assert "Usage: eexit" in done.stdout
    assert "rich" not in modules
