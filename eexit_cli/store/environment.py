"""What a run ran on: versions, machine, git revision. Asks for versions without importing them."""

from __future__ import annotations

import os
import platform
import subprocess
from functools import lru_cache
from importlib import metadata
from pathlib import Path
from typing import Any

import eexit_cli

PACKAGES = ("torch", "transformers", "datasets", "textattack", "numpy")


def describe_environment() -> dict[str, Any]:
    """The ``environment`` of a run's document.

    Returns:
        ``eexit``, ``python`` (versions), ``platform``, ``cpu_count`` (of the machine), ``threads``
        (``OMP_NUM_THREADS`` where set, else the CPUs that this process may use),
        ``packages`` (name -> version, None where not installed) and ``git_revision``
        (see :func:`git_revision`).
    """
    return {
        "eexit": eexit_cli.__version__,
        "python": platform.python_version(),
        "platform": platform.platform(),
        "cpu_count": os.cpu_count(),
        "threads": _threads(),
        "packages": {name: _version(name) for name in PACKAGES},
        "git_revision": git_revision(),
    }


@lru_cache(maxsize=1)
def git_revision() -> str | None:
    """Commit of the eexit checkout, with ``-dirty`` when files differ from it.

    None for an installed package: a repository that happens to hold the environment, such as the
    user's own project, says nothing about eexit. Without a ``git`` program the commit is read from
    the repository's files, and then nothing is said about changed files.
    """
    checkout = Path(eexit_cli.__file__).resolve().parents[1]
    if not (checkout / ".git").exists():
        return None
    command = ["git", "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
    try:
        answer = subprocess.run(
            command,
            cwd=checkout,
            capture_output=True,
            text=True,
            timeout=10,
            check=True,
            # Without this git would refresh its index, which another git may be writing.
            env={**os.environ, "GIT_OPTIONAL_LOCKS": "0"},
        )
    except (OSError, subprocess.SubprocessError):
        return _revision_from_files(checkout / ".git")
    return answer.stdout.strip() or None


def _revision_from_files(git: Path) -> str | None:
    try:
        if git.is_file():  # a worktree or submodule: the file names the real folder
            pointer = git.read_text(encoding="utf-8").removeprefix("gitdir:").strip()
            git = (git.parent / pointer).resolve()
        head = (git / "HEAD").read_text(encoding="utf-8").strip()
        if not head.startswith("ref:"):
            return head
        name = head.removeprefix("ref:").strip()
        common = git / "commondir"
        shared = (git / common.read_text(encoding="utf-8").strip()) if common.exists() else git
        for folder in (git, shared):
            if (folder / name).exists():
                return (folder / name).read_text(encoding="utf-8").strip()
        for line in (shared / "packed-refs").read_text(encoding="utf-8").splitlines():
            commit, _, packed = line.partition(" ")
            if packed == name:
                return commit
    except OSError:
        return None
    return None


def _threads() -> int | None:
    asked = os.environ.get("OMP_NUM_THREADS", "").split(",")[0]
    if asked.isdigit():
        return int(asked)
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count()


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None
