"""A run is a folder: ``results/<run id>/``.

- ``config.json``: what was asked and with what versions, written when the run starts;
- ``records.jsonl``: one line per sample, appended as it is made, so a killed run can go on;
- ``all_results.json``: the whole document, written once, when the run is finished;
- figures, which ``eexit plot`` adds.

A run is finished when it has its document. ``config.json`` and ``all_results.json`` are replaced
atomically; one process at a time may write to a run.
"""

from __future__ import annotations

import re
import secrets
import shutil
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, Literal

from eexit_cli.core.catalog import nearest
from eexit_cli.core.errors import EexitError, MissingArtifactError, UsageError
from eexit_cli.store.atomic import write_atomically
from eexit_cli.store.documents import SCHEMA_VERSION, flat_numbers, read_document, read_object
from eexit_cli.store.environment import describe_environment
from eexit_cli.store.locking import RunLock
from eexit_cli.store.records import RecordFile, encode, plain

HEADER = "config.json"
RECORDS = "records.jsonl"
DOCUMENT = "all_results.json"
LOCK = ".lock"

RunStatus = Literal["finished", "unfinished", "damaged"]


@dataclass(frozen=True)
class RunSummary:
    """A run in one line, as ``eexit results list`` shows it.

    Attributes:
        id: the folder's name.
        path: the folder.
        command: attack, train, evaluate, calibrate; empty when damaged.
        created: start of the run, ISO 8601 in UTC; empty when damaged.
        status: finished, unfinished (running or killed), or damaged (files that cannot be read).
        config: the run's configuration.
        metrics: flat names to numbers; empty unless finished.
    """

    id: str
    path: Path
    command: str
    created: str
    status: RunStatus
    config: dict[str, Any] = field(default_factory=dict)
    metrics: dict[str, Any] = field(default_factory=dict)


class Run:
    """One run's folder, opened to read or, when made by ``create`` or ``resume``, to write.

    A writing run holds the folder's lock until :meth:`close`; use it as a context manager.
    An exception inside leaves the run unfinished, with its records, ready to be resumed.

    Attributes:
        id: the run's id, the name of its folder.
        path: the folder.
        command: the command that made it.
        created: ISO 8601, UTC.
        config: the configuration that it was created with.
    """

    def __init__(
        self, path: Path, header: Mapping[str, Any], *, lock: RunLock | None = None
    ) -> None:
        self.path = path
        self.id = path.name
        self.command: str = header["command"]
        self.created: str = header["created"]
        self.config: dict[str, Any] = header["config"]
        self._environment: dict[str, Any] = header["environment"]
        self._records = RecordFile(path / RECORDS)
        self._lock = lock

    def __enter__(self) -> Run:
        return self

    def __exit__(self, *raised: object) -> None:
        self.close()

    @property
    def finished(self) -> bool:
        return (self.path / DOCUMENT).exists()

    def append(self, record: Mapping[str, Any]) -> None:
        """Add a record; it survives a kill of this process from here on.

        Raises:
            OSError: it cannot be written (full disk); the file then ends as it did before.
        """
        self._require_writing()
        self._records.append(record)

    def records(self) -> list[dict[str, Any]]:
        """All records so far, in the order in which they were made; [] when there are none.

        Raises:
            EexitError: a line other than the last is damaged.
        """
        return self._records.read()

    def document(self) -> dict[str, Any] | None:
        """The content of ``all_results.json``; None while the run is unfinished.

        Raises:
            EexitError: the file is damaged, or written by a newer eexit.
        """
        path = self.path / DOCUMENT
        if not path.exists():
            return None
        return read_document(path, needs=("command", "config", "metrics", "rows"))

    def finish(
        self,
        metrics: Mapping[str, Any],
        rows: Iterable[Mapping[str, Any]] = (),
        timings: Mapping[str, Any] | None = None,
        report: Mapping[str, Any] | None = None,
    ) -> dict[str, Any]:
        """Write ``all_results.json``; the run is finished with it.

        Args:
            metrics: flat names to numbers. NaN and the infinities are stored as null.
            rows: the run's table where it has one, in the same names.
            timings: names to seconds.
            report: what neither a number nor the one table can say, under its own key.

        Returns:
            The document, as a reader of the file gets it.

        Raises:
            TypeError: a metric is not a number.
            OSError: the file cannot be written; the run stays unfinished.
        """
        self._require_writing()
        if self.finished:
            raise RuntimeError(f"run {self.id} is finished already")
        document = {
            "schema_version": SCHEMA_VERSION,
            "run_id": self.id,
            "command": self.command,
            "created": self.created,
            "config": self.config,
            "environment": self._final_environment(),
            "metrics": flat_numbers(metrics),
            "timings": plain(timings or {}),
            "rows": [plain(row) for row in rows],
            **({} if report is None else {"report": plain(report)}),
        }
        self._records.sync()
        write_atomically(self.path / DOCUMENT, encode(document, indent=2) + b"\n")
        return document

    def close(self) -> None:
        """Release the lock and the files; harmless when done twice."""
        self._records.close()
        if self._lock is not None:
            self._lock.release(remove=self.finished)

    def _require_writing(self) -> None:
        if self._lock is None or not self._lock.held:
            raise RuntimeError(f"run {self.id} is open for reading only")

    def _final_environment(self) -> dict[str, Any]:
        """This process's environment; a run resumed elsewhere also says what it started with."""
        now = describe_environment()
        before = {key: value for key, value in self._environment.items() if now.get(key) != value}
        return {**now, "started_with": before} if before else now


class ResultStore:
    """All runs below one folder.

    Args:
        results_dir: made when the first run is.
    """

    def __init__(self, results_dir: Path | str = "results") -> None:
        self.results_dir = Path(results_dir)

    def create(self, command: str, config: Mapping[str, Any]) -> Run:
        """Start a run in a folder of its own, locked for this process.

        Args:
            command: attack, train, evaluate, calibrate.
            config: the full configuration, written to ``config.json`` at once.

        Raises:
            UsageError: ``results_dir`` is a file.
            OSError: it cannot be written to; no run folder is left behind.
        """
        header = {
            "schema_version": SCHEMA_VERSION,
            "run_id": "",
            "command": command,
            "created": "",
            "config": plain(config),
            "environment": describe_environment(),
        }
        path, created = self._new_folder(command, header["config"])
        header["run_id"], header["created"] = path.name, created.isoformat()
        lock = RunLock(path / LOCK)
        try:
            if not lock.acquire():
                raise RuntimeError(f"somebody locked the new run {path.name}")
            write_atomically(path / HEADER, encode(header, indent=2) + b"\n")
        except BaseException:
            lock.release()
            shutil.rmtree(path, ignore_errors=True)
            raise
        return Run(path, header, lock=lock)

    def open(self, run_id: str, *, command: str | None = None) -> Run:
        """A run to read.

        Args:
            run_id: an id, the beginning of exactly one, ``beginning…end`` as lists shorten it,
                ``latest`` (the newest finished run, of ``command`` when given), or the path of a
                run's folder.
            command: refuse runs of other commands.

        Raises:
            MissingArtifactError: there is no such run; the hint names the nearest ids.
            UsageError: the beginning fits several runs, or the run is another command's.
            EexitError: its ``config.json`` is damaged.
        """
        if run_id == "latest":
            return self.latest(command)
        path = self._find(run_id)
        run = Run(path, _read_header(path))
        if command is not None and run.command != command:
            raise UsageError(
                f"Run '{run.id}' is a run of '{run.command}', not of '{command}'",
                hint="See all runs: eexit results list",
            )
        return run

    def resume(self, run_id: str, *, command: str | None = None) -> Run:
        """A run to go on with, locked for this process, a torn last record cut off.

        Args:
            run_id: as for :meth:`open`, except that ``latest`` is the newest *unfinished* run.
            command: refuse runs of other commands.

        Raises:
            MissingArtifactError, UsageError, EexitError: as for :meth:`open`.
            UsageError: the run is finished.
            EexitError: another process writes to it.
        """
        if run_id == "latest":
            run_id = self._latest(command, "unfinished").id
        opened = self.open(run_id, command=command)
        lock = RunLock(opened.path / LOCK)
        if not opened.finished and not lock.acquire():
            left = lock.left_behind
            raise EexitError(
                f"Run '{opened.id}' is being written by {lock.owner()}",
                hint=f"Wait for it to end; if it is dead, delete {left}"
                if left
                else "Wait for it to end, or stop it",
            )
        # Only the holder of the lock can say whether the run is finished.
        if opened.finished:
            lock.release(remove=True)
            raise UsageError(
                f"Run '{opened.id}' is finished: there is nothing to resume",
                hint=f"See it: eexit results show {opened.id}",
            )
        run = Run(opened.path, _read_header(opened.path), lock=lock)
        try:
            RecordFile(run.path / RECORDS).repair()
        except BaseException:
            run.close()
            raise
        return run

    def latest(self, command: str | None = None) -> Run:
        """The newest finished run, of one command or of any.

        Raises:
            MissingArtifactError: there is none; the hint names the command that makes one.
        """
        newest = self._latest(command, "finished")
        return Run(newest.path, _read_header(newest.path))

    def list(self) -> list[RunSummary]:
        """All runs, oldest first. Folders that are no runs are left out."""
        found = map(_summarise, self._folders())
        return sorted(found, key=lambda summary: (summary.created, summary.id))

    def _folders(self) -> Iterator[Path]:
        return (header.parent for header in self.results_dir.glob(f"*/{HEADER}"))

    def _latest(self, command: str | None, status: RunStatus) -> RunSummary:
        fitting = [
            summary
            for summary in self.list()
            if summary.status == status and command in (None, summary.command)
        ]
        if not fitting:
            what = f"{status} {command}" if command else status
            raise MissingArtifactError(
                f"No {what} run in '{self.results_dir}'",
                hint=f"Run: eexit {command or 'attack'}"
                if status == "finished"
                else "See all runs: eexit results list",
            )
        return fitting[-1]

    def _new_folder(self, command: str, config: Mapping[str, Any]) -> tuple[Path, datetime]:
        try:
            self.results_dir.mkdir(parents=True, exist_ok=True)
        except (FileExistsError, NotADirectoryError) as error:
            raise UsageError(
                f"'{self.results_dir}' is not a folder",
                hint="Choose another place: --results-dir FOLDER",
            ) from error
        for _ in range(100):
            created = datetime.now(timezone.utc)
            path = self.results_dir / _new_id(created, command, config)
            try:
                path.mkdir()  # fails when it exists: the only race-free way to own it
            except FileExistsError:
                continue
            return path, created
        raise RuntimeError(f"no free run id in {self.results_dir} after 100 attempts")

    def _find(self, run_id: str) -> Path:
        given = Path(run_id)
        if given.name != run_id and (given / HEADER).is_file():
            return given
        ids = sorted(path.name for path in self._folders())
        start, _, end = run_id.replace("...", "…").partition("…")
        fitting = [i for i in ids if run_id and i.startswith(start) and i.endswith(end)]
        fitting = [run_id] if run_id in ids else fitting
        if len(fitting) == 1:
            return self.results_dir / fitting[0]
        if fitting:
            raise UsageError(
                f"'{run_id}' is the beginning of {len(fitting)} runs",
                hint=f"They are: {', '.join(fitting[-5:])}",
            )
        close = nearest(run_id, ids)
        if close:
            hint = f"Did you mean {' or '.join(close)}? All runs: eexit results list"
        else:
            hint = "All runs: eexit results list" if ids else "There is no run yet: eexit attack"
        raise MissingArtifactError(f"No run '{run_id}' in '{self.results_dir}'", hint=hint)


def _new_id(created: datetime, command: str, config: Mapping[str, Any]) -> str:
    """``20261121-033015-attack-deebert-same-token-ab12``: sorts by time, says what it is."""
    words = [command, config.get("model"), config.get("recipe")]
    slugs = [slug for slug in (_slug(word) for word in words if word) if slug]
    return "-".join([created.strftime("%Y%m%d-%H%M%S"), *slugs, secrets.token_hex(2)])


def _slug(word: object) -> str:
    """The last part of a path or hub id, in characters that every file system and shell takes."""
    last = re.split(r"[/\\]", str(word).rstrip("/\\"))[-1]
    return re.sub(r"[^a-z0-9_.]+", "-", last.lower()).strip("-.")[:40]


def _summarise(path: Path) -> RunSummary:
    try:
        header = _read_header(path)
        document = path / DOCUMENT
        finished = document.exists()
        metrics = read_document(document, needs=("metrics",))["metrics"] if finished else {}
    except EexitError:
        return RunSummary(path.name, path, "", "", "damaged")
    return RunSummary(
        id=path.name,
        path=path,
        command=header["command"],
        created=header["created"],
        status="finished" if finished else "unfinished",
        config=header["config"],
        metrics=metrics,
    )


def _read_header(path: Path) -> dict[str, Any]:
    return read_object(path / HEADER, needs=("command", "created", "config", "environment"))
