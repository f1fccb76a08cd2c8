"""Training in two processes under torchrun, and killed with SIGKILL in the middle."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

sys.path.insert(0, str(Path(__file__).parents[1] / "unit" / "training"))

from training_tiny import write_backbone, write_reviews

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

SCRIPT = """
import sys
from pathlib import Path
from eexit_cli.config import TrainConfig
from eexit_cli.pipelines.train import run_training

if __name__ == "__main__":
    root, output, extra = Path(sys.argv[1]), sys.argv[2], eval(sys.argv[3])
    result = run_training(TrainConfig(
        backbone=str(root / "backbone"), data_file=root / "reviews.csv", output=root / output,
        results_dir=root / "results", pooling="mean", epochs=3, learning_rate=3e-3, max_length=24,
        device="cpu", evaluations_per_epoch=2, **extra,
    ))
    print(result.document["metrics"]["accuracy_full"], flush=True)
"""


@pytest.fixture
def root(tmp_path: Path) -> Path:
    write_backbone(tmp_path / "backbone")
    write_reviews(tmp_path / "reviews.csv", 320)
    (tmp_path / "script.py").write_text(SCRIPT, encoding="utf-8")
    return tmp_path


def _environment() -> dict[str, str]:
    return {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}


def _run(root: Path, output: str, extra: str, *launcher: str) -> str:
    command = [sys.executable, *launcher, str(root / "script.py"), str(root), output, extra]
    done = subprocess.run(
        command, env=_environment(), capture_output=True, text=True, timeout=600, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_torchrun_trains_one_model_in_two_processes(root: Path) -> None:
    launcher = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2")
    printed = _run(root, "two", "{'batch_size': 8, 'strategy': 'alternating'}", *launcher)
    scores = [float(line) for line in printed.split()]
    assert len(scores) == 2
    assert scores[0] == scores[1] > 0.8
    assert (root / "two" / "model.safetensors").is_file()
    assert not (root / "two.training").exists()
    assert len(list((root / "results").iterdir())) == 1


def test_killed_by_the_system_it_resumes_to_the_same_weights(root: Path) -> None:
    extra = "{'batch_size': 4, 'strategy': 'two-stage'}"
    _run(root, "whole", extra)
    killed = 0
    for stage in ("backbone", "ramps"):
        resume = "False" if killed == 0 else "True"
        options = extra[:-1] + f", 'resume': {resume}}}"
        process = subprocess.Popen(
            [sys.executable, str(root / "script.py"), str(root), "broken", options],
            env=_environment(),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        folder = root / "broken.training" / stage
        while process.poll() is None and not list(folder.glob("checkpoint-*/complete")):
            time.sleep(0.01)
        if process.poll() is None:
            process.send_signal(signal.SIGKILL)
            killed += 1
        process.wait()
    assert killed == 2
    assert not (root / "broken").exists()
    _run(root, "broken", extra[:-1] + ", 'resume': True}")
    whole, broken = (load_file(root / name / "model.safetensors") for name in ("whole", "broken"))
    for name, value in whole.items():
        assert torch.equal(value, broken[name]), name
