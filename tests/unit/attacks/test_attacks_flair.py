"""TextAttack without flair: never imported, not in the user's way, and missed with a clear line."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest
from textattack.constraints.grammaticality import PartOfSpeech
from textattack.shared import AttackedText
from textattack.transformations import WordSwapChangeName, WordSwapInflections

from eexit_cli.attacks.flair_stand_in import standing_in_for_flair
from eexit_cli.core.errors import MissingArtifactError

PROGRAM = """
import sys
from eexit_cli.attacks.textattack_env import prepare
prepare()
import textattack
assert textattack.shared.AttackedText("a good film").words == ["a", "good", "film"]
assert not [name for name in sys.modules if name.split(".")[0] in ("flair", "gensim")]
import flair
assert flair.whose == "the user's"
assert not hasattr(flair, "device")
"""


def test_flair_is_not_imported_and_the_users_own_is_found_later(tmp_path: Path) -> None:
    package = tmp_path / "flair"
    package.mkdir()
    (package / "__init__.py").write_text('whose = "the user\'s"\n')
    path = os.pathsep.join([str(tmp_path), *filter(None, sys.path)])
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM],
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr


def test_a_flair_that_was_imported_before_is_put_back(monkeypatch: pytest.MonkeyPatch) -> None:
    own = {name: ModuleType(name) for name in ("flair", "flair.data", "flair.embeddings")}
    for name, module in own.items():
        monkeypatch.setitem(sys.modules, name, module)
    monkeypatch.delitem(sys.modules, "flair.models", raising=False)
    with standing_in_for_flair():
        import flair

        assert flair is not own["flair"]
    assert {name: sys.modules[name] for name in own} == own
    assert "flair.models" not in sys.modules


def test_what_needs_flairs_tags_says_so() -> None:
    text = AttackedText("Maria saw a good film")
    for asks in (
        lambda: PartOfSpeech(tagger_type="flair"),
        lambda: text.pos_of_word_index(0),
        lambda: WordSwapInflections()(text),
        lambda: WordSwapChangeName()(text),
    ):
        with pytest.raises(MissingArtifactError, match="tags from flair") as raised:
            asks()
        assert 'PartOfSpeech(tagger_type="nltk")' in str(raised.value.hint)


def test_the_constraint_of_the_recipes_takes_nltks_tags() -> None:
    assert PartOfSpeech().tagger_type == "nltk"
