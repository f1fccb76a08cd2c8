"""Runs on tiny models whose records and documents stay what they were, but for the clock.

A difference is either a mistake or a change that is meant; in that case the expected file is
written anew with ``golden_runs.py``, and the difference is read before it is committed.
"""

from __future__ import annotations

from difflib import unified_diff
from pathlib import Path
from typing import Any

import pytest
from golden_runs import EXPECTED, RUNS, made_in, outcome, written


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("golden")
    made_in(made)
    return made


@pytest.fixture(scope="module")
def done() -> dict[str, dict[str, Any]]:
    return {}


@pytest.mark.parametrize(
    "name",
    [
        # Workers are compared with one process in the tests of attacks too.
        pytest.param(name, marks=pytest.mark.slow) if golden.same_as else name
        for name, golden in RUNS.items()
    ],
)
def test_a_run_tells_what_it_told(
    name: str,
    folder: Path,
    done: dict[str, dict[str, Any]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("EEXIT_HOME", str(folder / "home"))
    told = outcome(name, folder, done)
    twin = RUNS[name].same_as
    if twin is not None:
        document = told["document"]
        document["config"] |= {"workers": None, "engine": "local"}
        engine = document["report"].pop("engine")
        assert (engine["workers"], engine["failed"], engine["deaths"]) == (2, 0, 0)
    now = written(told).replace(f"<{name}>", f"<{twin or name}>").splitlines()
    before = (EXPECTED / f"{twin or name}.json").read_text(encoding="utf-8").splitlines()
    difference = list(unified_diff(before, now, "before", "now", n=0, lineterm=""))
    assert not difference, "\n".join(line[:400] for line in difference[:20])


def test_every_expected_file_has_its_run() -> None:
    names = {name for name, golden in RUNS.items() if golden.same_as is None}
    assert {path.stem for path in EXPECTED.glob("*.json")} == names
