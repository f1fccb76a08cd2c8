"""Which rows made a model: a fingerprint of each, in its folder.

A guarantee, a measure of quality and an attack are about texts that the model has not learned, so
these rows are told apart from others. A row is its text (both texts of a pair, the source of a text
to write) as the split of a data file takes it: equal texts are one row. 8 bytes of BLAKE2b stand
for each, sorted, in NumPy's own format (never pickled): 110,000 rows take 0.9 MB.
"""

from __future__ import annotations

import zipfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from eexit_cli.core.errors import EexitError
from eexit_cli.store.calibrations import text_digest

FILE = "training_rows.npz"
"""In a model's folder."""

Digests = NDArray[np.uint64]


def digests_of(texts: Iterable[str], pairs: Iterable[str] | None = None) -> Digests:
    """A fingerprint per row, in the rows' order. Shape: [rows]."""
    rows = [(text, None) for text in texts] if pairs is None else zip(texts, pairs, strict=True)
    return np.array([int(text_digest(*row), 16) for row in rows], dtype=np.uint64)


@dataclass(frozen=True)
class TrainingRows:
    """What a model has seen.

    Attributes:
        trained: fingerprints of the rows that its weights were trained on.
        validated: of others, which chose its default exit.
    """

    trained: Digests
    validated: Digests

    @classmethod
    def of(cls, trained: Sequence[Digests], validated: Sequence[Digests]) -> TrainingRows:
        """All of them together; what was trained on counts as that alone."""
        learned = np.unique(np.concatenate(trained))
        return cls(learned, np.setdiff1d(np.concatenate(validated), learned))

    def after(self, before: TrainingRows | None) -> TrainingRows:
        """With the rows of the model that a training went on from."""
        if before is None:
            return self
        return TrainingRows.of([before.trained, self.trained], [before.validated, self.validated])


def write_training_rows(folder: Path, rows: TrainingRows) -> int:
    """Put them beside a model's weights.

    Returns:
        Bytes.

    Raises:
        OSError: the file cannot be written.
    """
    np.savez(folder / FILE, trained=rows.trained, validated=rows.validated)
    return (folder / FILE).stat().st_size


def read_training_rows(folder: Path) -> TrainingRows | None:
    """What a model has seen; None where nobody noted it.

    Raises:
        EexitError: the file is damaged.
    """
    path = folder / FILE
    if not path.is_file():
        return None
    try:
        with np.load(path, allow_pickle=False) as arrays:
            trained, validated = arrays["trained"], arrays["validated"]
    except (ValueError, KeyError, EOFError, OSError, zipfile.BadZipFile) as error:
        raise _damaged(path) from error
    if not all(rows.dtype == np.uint64 and rows.ndim == 1 for rows in (trained, validated)):
        raise _damaged(path)
    return TrainingRows(trained, validated)


def _damaged(path: Path) -> EexitError:
    return EexitError(
        f"{path} is damaged: it is not what eexit train writes",
        hint="Restore it, or delete it: which rows the model was trained on is then unknown",
    )
