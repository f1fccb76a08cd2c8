"""Where an unfinished training keeps its state, and how a finished model reaches its place.

The output folder appears only once the model is finished, in one rename. Until then everything is
in ``<output>.training`` beside it: the settings, and per stage either checkpoints or, once the
stage has ended, its final weights.
"""

from __future__ import annotations

import errno
import json
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_model, save_model
from torch import nn

from eexit_cli.core.errors import EexitError, UsageError

_COMPLETE = "complete"
_STATE = "training.json"
_WEIGHTS = "finished.safetensors"
_ALMOST_FULL = 1 << 20
"""Bytes."""


def keep_only(checkpoint: Path) -> None:
    """Mark a checkpoint as whole, then drop the others beside it.

    The mark is written last: a folder without it may be the torso of a killed run.
    """
    (checkpoint / _COMPLETE).write_text("", encoding="utf-8")
    for other in checkpoint.parent.glob("checkpoint-*"):
        if other != checkpoint:
            shutil.rmtree(other)


def newest_checkpoint(folder: Path) -> Path | None:
    """The whole checkpoint with the most steps below ``folder``; None where there is none."""
    found: list[tuple[int, Path]] = []
    for candidate in folder.glob("checkpoint-*") if folder.is_dir() else ():
        match = re.fullmatch(r"checkpoint-(\d+)", candidate.name)
        if match and (candidate / _COMPLETE).is_file():
            found.append((int(match.group(1)), candidate))
    return max(found)[1] if found else None


@contextmanager
def storage_errors(folder: Path) -> Iterator[None]:
    """Turn what torch and safetensors raise for a file that cannot be written into an OSError.

    Raises:
        OSError: with the system's reason, and ``folder`` as its file name.
    """
    try:
        yield
    except SafetensorError as error:
        reason = re.search(r"I/O error: .*\(os error (\d+)\)", str(error))
        if reason is None:
            raise
        number = int(reason.group(1))
        raise OSError(number, os.strerror(number), str(folder)) from error
    except RuntimeError as error:
        # torch.save's writer finds only that bytes are missing, not why.
        if "inline_container" not in str(error):
            raise
        full = shutil.disk_usage(folder).free < _ALMOST_FULL
        number = errno.ENOSPC if full else errno.EIO
        raise OSError(number, os.strerror(number), str(folder)) from error


def _is_model(folder: Path) -> bool:
    return (folder / "config.json").is_file()


@dataclass(frozen=True)
class Unfinished:
    """An unfinished training: the settings it began with, and what it has remembered since."""

    settings: dict[str, Any]
    notes: dict[str, Any]


@dataclass(frozen=True)
class Workspace:
    """The folder of an unfinished training.

    Attributes:
        output: where the finished model goes.
    """

    output: Path

    @property
    def path(self) -> Path:
        return self.output.with_name(self.output.name + ".training")

    def check(self, *, resume: bool) -> Unfinished | None:
        """May this training begin, or go on? Writes nothing.

        Args:
            resume: go on with what is there.

        Returns:
            The unfinished training to go on with; None for a new one.

        Raises:
            UsageError: the output is taken, an unfinished training is there and ``resume`` is
                not asked for, or there is nothing to resume.
        """
        unfinished = (self.path / _STATE).is_file()
        if resume and not unfinished:
            state = "is finished" if _is_model(self.output) else "has not begun"
            raise UsageError(
                f"Nothing to resume: the training of '{self.output}' {state}",
                hint="Leave out --resume to train, or name the --output of an unfinished training",
            )
        if resume:
            stored = self._read_state()
            return Unfinished(stored["settings"], stored["notes"])
        if _is_model(self.output):
            raise UsageError(
                f"'{self.output}' already holds a model",
                hint="Choose another --output, or delete that folder",
            )
        if self.output.exists() and (not self.output.is_dir() or any(self.output.iterdir())):
            raise UsageError(
                f"'{self.output}' exists and is not empty", hint="Choose another --output"
            )
        if unfinished:
            raise UsageError(
                f"An unfinished training of '{self.output}' is in '{self.path}'",
                hint="Go on with --resume, or delete that folder to start anew",
            )
        return None

    def claim(self, settings: dict[str, Any]) -> None:
        """Begin: from here on the output is this training's.

        Raises:
            OSError: the folder cannot be made or written.
        """
        self.path.mkdir(parents=True, exist_ok=True)
        if not (self.path / _STATE).is_file():
            self._write_state({"settings": settings, "notes": {}})

    def remember(self, **notes: Any) -> None:
        """Keep JSON-ready facts for a resumption."""
        stored = self._read_state()
        stored["notes"] |= notes
        self._write_state(stored)

    def stage(self, name: str) -> Path:
        """The folder of one stage's checkpoints."""
        return self.path / name

    def load_finished(self, name: str, model: nn.Module) -> bool:
        """Put a finished stage's weights into the model; False where it has not finished.

        Raises:
            EexitError: the stored weights do not fit the model.
        """
        weights = self.stage(name) / _WEIGHTS
        if not weights.is_file():
            return False
        try:
            load_model(model, str(weights))
        except RuntimeError as error:
            raise EexitError(
                f"The weights of stage '{name}' in '{weights}' do not fit the model",
                hint=f"Delete '{self.path}' and train anew",
            ) from error
        return True

    def finish_stage(self, name: str, model: nn.Module) -> None:
        """Store the weights that a stage ended with and drop its checkpoints."""
        folder = self.stage(name)
        folder.mkdir(parents=True, exist_ok=True)
        temporary = folder / f".{_WEIGHTS}.{os.getpid()}"
        try:
            save_model(model, str(temporary))
            os.replace(temporary, folder / _WEIGHTS)
        finally:
            temporary.unlink(missing_ok=True)
        for checkpoint in folder.glob("checkpoint-*"):
            shutil.rmtree(checkpoint)

    @contextmanager
    def publishing(self) -> Iterator[Path]:
        """A temporary folder for the finished model; on success it becomes the output.

        Raises:
            UsageError: meanwhile something else has appeared in the output's place.
            OSError: the model cannot be written.
        """
        temporary = self.output.with_name(f".{self.output.name}.{os.getpid()}")
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir(parents=True)
        try:
            yield temporary
            self._make_way()
            self.remember(published=True)
            os.replace(temporary, self.output)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)

    def _make_way(self) -> None:
        """Only our own model, from a run killed after publishing it, or nothing is replaced."""
        if not self.output.exists():
            return
        ours = self._read_state()["notes"].get("published", False)
        if ours and _is_model(self.output):
            shutil.rmtree(self.output)
        elif not self.output.is_dir() or any(self.output.iterdir()):
            raise UsageError(
                f"'{self.output}' has appeared during the training and is not empty",
                hint="Move it away and run the same command with --resume",
            )

    def remove(self) -> None:
        """Delete the state: the training is over."""
        shutil.rmtree(self.path)

    def _read_state(self) -> dict[str, Any]:
        path = self.path / _STATE
        try:
            stored = json.loads(path.read_text(encoding="utf-8"))
        except ValueError as error:
            raise EexitError(
                f"'{path}' is damaged", hint=f"Delete '{self.path}' and train anew"
            ) from error
        return dict(stored)

    def _write_state(self, state: dict[str, Any]) -> None:
        temporary = self.path / f".{_STATE}.{os.getpid()}"
        try:
            temporary.write_text(json.dumps(state, indent=2), encoding="utf-8")
            os.replace(temporary, self.path / _STATE)
        finally:
            temporary.unlink(missing_ok=True)
