"""Calibrated thresholds, kept with the model that they belong to.

A user's own folder keeps them in ``calibration.json`` beside the weights; for bundled models and
hub caches, which are not the user's to write to, they lie under the user's data folder
(``$EEXIT_HOME/calibrations``), named after the weights. An entry holds for exactly the weights, the
task and the conditions (tokenizer, source prefix, lower-casing, dtype, 8-bit weights, lengths)
that it was made with: anything else makes it stale. A model keeps all of them, by what was asked
and on what data.
"""

from __future__ import annotations

import hashlib
import json
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from eexit_cli.core.errors import EexitError, MissingArtifactError, UsageError
from eexit_cli.core.option import flag
from eexit_cli.core.published import EXPORTED_FILE
from eexit_cli.store.atomic import write_atomically
from eexit_cli.store.conditions import (
    GENERATION,
    TOKENIZER,
    difference,
    differences,
    generation_digest,
    known_of,
    repairs,
    tokenizer_digest,
)
from eexit_cli.store.models import ModelRef
from eexit_cli.store.records import encode

FILE = "calibration.json"
HOME_VARIABLE = "EEXIT_HOME"
SCHEMA_VERSION = 2
"""1 knew no conditions but lengths, under ``limits``."""

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
        metric: what made a generated text good; None for classes, and where it was not noted.
        p_value_name: how it was tested.
        procedure: how many thresholds were tested together.
        p_value: of the accepted threshold; None for the full model.
        samples: n.
        texts: digests of the calibration texts (:func:`text_digest`): they must not test it too.
        run_id: the run that found it.
        created: ISO 8601, UTC.
        conditions: what else the promise holds for: ``max_length``, ``max_new_tokens``, ``dtype``,
            ``weights``, ``lower_case``, ``source_prefix``, the digests ``tokenizer`` and
            ``generation``, and, where the losses compare with labels, ``label_names``: what the
            outputs were called. One that an older eexit did not note is absent.
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
    metric: str | None = None
    conditions: dict[str, Any] = field(default_factory=dict)

    def says_the_same(self, other: StoredCalibration) -> bool:
        """Is the other the same calibration made again? Then the newer one replaces it."""
        mine, its = asdict(self), asdict(other)
        ignored = ("run_id", "created")
        return all(mine[name] == its[name] for name in mine if name not in ignored)


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
    files = files or sorted(folder.glob(EXPORTED_FILE))
    if not files:
        raise MissingArtifactError(f"{folder} has no weights", hint="Check the path")
    digest = hashlib.sha256()
    for path in [folder / "config.json", *files]:
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


def keep(ref: ModelRef, folder: Path, *calibrations: StoredCalibration) -> Path:
    """Store calibrations with their model, beside those that say something else.

    Args:
        calibrations: of one model, the last one the newest.

    Returns:
        The file.

    Raises:
        EexitError: the file that is there already is damaged.
        OSError: it cannot be written.
    """
    path = place(ref, folder, calibrations[0].weights)
    # What was made for other weights can never be used again.
    others = [
        entry
        for entry in _read(path)
        if entry.weights == calibrations[0].weights
        and not any(entry.says_the_same(new) for new in calibrations)
    ]
    content = {
        "schema_version": SCHEMA_VERSION,
        "calibrations": [asdict(entry) for entry in (*others, *calibrations)],
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, encode(content, indent=2) + b"\n")
    return path


@contextmanager
def keeping(ref: ModelRef, folder: Path, *calibrations: StoredCalibration) -> Iterator[Path]:
    """:func:`keep` for as long as nothing fails: an error in the block puts the old file back."""
    path = place(ref, folder, calibrations[0].weights)
    before = path.read_bytes() if path.exists() else None
    try:
        yield keep(ref, folder, *calibrations)
    except BaseException:
        if before is None:
            path.unlink(missing_ok=True)
        elif path.read_bytes() != before:
            write_atomically(path, before)
        raise


def taken(entries: Sequence[StoredCalibration]) -> StoredCalibration:
    """What ``--threshold calibrated`` takes of calibrations that fit: the last certified one.

    Where none is certified it is the last: the full model.
    """
    return next((entry for entry in reversed(entries) if entry.certified), entries[-1])


State = Literal["taken", "kept", "stale"]


def listed(ref: ModelRef, folder: Path) -> list[tuple[StoredCalibration, State]]:
    """A model's calibrations, oldest first, as its files are now.

    Returns:
        Each with its state: ``taken`` by ``--threshold calibrated`` on its task (under the
        conditions that it was made with), ``kept`` beside that one, or ``stale``: made for other
        weights, or with other files beside them.

    Raises:
        MissingArtifactError: the folder has no weights.
        EexitError: the file is damaged.
    """
    digest = weights_digest(folder)
    now = {TOKENIZER: tokenizer_digest(folder), GENERATION: generation_digest(folder)}
    entries = _read(place(ref, folder, digest))
    stale = [
        entry.weights != digest or bool(differences(entry.conditions, now)) for entry in entries
    ]
    fresh = [entry for entry, old in zip(entries, stale, strict=True) if not old]
    chosen = [taken([e for e in fresh if e.task == task]) for task in {e.task for e in fresh}]
    return [
        (entry, "stale" if old else "taken" if entry in chosen else "kept")
        for entry, old in zip(entries, stale, strict=True)
    ]


def find(
    ref: ModelRef,
    folder: Path,
    *,
    task: str | None,
    data_options: str | None = None,
    confidence: str | None = None,
    wanted: Mapping[str, Any] | None = None,
    conditions: Mapping[str, Any] | None = None,
    run: str | None = None,
) -> StoredCalibration:
    """The last certified calibration of a model for a task, or that of a run.

    Args:
        ref: what ``--model`` meant.
        folder: the model's files.
        task: the task that the threshold is wanted for; None where nobody says (a text typed in).
        data_options: how ``eexit calibrate`` is told to use that task's data; by default
            ``--task <task>``.
        confidence: only a threshold on this measure.
        wanted: only one that was calibrated with these settings (of :data:`BESIDE_THRESHOLD`).
        conditions: those that hold now; see :class:`StoredCalibration`.
        run: only that of this run: its id, the beginning of one, or both ends of one with ``…``
            between them.

    Raises:
        MissingArtifactError: there is none, or it is stale (made for other weights, conditions or
            settings, or another task); the hint is the command that makes a new one.
        UsageError: the beginning fits several runs.
        EexitError: the file is damaged.
    """
    command = f"eexit calibrate --model {ref.name}"
    if confidence is not None:
        command += f" --confidence {confidence}"
    digest = weights_digest(folder)
    entries = _read(place(ref, folder, digest))
    if run is not None:
        entries = _of_run(entries, run, ref.name)
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
        options = " ".join(f"{flag(name)} {value}" for name, value in (wanted or {}).items())
        raise MissingArtifactError(
            f"The calibration of '{ref.name}' was not made with {options}",
            hint=f"Run: {command} {options}",
        )
    now = conditions or {}
    fresh = [entry for entry in found if not differences(entry.conditions, now)]
    if not fresh:
        nearest = taken(found)
        then = known_of(nearest.conditions)
        names = differences(then, now)
        raise MissingArtifactError(
            f"The calibration of '{ref.name}' is stale: run {nearest.run_id} was made with "
            + "; ".join(difference(name, then[name], now[name]) for name in names),
            hint=" ".join(["Run:", command, *repairs(names, now)]),
        )
    return taken(fresh)


def _of_run(entries: Sequence[StoredCalibration], run: str, model: str) -> list[StoredCalibration]:
    """The calibrations of one run, one for each of its measures."""
    ids = list(dict.fromkeys(entry.run_id for entry in entries))
    start, _, end = run.replace("...", "…").partition("…")
    fitting = [run] if run in ids else [i for i in ids if i.startswith(start) and i.endswith(end)]
    if not fitting:
        raise MissingArtifactError(
            f"'{model}' keeps no calibration of run '{run}'",
            hint=f"See what it keeps: eexit models show {model}",
        )
    if len(fitting) > 1:
        raise UsageError(
            f"'{run}' is the beginning of {len(fitting)} calibrations of '{model}'",
            hint=f"They are: {', '.join(fitting[-5:])}",
        )
    return [entry for entry in entries if entry.run_id == fitting[0]]


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
        return [_entry(entry) for entry in content["calibrations"]]
    except (ValueError, KeyError, TypeError) as error:
        raise EexitError(
            f"{path} is damaged: it is not what eexit writes",
            hint="Delete it and calibrate again: eexit calibrate",
        ) from error


def _entry(stored: Mapping[str, Any]) -> StoredCalibration:
    """An entry of this schema, or of the first."""
    entry = dict(stored)
    if "limits" in entry:
        entry["conditions"] = entry.pop("limits")
    return StoredCalibration(**entry)
