"""Resuming means the same for every command: stored options hold, given ones must agree."""

from __future__ import annotations

from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest

from eexit_cli.config import AttackConfig, CalibrateConfig, TrainConfig
from eexit_cli.config.resume import config_from, resumed
from eexit_cli.core.errors import UsageError

KINDS = (AttackConfig, CalibrateConfig, TrainConfig)
SAYS: dict[str, Any] = {"what": "run", "repair": "go on"}


@pytest.mark.parametrize("kind", KINDS)
def test_every_option_comes_back_from_its_json_form(kind: type) -> None:
    given = kind(seed=7, data_file=Path("a/b.csv"), limit=None, results_dir=Path("elsewhere"))
    again = config_from(kind, {**given.as_dict(), "exit": {"noted": "beside"}})
    assert again == given
    for item in fields(kind):
        assert type(getattr(again, item.name)) is type(getattr(given, item.name)), item.name


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_stored_holds_and_what_is_said_must_agree(kind: type) -> None:
    stored = kind(seed=7, max_length=9).as_dict()
    assert resumed(kind(), stored, **SAYS) == kind(seed=7, max_length=9)
    assert resumed(kind(seed=7), stored, explicit={"seed"}, **SAYS).seed == 7
    with pytest.raises(UsageError, match=r"--max-length 5 differs from the run's 9") as raised:
        resumed(kind(max_length=5), stored, **SAYS)
    assert raised.value.hint == "Leave it out to go on"
    # Typed at its default, it contradicts all the same.
    with pytest.raises(UsageError, match=r"--seed 42 differs from the run's 7"):
        resumed(kind(seed=42), stored, explicit={"seed"}, **SAYS)


def test_several_values_are_shown_as_they_are_typed() -> None:
    stored = CalibrateConfig(deltas=(0.1, 0.2)).as_dict()
    with pytest.raises(UsageError, match=r"--deltas 0.3 differs from the run's 0.1,0.2"):
        resumed(CalibrateConfig(deltas=(0.3,)), stored, **SAYS)


def test_free_options_may_differ_and_are_remembered_where_nothing_is_said() -> None:
    stored = AttackConfig(workers=3).as_dict()
    free = {"free": ("workers",), **SAYS}
    assert resumed(AttackConfig(), stored, **free).workers == 3
    assert resumed(AttackConfig(workers=2), stored, **free).workers == 2


def test_a_file_is_the_same_by_another_path(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    stored = TrainConfig(data_file=tmp_path / "own.csv").as_dict()
    same = TrainConfig(data_file=Path("own.csv"))
    assert resumed(same, stored, **SAYS).data_file == tmp_path / "own.csv"
    with pytest.raises(UsageError, match=r"--data-file other\.csv differs"):
        resumed(replace(same, data_file=Path("other.csv")), stored, **SAYS)
