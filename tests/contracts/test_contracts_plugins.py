"""What other packages add through entry points works as what eexit has itself.

The criterion below is also the house's promise of an exit criterion: one file that says its options
itself, and one line that names it; every command then takes it.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
from cli.conftest import Outcome, eexit_in_turn, reviews, tiny_model

__all__ = ["eexit_in_turn", "reviews", "tiny_model"]

DRIFT = '''
"""Leave when the logits hardly moved since the layer before."""
from __future__ import annotations

from dataclasses import dataclass

from eexit_cli.core.criterion import Criterion, Scale
from eexit_cli.core.digits import even_grid
from eexit_cli.core.errors import UsageError
from eexit_cli.core.option import ENCODER, EXITS, opt


@dataclass(frozen=True, kw_only=True)
class DriftOptions:
    drift: float | None = opt(
        None, "Leave when no logit moved by X.", EXITS, least=0, grid="", families=(ENCODER,)
    )
    drift_from: int | None = opt(
        None, "With --drift: not before layer N.", EXITS, least=1, families=(ENCODER,)
    )


class DriftExit(Criterion):
    name, option, options = "drift", "drift", DriftOptions

    def __init__(self, drift, drift_from=1):
        if drift < 0:
            raise UsageError(f"Drift {drift} is below 0", hint="Give a number, at least 0")
        self.drift, self.first = float(drift), int(drift_from)

    def step(self, layer, logits, state):
        moved = (logits - state.get("before", logits * float("inf"))).abs().amax(dim=-1)
        state["before"] = logits
        return (moved < self.drift) & (layer >= self.first)

    def describe(self):
        return {"criterion": "drift", "drift": self.drift, "drift_from": self.first}

    @classmethod
    def scale(cls, shape):
        return Scale("drift", 0.0, 8.0, tuple(even_grid(0.0, 8.0, 8)), open_ended=True)
'''

GAP = '''
"""1 minus the largest probability: falls with certainty."""


class Gap:
    name = "gap"
    rises = False

    def __call__(self, logits):
        return 1 - logits.softmax(dim=-1).amax(dim=-1)

    def bounds(self, classes):
        return 0.0, 1 - 1 / classes


MEASURE = Gap()
'''


def install(folder: Path, package: str, files: Mapping[str, str], points: str) -> dict[str, str]:
    """A package with its metadata, as pip leaves it; returns the environment that sees it."""
    for name, text in files.items():
        (folder / name).write_text(text, encoding="utf-8")
    metadata = folder / f"{package}-1.0.dist-info"
    metadata.mkdir(parents=True)
    (metadata / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: 1.0\n")
    (metadata / "entry_points.txt").write_text(points, encoding="utf-8")
    places = [str(folder), *filter(None, [os.environ.get("PYTHONPATH")])]
    return {"PYTHONPATH": os.pathsep.join(places), "COLUMNS": "120"}


Run = Callable[..., list[Any]]


@pytest.fixture
def run(
    eexit_in_turn: Callable[..., list[Outcome]], tmp_path: Path, tiny_model: Path, reviews: Path
) -> Run:
    """Commands with the package installed; the documents of those that name no model are of the
    tiny one."""
    folder = tmp_path / "site"
    folder.mkdir()
    seen = install(
        folder,
        "eexit_drift",
        {"eexit_drift.py": DRIFT, "eexit_gap.py": GAP},
        "[console_scripts]\nx = y:z\n\n[eexit.exits]\ndrift = eexit_drift:DriftExit\n\n"
        "[eexit.measures]\ngap = eexit_gap:MEASURE\n",
    )
    data = ("--model", tiny_model, "--data-file", reviews, "--latency-samples", 0, "--json")

    def invoke(*commands: tuple[object, ...]) -> list[Any]:
        """A document of each command that reads data, the outcome of each other."""
        asked = [
            (*one, *data) if one[0] in ("evaluate", "attack", "calibrate") and "--help" not in one
            else one
            for one in commands
        ]  # fmt: skip
        found: list[Any] = []
        for command, done in zip(asked, eexit_in_turn(*asked, **seen), strict=True):
            if "--json" in command:
                assert done.code in (0, 4), done.err
                found.append(json.loads(done.out))
            else:
                found.append(done)
        return found

    return invoke


def test_a_criterion_is_evaluated_attacked_calibrated_and_plotted(run: Run, tmp_path: Path) -> None:
    listed, later, swept, drawn, shown, attacked, calibrated, stored, thresholded = run(
        ("evaluate", "--drift", "0,2,100"),
        ("evaluate", "--drift", 100, "--drift-from", 3),
        ("evaluate", "--sweep"),
        ("plot", "tradeoff", "--output", "a.svg"),
        ("results", "show", "latest"),
        ("attack", "--drift", 3, "--query-budget", 30, "--limit", 4, "--recipe", "random"),
        ("calibrate", "--criterion", "drift", "--delta", 0.6, "--epsilon", 0.4),
        ("evaluate", "--threshold", "calibrated"),
        ("evaluate", "--confidence", "gap", "--threshold", 0.2),
    )
    depths = [row["mean_exit_layer"] for row in listed["rows"]]
    # A drift of 0 is the full model, of 100 the second layer: the first has none before it.
    assert (depths[0], depths[2]) == (4.0, 2.0)
    assert depths == sorted(depths, reverse=True)
    assert later["metrics"]["mean_exit_layer"] == 3.0
    assert len([row for row in swept["rows"] if row["criterion"] == "drift"]) == 9
    assert len([row for row in swept["rows"] if row.get("confidence") == "gap"]) == 41
    assert drawn.code == 0, drawn.err
    assert "<svg" in (tmp_path / "a.svg").read_text(encoding="utf-8")
    assert "drift 2" in shown.out
    assert attacked["config"]["exit"] == {"criterion": "drift", "drift": 3.0, "drift_from": 1}
    assert calibrated["config"]["criterion"] == "drift"
    assert stored["config"]["exit"]["criterion"] == "drift"
    # A measure of another package too is swept and thresholded.
    assert thresholded["config"]["exit"] == {
        "criterion": "threshold",
        "confidence": "gap",
        "threshold": 0.2,
    }


def test_options_of_another_package_stand_in_help_and_exclude_the_others(run: Run) -> None:
    shown, clash, alone = run(
        ("evaluate", "--help"),
        ("predict", "--drift", 1, "--patience", 2, "text"),
        ("predict", "--model", "deebert", "--drift-from", 2, "text"),
    )
    assert "--drift X[,X...]" in shown.out
    assert "--drift-from N" in shown.out
    assert clash.code == 2
    assert "exclude each other" in clash.err
    assert alone.code == 2
    assert "--drift-from goes with --drift" in alone.err


def test_what_does_not_load_is_a_row_and_an_error_when_used(
    eexit_in_turn: Callable[..., list[Outcome]], tmp_path: Path, tiny_model: Path
) -> None:
    folder = tmp_path / "site"
    folder.mkdir()
    seen = install(
        folder,
        "broken",
        {
            "eexit_broken.py": "import nowhere_to_be_found\n",
            "eexit_lam.py": LAM,
            "eexit_stray.py": STRAY,
        },
        "[eexit.exits]\nbroken = eexit_broken:Exit\nlam = eexit_lam:LamExit\n"
        "stray = eexit_stray:StrayExit\n"
        "threshold = eexit_broken:Exit\n\n"
        "[eexit.measures]\nlost = eexit_broken:MEASURE\n\n[eexit.attacks]\nodd = eexit_broken:X\n",
    )
    plain, shown, used, measured, listed = eexit_in_turn(
        ("predict", "--model", tiny_model, "good film"),
        ("evaluate", "--help"),
        ("predict", "--model", tiny_model, "--broken", 1, "good film"),
        ("predict", "--model", tiny_model, "--confidence", "lost", "--threshold", 1, "good"),
        ("attack", "--list-recipes", "--json"),
        **seen,
    )
    # Its option is one of the attack's: the attack keeps it.
    assert plain.code == 0
    assert "Exit criterion 'threshold' of the package broken 1.0 is not used" in plain.err
    assert "Exit criterion 'lam' of the package broken 1.0 does not load" in plain.err
    assert "Exit criterion 'stray' of the package broken 1.0 does not load" in plain.err
    assert "its option 'pace' does not begin with 'stray'" in " ".join(plain.err.split())
    assert shown.code == 0
    assert "--broken" in shown.out
    assert "does not load: ModuleNotFoundError" in " ".join(shown.out.split())
    assert used.code == 1
    assert "of the package broken 1.0 does not load" in used.err
    assert "Traceback" not in used.err
    assert measured.code == 1
    assert "Confidence measure 'lost' of the package broken 1.0 does not load" in measured.err
    assert listed.code == 0
    row = next(row for row in json.loads(listed.out)["recipes"] if row["recipe"] == "odd")
    assert "does not load: ModuleNotFoundError" in row["description"]


LAM = DRIFT.replace("drift_from", "lam_from").replace("drift", "lam").replace("Drift", "Lam")
STRAY = DRIFT.replace("drift_from", "pace").replace("drift", "stray").replace("Drift", "Stray")
