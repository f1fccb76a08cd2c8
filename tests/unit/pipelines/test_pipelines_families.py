"""A family of models is a package and a line, or somebody else's package and an entry point."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import eexit_cli as eexit
from eexit_cli.core.errors import UsageError
from eexit_cli.families import FAMILIES
from eexit_cli.families.listing import list_models
from eexit_cli.families.opening import family_of

MODULE = '''
from eexit_cli.core.answers import Answers, Exit
from eexit_cli.store.models import ModelSummary


class Echo:
    """Says how long texts are; leaves after layer 1 where they are short."""

    family, num_layers = "echo", 2

    def __init__(self, name):
        self.name = name

    def answers(self, inputs, exit=None, *, progress=None, title=""):
        layers = [[1] if len(text) < 4 else [2] for text in inputs]
        exit = exit or Exit.of({"criterion": "short"}, None)
        return Answers(exit, list(map(len, inputs)), layers)


class Family:
    name = "echo"

    def recognises(self, config):
        return config.get("model_type") == "echo"

    def summary(self, name, kind, path, config):
        return ModelSummary(name, kind, "echo", "echo", 2, (), None, 0.0, path=path)

    def load(self, config, *, progress=None):
        return Echo(config.model)


FAMILY = Family()
'''


@pytest.fixture
def echo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A model of a family that another package brings, and one that does not load."""
    site = tmp_path / "site"
    meta = site / "eexit_echo-1.0.dist-info"
    meta.mkdir(parents=True)
    (site / "eexit_echo.py").write_text(MODULE)
    (meta / "METADATA").write_text("Metadata-Version: 2.1\nName: eexit-echo\nVersion: 1.0\n")
    (meta / "entry_points.txt").write_text(
        "[eexit.families]\necho = eexit_echo:FAMILY\nbroken = eexit_echo:NOTHING\n"
    )
    monkeypatch.syspath_prepend(str(site))
    folder = tmp_path / "models" / "short-or-long"
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps({"model_type": "echo"}))
    (folder / "model.safetensors").write_bytes(b"")
    monkeypatch.setenv("EEXIT_MODELS_DIR", str(folder.parent))
    _forget()
    yield folder.name
    _forget()
    sys.modules.pop("eexit_echo", None)


def _forget() -> None:
    """A catalog reads what other packages add once in a process."""
    for name in ("_entry_points", "_plugins"):
        vars(FAMILIES).pop(name, None)
    FAMILIES._problems.clear()


def test_the_own_families() -> None:
    assert list(FAMILIES.own) == ["encoder", "seq2seq", "causal"]
    assert [family_of(name).name for name in ("deebert", "pabee", "calm")] == [
        "encoder",
        "encoder",
        "seq2seq",
    ]
    for name in FAMILIES.own:
        assert FAMILIES.load(name).name == name


def test_a_family_of_another_package_is_opened_and_listed(echo: str) -> None:
    assert family_of(echo).name == "echo"
    assert family_of("deebert").name == "encoder"
    model = eexit.load(echo)
    answers = model.answers(["no", "never"])
    assert (list(answers.outputs), list(answers.exit_layers)) == ([2, 5], [[1], [2]])
    assert [row.family for row in list_models() if row.name == echo] == ["echo"]


def test_it_reads_what_every_family_reads_and_refuses_the_rest(echo: str) -> None:
    eexit.load(echo, max_length=8, device="cpu")
    with pytest.raises(UsageError, match="is of the family echo"):
        eexit.load(echo, label_names=["a", "b"])


def test_an_unknown_exit_is_no_other_exit() -> None:
    model = eexit.load("pabee")
    one, same, other = (
        model.exit_from({"criterion": "patience", "patience": n}) for n in (2, 2, 3)
    )
    assert one == same
    assert hash(one) == hash(same)
    assert one != other
    assert one.described["patience"] == 2
    assert model.exit_from(one.described) == one
    assert model.exit_from({"criterion": "full"}) == model.full()
