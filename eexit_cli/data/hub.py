"""Data sets of the Hugging Face hub, or of its cache on this machine."""

from __future__ import annotations

from pathlib import Path
from typing import Any

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

    try:
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
    raise MissingArtifactError(
        f"Task '{task}' could not be loaded from {repository}: {reason}",
        hint=f"{instead}, or connect once without HF_HUB_OFFLINE so that the data are cached",
    ) from cause


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
