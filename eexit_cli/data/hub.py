"""Data sets of the Hugging Face hub, or of its cache on this machine."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from functools import cache
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from urllib.request import getproxies

from eexit_cli.core.errors import MissingArtifactError

EXPORT = "refs/convert/parquet"
"""The branch with the hub's own Parquet copy of a repository, a folder per configuration. Read
where the main branch is a loading script: scripts of others are never run."""


def load_split(
    task: str,
    repository: str,
    configuration: str | None,
    split: str,
    *,
    instead: str,
    export: bool = False,
) -> Any:
    """A split as a ``datasets.Dataset``; the cache answers when the hub is out of reach.

    Args:
        task: its name in eexit, for the error.
        repository: the hub's id, or a folder in its layout.
        configuration: the repository's; None where it has one only.
        split: its name there.
        instead: what a user without the hub can do, for the hint.
        export: read the hub's Parquet copy.

    Raises:
        MissingArtifactError: neither the hub nor the cache has it.
    """
    import datasets
    import huggingface_hub

    answers = not huggingface_hub.constants.HF_HUB_OFFLINE and _hub_answers()
    try:
        with nullcontext() if answers else _offline():
            if export:
                return _exported(repository, f"{configuration}/{split}")
            return datasets.load_dataset(repository, configuration, split=split)
    except (OSError, datasets.exceptions.DatasetsError) as error:
        cause: Exception = error
    except ValueError as error:
        # A cache that holds other configurations of the repository but not this one.
        if not str(error).startswith("Couldn't find cache"):
            raise
        cause = error
    reason = (str(cause).splitlines() or [type(cause).__name__])[0]
    if not answers and not huggingface_hub.constants.HF_HUB_OFFLINE:
        reason = "the hub does not answer, and its cache here does not have it"
    raise MissingArtifactError(
        f"Task '{task}' could not be loaded from {repository}: {reason}",
        hint=f"{instead}, or connect once without HF_HUB_OFFLINE so that the data are cached",
    ) from cause


@cache
def _hub_answers() -> bool:
    """Is there a way to the hub? Its libraries would try for half a minute.

    Behind a proxy only they can tell.
    """
    import huggingface_hub

    if getproxies():
        return True
    hub = urlsplit(huggingface_hub.constants.ENDPOINT)
    port = hub.port or (443 if hub.scheme == "https" else 80)
    try:
        socket.create_connection((hub.hostname or "", port), timeout=_PATIENCE).close()
    except OSError:
        return False
    return True


_PATIENCE = 3.0
"""Seconds."""


@contextmanager
def _offline() -> Iterator[None]:
    """Inside, the hub's libraries look into their cache alone, as with HF_HUB_OFFLINE=1."""
    import datasets
    import huggingface_hub

    places = (datasets.config, huggingface_hub.constants)
    before = [place.HF_HUB_OFFLINE for place in places]
    for place in places:
        place.HF_HUB_OFFLINE = True
    try:
        yield
    finally:
        for place, value in zip(places, before, strict=True):
            place.HF_HUB_OFFLINE = value


def _exported(repository: str, folder: str) -> Any:
    """The Parquet files of one split.

    By way of the files, because ``datasets`` does not find in its cache what it loaded from a
    folder of a repository.
    """
    import datasets
    import huggingface_hub

    place = huggingface_hub.snapshot_download(
        repository, repo_type="dataset", revision=EXPORT, allow_patterns=f"{folder}/*.parquet"
    )
    files = sorted(str(path) for path in Path(place, folder).glob("*.parquet"))
    if not files:
        raise FileNotFoundError(f"no {folder} in the Parquet copy that is cached")
    return datasets.load_dataset("parquet", data_files=files, split="train")
