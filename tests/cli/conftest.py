"""The command line as a person meets it: exit code, stdout and stderr together."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from eexit_cli.main import main


@dataclass(frozen=True)
class Outcome:
    """What a command left behind."""

    code: int
    out: str
    err: str


Invoke = Callable[..., Outcome]


@pytest.fixture
def eexit(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Invoke:
    """Run the command in this process, in an empty folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "100")
    monkeypatch.delenv("EEXIT_DEBUG", raising=False)
    # The command may set it (--debug); monkeypatch then removes it again.
    monkeypatch.setenv("EEXIT_DEBUG", "0")

    def invoke(*arguments: object) -> Outcome:
        capsys.readouterr()
        code = main([str(argument) for argument in arguments])
        said = capsys.readouterr()
        return Outcome(code, said.out, said.err)

    return invoke


def _python(
    arguments: list[str], folder: Path, environment: Mapping[str, str], said: str | None = None
) -> subprocess.CompletedProcess[str]:
    """Python in a process of its own."""
    return subprocess.run(
        [sys.executable, *arguments],
        input=said,
        capture_output=True,
        text=True,
        cwd=folder,
        env={**os.environ, **environment},
        timeout=250,
        check=False,
    )


@pytest.fixture
def eexit_process(tmp_path: Path) -> Invoke:
    """Run the command in a process of its own, in an empty folder."""

    def invoke(*arguments: object, **environment: str) -> Outcome:
        done = _python(["-m", "eexit_cli", *map(str, arguments)], tmp_path, environment)
        return Outcome(done.returncode, done.stdout, done.stderr)

    return invoke


_IN_TURN = """
import contextlib, io, json, sys
from eexit_cli.main import main
for arguments in json.load(sys.stdin):
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = main(arguments)
    print(json.dumps([code, out.getvalue(), err.getvalue()]), flush=True)
"""


@pytest.fixture
def eexit_in_turn(tmp_path: Path) -> Callable[..., list[Outcome]]:
    """Run commands one after the other in one process of their own: torch is imported once."""

    def invoke(*commands: Sequence[object], **environment: str) -> list[Outcome]:
        asked = json.dumps([[str(word) for word in command] for command in commands])
        done = _python(["-c", _IN_TURN], tmp_path, environment, asked)
        assert done.returncode == 0, done.stderr
        found = [json.loads(line) for line in done.stdout.splitlines()]
        assert len(found) == len(commands)
        return [Outcome(*each) for each in found]

    return invoke


WORDS = [
    *("a", "the", "film", "movie", "story", "is", "was", "not", "never", "very", "good", "bad"),
    *("fine", "dull", "great", "awful", "funny", "boring", "moving", "weak", "strong", "fresh"),
    *("stale", "acting", "plot", "end", "scene", "cast", "script", "music", "slow", "quick"),
]


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random multi-exit model of four layers that knows the words of :data:`WORDS`."""
    import torch
    from transformers import BertTokenizerFast

    from eexit_cli.models.encoder.model import MultiExitClassifier, MultiExitConfig

    folder = tmp_path_factory.mktemp("models") / "tiny"
    folder.mkdir()
    pieces = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", ".", ",", *WORDS]
    (folder / "vocab.txt").write_text("\n".join(pieces) + "\n", encoding="utf-8")
    torch.manual_seed(3)
    model = MultiExitClassifier(
        MultiExitConfig(
            backbone={
                "model_type": "bert",
                "vocab_size": len(pieces),
                "hidden_size": 16,
                "num_hidden_layers": 4,
                "num_attention_heads": 2,
                "intermediate_size": 32,
                "max_position_embeddings": 64,
                "initializer_range": 0.8,
            },
            family="deebert",
            pooling="first",
            exit_defaults={"criterion": "threshold", "confidence": "entropy", "threshold": 0.3},
            id2label={0: "negative", 1: "positive"},
            label2id={"negative": 0, "positive": 1},
        )
    )
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith("weight") and name.startswith(("classifiers", "poolers")):
                parameter.mul_(30)  # surer than chance, so that some texts leave early
    model.save_pretrained(folder)
    # By position: transformers 5 renamed vocab_file, and ignores the old name.
    BertTokenizerFast(str(folder / "vocab.txt"), do_lower_case=True).save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def reviews(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Forty labelled sentences of the same words."""
    import random

    chance = random.Random(5)
    lines = ["text,label"]
    for index in range(40):
        words = " ".join(chance.choice(WORDS) for _ in range(8))
        lines.append(f"{words} {index % 2} .,{('negative', 'positive')[index % 2]}")
    path = tmp_path_factory.mktemp("data") / "reviews.csv"
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path
