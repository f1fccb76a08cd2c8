"""Calibrated thresholds, kept with the model that they belong to.

A user's own folder keeps them in ``calibration.json`` beside the weights; for bundled models and
hub caches, which are not the user's to write to, they lie under the user's data folder
(``$EEXIT_HOME/calibrations``), named after the weights. An entry holds for exactly the weights and
the task that it was made with: anything else makes it stale.
"""

from __future__ import annotations

import hashlib
import json
import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from eexit_cli.core.errors import EexitError, MissingArtifactError
from eexit_cli.store.atomic import write_atomically
from eexit_cli.store.models import ModelRef
from eexit_cli.store.records import encode

FILE = "calibration.json"
HOME_VARIABLE = "EEXIT_HOME"
SCHEMA_VERSION = 1

BESIDE_THRESHOLD: Mapping[str, Any] = {
    "min_layer": 1,
    "top_k_propagation": 0,
    "decay": "none",
    "temperature": None,
    "shallow_layer": None,
}
"""Settings of a decoder's exit beside the threshold: a promise holds for exactly those that it
was made with. The value is what each is where nothing is stored."""

_WEIGHT_FILES = ("*.safetensors", "pytorch_model*.bin")


@dataclass(frozen=True)
class StoredCalibration:
    """A threshold with its promise and where it comes from.

    Attributes:
        weights: digest of the model's weights and configuration (:func:`weights_digest`).
        task: the task (and data file) that the calibration samples came from.
        settings: the exit criterion, as ``exit_defaults`` writes it.
        certified: False where the answer was the full model for want of anything better.
        guarantee: the promise in one sentence.
        delta, epsilon: tolerated risk, and tolerated probability of exceeding it.
        consistency: textual or risk.
        p_value_name: how it was tested.
        procedure: how many thresholds were tested together.
        p_value: of the accepted threshold; None for the full model.
        samples: n.
        texts: digests of the calibration texts (:func:`text_digest`): they must not test it too.
        run_id: the run that found it.
        created: ISO 8601, UTC.
        limits: tokens that inputs and outputs were cut at (``max_length``, ``max_new_tokens``) and,
            where the losses compare with labels, ``label_names``: what the outputs were called.
    """

    weights: str
    task: str
    settings: dict[str, Any]
    certified: bool
    guarantee: str
    delta: float
    epsilon: float
    consistency: str
    p_value_name: str
    procedure: str
    p_value: float | None
    samples: int
    texts: Sequence[str]
    run_id: str
    created: str
    limits: dict[str, int | str] = field(default_factory=dict)

    @property
    def key(self) -> tuple[Any, ...]:
        """A later calibration of the same task, measure and settings replaces an earlier one."""
        what = self.settings.get("confidence") or self.settings.get("criterion")
        return self.task, what, *(setting_of(self.settings, name) for name in BESIDE_THRESHOLD)


def setting_of(settings: Mapping[str, Any], name: str) -> Any:
    """One of :data:`BESIDE_THRESHOLD` in an exit's settings."""
    value = settings.get(name)
    return BESIDE_THRESHOLD[name] if value is None else value


def weights_digest(folder: Path) -> str:
    """SHA-256 of a model folder's weights and configuration, as 16 hexadecimal digits.

    Raises:
        MissingArtifactError: the folder has no weights.
    """
    files = sorted(path for pattern in _WEIGHT_FILES for path in folder.glob(pattern))
    if not files:
        raise MissingArtifactError(f"{folder} has no weights", hint="Check the path")
    digest = hashlib.sha256()
    # What a decoder may write is set beside its configuration.
    generation = [path for path in [folder / "generation_config.json"] if path.is_file()]
    for path in [folder / "config.json", *generation, *files]:
        digest.update(os.fsencode(path.name))
        with path.open("rb") as stream:
            while block := stream.read(1 << 20):
                digest.update(block)
    return digest.hexdigest()[:16]


def text_digest(text: str, pair: str | None = None) -> str:
    """16 hexadecimal digits that stand for a sample's text, whatever its id."""
    whole = text if pair is None else f"{text}\x1f{pair}"
    return hashlib.blake2b(whole.encode("utf-8", "surrogatepass"), digest_size=8).hexdigest()


def home() -> Path:
    """The user's data folder: ``$EEXIT_HOME``, else the platform's."""
    given = os.environ.get(HOME_VARIABLE)
    if given:
        return Path(given).expanduser()
    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local") / "eexit"
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Application Support" / "eexit"
    data = os.environ.get("XDG_DATA_HOME")
    return (Path(data) if data else Path.home() / ".local" / "share") / "eexit"


def place(ref: ModelRef, folder: Path, digest: str) -> Path:
    """The file that keeps a model's calibrations."""
    if ref.kind == "folder" and os.access(folder, os.W_OK):
        return folder / FILE
    return home() / "calibrations" / f"{digest}.json"


def keep(ref: ModelRef, folder: Path, calibration: StoredCalibration) -> Path:
    """Store a calibration with its model; one of the same task and criterion is replaced.

    Returns:
        The file.

    Raises:
        EexitError: the file that is there already is damaged.
        OSError: it cannot be written.
    """
    path = place(ref, folder, calibration.weights)
    others = [entry for entry in _read(path) if entry.key != calibration.key]
    # What was made for other weights can never be used again.
    others = [entry for entry in others if entry.weights == calibration.weights]
    content = {
        "schema_version": SCHEMA_VERSION,
        "calibrations": [asdict(entry) for entry in (*others, calibration)],
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, encode(content, indent=2) + b"\n")
    return path


def find(
    ref: ModelRef,
    folder: Path,
    *,
    task: str | None,
    data_options: str | None = None,
    confidence: str | None = None,
    wanted: Mapping[str, Any] | None = None,
    limits: Mapping[str, int | str] | None = None,
) -> StoredCalibration:
    """The newest calibration of a model for a task.

    Args:
        ref: what ``--model`` meant.
        folder: the model's files.
        task: the task that the threshold is wanted for; None where nobody says (a text typed in).
        data_options: how ``eexit calibrate`` is told to use that task's data; by default
            ``--task <task>``.
        confidence: only a threshold on this measure.
        wanted: only one that was calibrated with these settings (of :data:`BESIDE_THRESHOLD`).
        limits: lengths that inputs and outputs are cut at now, and what the outputs are called.

    Raises:
        MissingArtifactError: there is none, or it is stale (made for other weights, lengths or
            settings, or another task); the hint is the command that makes a new one.
        EexitError: the file is damaged.
    """
    command = f"eexit calibrate --model {ref.name}"
    if confidence is not None:
        command += f" --confidence {confidence}"
    digest = weights_digest(folder)
    entries = _read(place(ref, folder, digest))
    if confidence is not None:
        entries = [entry for entry in entries if entry.settings.get("confidence") == confidence]
    if not entries:
        on = f" on '{confidence}'" if confidence is not None else ""
        raise MissingArtifactError(f"No calibration{on} for '{ref.name}'", hint=f"Run: {command}")
    current = [entry for entry in entries if entry.weights == digest]
    if not current:
        raise MissingArtifactError(
            f"The calibration of '{ref.name}' is stale: its weights or configuration have changed "
            f"since run {entries[-1].run_id}",
            hint=f"Run: {command}",
        )
    fitting = [entry for entry in current if task in (None, entry.task)]
    if not fitting:
        assert task is not None
        made_for = ", ".join(sorted({entry.task for entry in current}))
        raise MissingArtifactError(
            f"The calibration of '{ref.name}' is for task '{made_for}', not for '{task}'",
            hint=f"Run: {command} {data_options or f'--task {task}'}",
        )
    found = [
        entry
        for entry in fitting
        if all(setting_of(entry.settings, name) == value for name, value in (wanted or {}).items())
    ]
    if not found:
        options = " ".join(f"{_flag(name)} {value}" for name, value in (wanted or {}).items())
        raise MissingArtifactError(
            f"The calibration of '{ref.name}' was not made with {options}",
            hint=f"Run: {command} {options}",
        )
    for name, now in (limits or {}).items():
        then = found[-1].limits.get(name, now)
        if then != now:
            raise MissingArtifactError(
                f"The calibration of '{ref.name}' was made with {_flag(name)} {then}, not {now}",
                hint=f"Run: {command} {_flag(name)} {now}",
            )
    return found[-1]


def _flag(name: str) -> str:
    return f"--{name.replace('_', '-')}"


def _read(path: Path) -> list[StoredCalibration]:
    if not path.exists():
        return []
    try:
        content: Mapping[str, Any] = json.loads(path.read_bytes())
        if int(content["schema_version"]) > SCHEMA_VERSION:
            raise EexitError(
                f"{path} was written by a newer eexit",
                hint="Upgrade: pip install --upgrade eexit",
            )
        return [StoredCalibration(**entry) for entry in content["calibrations"]]
    except (ValueError, KeyError, TypeError) as error:
        raise EexitError(
            f"{path} is damaged: it is not what eexit writes",
            hint="Delete it and calibrate again: eexit calibrate",
        ) from error
