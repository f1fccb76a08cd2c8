"""Whatever ends a worker or its run, nothing stays in the system's temporary directory.

Some libraries make folders there; here one is imitated that does so as a worker starts.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from attacks_tiny import classifier, wordpiece

from eexit_cli.config import AttackConfig
from eexit_cli.engine import Job, Work
from eexit_cli.engine.processes import Processes
from eexit_cli.pipelines.attack.attacker import Task, attacking
from eexit_cli.store.records import plain

LIBRARY = """
import sys, tempfile
if "--multiprocessing-fork" in sys.orig_argv:
    tempfile.mkdtemp(prefix="library-")
"""
SAMPLE = {"id": "1", "text": "a good film", "label": 1}


@pytest.fixture
def config(tmp_path: Path) -> AttackConfig:
    folder = tmp_path / "model"
    tokenizer = wordpiece()
    model = classifier(tokenizer, layers=3)
    model.config.id2label = {0: "negative", 1: "positive"}
    model.config.label2id = {"negative": 0, "positive": 1}
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return AttackConfig(
        model=str(folder),
        recipe="random",
        confidence="entropy",
        threshold=0.1,
    )


@pytest.fixture
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The system's temporary directory, and a library that leaves something in it."""
    folder, library = tmp_path / "tmp", tmp_path / "library"
    folder.mkdir()
    library.mkdir()
    (library / "sitecustomize.py").write_text(LIBRARY)
    monkeypatch.syspath_prepend(str(library))
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(filter(None, sys.path)))
    monkeypatch.setenv("TMPDIR", str(folder))
    monkeypatch.setattr(tempfile, "tempdir", None)
    return folder


def test_a_killed_worker_and_an_ended_one_leave_nothing(
    config: AttackConfig, temporary: Path
) -> None:
    with Processes(Work(attacking, (config,)), 2) as engine:
        for folder in temporary.iterdir():
            assert sorted(found.name[:8] for found in folder.iterdir()) == ["library-", "log"]
        os.kill(engine.pids[0], signal.SIGKILL)
        jobs = [Job(f"sample {number}", Task("random", SAMPLE, None)) for number in range(2)]
        records = [record for _, record in engine.run(jobs)]
        assert len(list(temporary.iterdir())) == 2, "the dead one's is gone, another's is there"
    assert len(records) == 2
    assert list(temporary.iterdir()) == []


RUN = """
import os, signal
from eexit_cli.config import AttackConfig
from eexit_cli.config.resume import config_from
from eexit_cli.engine import Job, Work
from eexit_cli.engine.processes import Processes
from eexit_cli.pipelines.attack.attacker import Task, attacking
config = config_from(AttackConfig, {config!r})
jobs = (Job(str(number), Task("random", {sample!r}, None)) for number in range(10_000))
try:
    with Processes(Work(attacking, (config,)), 1) as engine:
        for _ in engine.run(jobs):
            print("record", flush=True)
except KeyboardInterrupt:
    # By hand, as an exception hook of scoring's libraries makes an ordinary error of it.
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    os.kill(os.getpid(), signal.SIGINT)
"""


@pytest.mark.parametrize(
    ("end", "code"),
    [
        (lambda run: os.killpg(run.pid, signal.SIGINT), -signal.SIGINT),  # Ctrl-C in a terminal
        (lambda run: os.killpg(run.pid, signal.SIGTERM), -signal.SIGTERM),  # as timeout(1) ends
        (lambda run: run.send_signal(signal.SIGKILL), -signal.SIGKILL),
    ],
    ids=["ctrl-c", "terminated", "killed"],
)
def test_an_ended_run_leaves_nothing(
    config: AttackConfig,
    temporary: Path,
    end: Callable[[subprocess.Popen[bytes]], None],
    code: int,
) -> None:
    program = RUN.format(config=plain(config.as_dict()), sample=SAMPLE)
    run = subprocess.Popen(
        [sys.executable, "-c", program],
        start_new_session=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        # Tests that a shell runs in the background inherit a Ctrl-C that is ignored.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    assert run.stdout is not None
    try:
        assert run.stdout.readline() == b"record\n"
        assert len(list(temporary.glob("eexit-worker-*/library-*"))) == 1
        end(run)
        assert run.wait(timeout=60) == code
        deadline = time.monotonic() + 60
        while list(temporary.iterdir()):
            assert time.monotonic() < deadline, list(temporary.rglob("*"))
            time.sleep(0.01)
    finally:
        run.kill()
        run.stdout.close()
