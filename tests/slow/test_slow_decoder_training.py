"""A decoder, then its classifiers, trained in two processes under torchrun."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from safetensors.torch import load_file

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

LAUNCHER = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2")
SMALL = (
    *("--model", "calm", "--device", "cpu", "--epochs", "1", "--batch-size", "8"),
    *("--limit", "128", "--validation-limit", "20"),
)
SHAPE = (
    *("--num-layers", "1", "--num-decoder-layers", "2"),
    *("--d-model", "16", "--d-ff", "16", "--num-heads", "2"),
)


def _train(folder: Path, *options: str) -> None:
    done = subprocess.run(
        [sys.executable, *LAUNCHER, "-m", "eexit_cli", "train", *SMALL, *options],
        cwd=folder,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert done.returncode == 0, done.stderr


def test_two_processes_train_one_decoder_and_its_classifiers(tmp_path: Path) -> None:
    _train(tmp_path, *SHAPE, "--output", "layers")
    _train(
        tmp_path,
        *("--backbone", "layers", "--confidence", "linear,transformer_linear_64"),
        *("--output", "both"),
    )
    before, after = (
        load_file(tmp_path / name / "model.safetensors") for name in ("layers", "both")
    )
    assert all(before[name].equal(after[name]) for name in before)
    added = {name.split(".")[1] for name in after.keys() - before.keys()}
    assert added == {"linear", "transformer_linear_64"}
    assert not list(tmp_path.glob("*.training"))
    assert len(list((tmp_path / "results").iterdir())) == 2
