"""The sets that come with the package; their cards lie beside them in ``assets/data``."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from eexit_cli.core.errors import MissingArtifactError, UsageError
from eexit_cli.core.protocols import Progress
from eexit_cli.core.types import TaskInfo
from eexit_cli.data.samples import Samples

ASSETS = Path(__file__).parents[1] / "assets" / "data"
"""A folder per set, a ``<split>.jsonl`` per split: ``id``, ``text``, ``label``, ``score``."""


def refuse_data_dir(info: TaskInfo, data_dir: Path | None, hint: str) -> None:
    """A bundled set has its own place; a folder given beside it is a usage error."""
    if data_dir is not None:
        raise UsageError(f"Task '{info.name}' comes with eexit and takes no --data-dir", hint=hint)


def bundled_file(path: Path) -> Path:
    """The same path; a missing artifact error where the installation lacks it."""
    if not path.is_file():
        raise MissingArtifactError(
            f"The bundled data file {path} is not there",
            hint="Reinstall: pip install --force-reinstall eexit",
        )
    return path


@dataclass(frozen=True)
class BundledTask:
    """A set in ``assets/data/<name>``."""

    info: TaskInfo
    splits: tuple[str, ...]
    hidden: tuple[str, ...] = ()
    renamed: Mapping[str, str] = field(default_factory=dict)

    @property
    def folder(self) -> Path:
        return ASSETS / self.info.name

    def read(self, split: str, *, data_dir: Path | None, progress: Progress) -> Samples:
        refuse_data_dir(
            self.info,
            data_dir,
            "Leave --data-dir out, name a GLUE task with --task, or use --data-file",
        )
        path = bundled_file(self.folder / f"{split}.jsonl")
        with path.open(encoding="utf-8") as stream:
            rows = [json.loads(line) for line in stream]
        ids = {name: index for index, name in enumerate(self.info.label_names)}
        return Samples(
            ids=[row["id"] for row in rows],
            texts=[row["text"] for row in rows],
            pairs=None,
            labels=[ids[row["label"]] for row in rows],
        )


def _sentiment(name: str, *splits: str) -> BundledTask:
    return BundledTask(TaskInfo(name, "classification", ("negative", "positive")), splits)


MOVIE_REVIEWS = _sentiment("movie-reviews", "train", "validation", "test")
AMAZON_REVIEWS = _sentiment("amazon-reviews", "test")
TWEETS = _sentiment("tweets", "test")
EDITORIALS = _sentiment("editorials", "test")
