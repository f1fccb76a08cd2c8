"""Anybody's losses: CSV, Parquet or NumPy files, a column per threshold, cautious to eager."""

from __future__ import annotations

import csv
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from eexit_cli.calibration.losses import FloatArray, check_losses, describe_rows
from eexit_cli.core.errors import EexitError, MissingArtifactError, UsageError
from eexit_cli.core.text import not_utf8

if TYPE_CHECKING:
    from pandas import DataFrame

ID_COLUMN = "id"
LAYER_PREFIX = "exit_layer_"
_ARRAYS = ("losses", "exit_layers", "thresholds", "ids")


@dataclass(frozen=True)
class LossTable:
    """Losses as somebody handed them over.

    Attributes:
        thresholds: numbers where every column name is one, else the names.
        losses: in [0, 1]. Shape: [samples, thresholds].
        exit_layers: layers executed. Shape: [samples, thresholds]; None where not given.
        ids: one per sample.
        full_model: the first column is the full model.
    """

    thresholds: tuple[float | str, ...]
    losses: FloatArray
    exit_layers: FloatArray | None
    ids: tuple[str, ...]
    full_model: bool = False


def read_losses(
    path: Path, exit_layers: Path | None = None, full_model: str | None = None
) -> LossTable:
    """Read a table of losses.

    CSV and Parquet: a header with one name per threshold; a column ``id`` names the samples, and
    columns ``exit_layer_<threshold>`` give the layers. ``.npy``: the matrix alone. ``.npz``:
    ``losses``, and optionally ``exit_layers``, ``thresholds``, ``ids``. Pickles are refused.

    Args:
        exit_layers: a second file of the same shape with the layers executed.
        full_model: the column that is the full model, or ``first``.

    Raises:
        MissingArtifactError: no such file.
        UsageError: an unknown format, columns that are not numbers or not in order, losses
            outside [0, 1] or NaN (naming the rows), exit layers of another shape or below 1,
            columns that run from eager to cautious, or a full model that is not the first column
            or differs from itself.
        EexitError: the file is damaged.
    """
    columns = _read(path)
    losses = check_losses(columns.values, columns.names)
    layers, source = columns.layers, path
    if exit_layers is not None:
        if layers is not None:
            raise UsageError(f"'{path.name}' has exit layers of its own", hint="Drop --exit-layers")
        other = _read(exit_layers)
        layers, source = other.values, exit_layers
        if layers.shape == losses.shape and other.named and columns.named:
            _same_names(columns.names, other.names, source)
    if layers is not None:
        _check_layers(layers, losses, source)
        _check_order(layers, path)
    if full_model is not None:
        _check_full_model(full_model, columns.names, losses, path)
    return LossTable(
        thresholds=_thresholds(columns.names, path),
        losses=losses,
        exit_layers=layers,
        ids=columns.ids or tuple(str(row + 1) for row in range(len(losses))),
        full_model=full_model is not None,
    )


@dataclass(frozen=True)
class _Columns:
    names: tuple[str, ...]
    values: FloatArray
    layers: FloatArray | None = None
    ids: tuple[str, ...] | None = None
    named: bool = True


def _read(path: Path) -> _Columns:
    reader = _READERS.get(path.suffix.lower())
    if reader is None:
        raise UsageError(
            f"'{path}' is no table of losses", hint=f"Its name must end in {', '.join(_READERS)}"
        )
    if not path.exists():
        raise MissingArtifactError(f"No file '{path}'", hint="Check the path given to --losses")
    if path.is_dir():
        raise UsageError(f"'{path}' is a folder", hint="Give --losses a file")
    return reader(path)


def _csv(path: Path) -> _Columns:
    import pandas as pd

    try:
        with path.open(newline="", encoding="utf-8-sig") as stream:
            header = next(csv.reader(stream), [])
        if not header:
            raise UsageError(f"'{path}' is empty", hint="Give a header and a row per sample")
        _unique(header, path)
        frame = pd.read_csv(path, encoding="utf-8-sig", dtype={ID_COLUMN: str})
    except UnicodeDecodeError as error:
        said = not_utf8(f"'{path}'", path.read_bytes())
        raise UsageError(said, hint="Save it as UTF-8") from error
    except (pd.errors.ParserError, csv.Error) as error:
        raise _damaged(path, "CSV", error) from error
    return _from_frame(frame, path)


def _parquet(path: Path) -> _Columns:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        table = pq.read_table(path)
    except (pa.ArrowInvalid, OSError) as error:
        raise _damaged(path, "Parquet", error) from error
    _unique(table.column_names, path)
    return _from_frame(table.to_pandas(), path)


def _from_frame(frame: DataFrame, path: Path) -> _Columns:
    frame.columns = [str(name) for name in frame.columns]
    ids = None
    if ID_COLUMN in frame.columns:
        ids = tuple(str(value) for value in frame.pop(ID_COLUMN))
    layer_names = [name for name in frame.columns if name.startswith(LAYER_PREFIX)]
    names = [name for name in frame.columns if name not in layer_names]
    if not names:
        raise UsageError(f"'{path}' has no column of losses", hint="One column per threshold")
    layers = None
    if layer_names:
        _same_names(names, [name.removeprefix(LAYER_PREFIX) for name in layer_names], path)
        layers = _numbers(frame, layer_names, path)
    return _Columns(tuple(names), _numbers(frame, names, path), layers, ids)


def _numbers(frame: DataFrame, names: Sequence[str], path: Path) -> FloatArray:
    for name in names:
        kind = frame[name].dtype.kind
        # A column without rows has no type yet.
        if kind not in "fiub" and len(frame):
            raise UsageError(
                f"Column '{name}' of '{path}' is not numeric",
                hint=f"Only '{ID_COLUMN}' may hold text; every other column is a threshold",
            )
    return frame[list(names)].to_numpy(dtype=np.float64, na_value=np.nan)


def _npy(path: Path) -> _Columns:
    return _unnamed(_matrix(_load(path), path, "it"))


def _npz(path: Path) -> _Columns:
    with _load(path) as archive:
        unknown = sorted(set(archive.files) - set(_ARRAYS))
        if unknown or "losses" not in archive.files:
            what = f"has the array '{unknown[0]}'" if unknown else "has no array 'losses'"
            raise UsageError(f"'{path}' {what}", hint=f"Its arrays are {', '.join(_ARRAYS)}")
        try:
            arrays = {name: archive[name] for name in archive.files}
        except ValueError as error:
            raise _pickled(path) from error
    losses = _matrix(arrays["losses"], path, "'losses'")
    layers = arrays.get("exit_layers")
    columns = _unnamed(losses)
    names, named = columns.names, False
    if "thresholds" in arrays:
        names, named = tuple(str(value) for value in arrays["thresholds"].ravel().tolist()), True
        if losses.ndim == 2 and len(names) != losses.shape[1]:
            raise UsageError(
                f"'{path}' has {len(names)} thresholds for {losses.shape[1]} columns of losses",
                hint="Give one threshold per column",
            )
        _unique(names, path)
    ids = arrays.get("ids")
    if ids is not None and len(ids.ravel()) != len(losses):
        raise UsageError(f"'{path}' has {len(ids.ravel())} ids for {len(losses)} samples")
    return _Columns(
        names,
        losses,
        None if layers is None else _matrix(layers, path, "'exit_layers'"),
        None if ids is None else tuple(str(value) for value in ids.ravel().tolist()),
        named,
    )


def _load(path: Path) -> Any:
    try:
        return np.load(path, allow_pickle=False)
    except (ValueError, OSError, EOFError, zipfile.BadZipFile) as error:
        if isinstance(error, ValueError) and "pickle" in str(error).lower():
            raise _pickled(path) from error
        raise _damaged(path, "NumPy", error) from error


def _damaged(path: Path, kind: str, error: Exception) -> EexitError:
    return EexitError(f"'{path}' is not a valid {kind} file", hint=" ".join(str(error).split()))


def _pickled(path: Path) -> UsageError:
    return UsageError(
        f"'{path}' holds Python objects, which are not read: opening them can run code",
        hint="Save plain numbers: numpy.save(file, losses.astype(float))",
    )


def _matrix(values: NDArray[Any], path: Path, what: str) -> FloatArray:
    if values.dtype.kind not in "fiub":
        raise UsageError(
            f"'{path}': {what} holds {values.dtype} and not numbers",
            hint="Save plain numbers: numpy.save(file, losses.astype(float))",
        )
    return values.astype(np.float64)


def _unnamed(losses: FloatArray) -> _Columns:
    count = losses.shape[1] if losses.ndim == 2 else 0
    return _Columns(tuple(f"column {index + 1}" for index in range(count)), losses, named=False)


def _unique(names: Sequence[str], path: Path) -> None:
    seen: set[str] = set()
    for name in names:
        if name in seen:
            raise UsageError(
                f"'{path}' has the column '{name}' twice",
                hint="The first row must be a header with one name per threshold",
            )
        seen.add(name)


def _same_names(names: Sequence[str], others: Sequence[str], path: Path) -> None:
    if list(names) != list(others):
        odd = sorted(set(names) ^ set(others))
        what = f"'{odd[0]}' has no partner" if odd else "their order differs"
        raise UsageError(
            f"'{path}': losses and exit layers are not for the same thresholds: {what}",
            hint="Give both for every threshold, in the same order",
        )


def _check_layers(layers: FloatArray, losses: FloatArray, path: Path) -> None:
    if layers.shape != losses.shape:
        raise UsageError(
            f"Exit layers in '{path}' have shape {layers.shape}, losses {losses.shape}",
            hint="Give one exit layer per loss",
        )
    bad = ~(np.isfinite(layers) & (layers >= 1))
    if bad.any():
        rows = np.flatnonzero(bad.any(axis=1))
        raise UsageError(
            f"{len(rows)} of {len(layers)} rows of '{path}' have exit layers below 1 or NaN: "
            f"{describe_rows(rows)}",
            hint="Exit layers count from 1",
        )


def _check_order(layers: FloatArray, path: Path) -> None:
    """Columns that get deeper stand the wrong way round.

    They are not turned here: an order that the losses themselves suggest voids the guarantee of a
    fixed sequence, so whoever made the file must say it.
    """
    depth = layers.mean(axis=0)
    if (np.diff(depth) >= 0).all() and depth[-1] > depth[0]:
        raise UsageError(
            f"The columns of '{path.name}' run from eager to cautious: their mean exit layers "
            f"rise from {depth[0]:.4g} to {depth[-1]:.4g}",
            hint="Turn them round: the full model or the most cautious threshold comes first",
        )


FIRST = "first"


def _check_full_model(name: str, names: Sequence[str], losses: FloatArray, path: Path) -> None:
    index = _position(name, names)
    if index is None:
        raise UsageError(
            f"'{path.name}' has no column '{name}' to be the full model",
            hint=f"Give --full-model {names[0]}, or --full-model {FIRST}",
        )
    if index > 0:
        reversed_ = index == len(names) - 1
        raise UsageError(
            f"The full model, column '{names[index]}' of '{path.name}', is the last: the columns "
            "run from eager to cautious"
            if reversed_
            else f"The full model, column '{names[index]}' of '{path.name}', is not the first",
            hint="Order the columns from the full model to the most eager threshold",
        )
    rows = np.flatnonzero(losses[:, 0])
    if rows.size:
        raise UsageError(
            f"The full model's losses are not 0: column '{names[0]}' of '{path.name}', "
            f"{describe_rows(rows)}",
            hint="Give losses relative to the full model: max(0, R(early) - R(full)) per sample",
        )


def _position(name: str, names: Sequence[str]) -> int | None:
    """A column by its name, or by its number in another spelling; ``first`` is the first."""
    if name in names:
        return names.index(name)
    if name == FIRST:
        return 0
    try:
        return [float(other) for other in names].index(float(name))
    except ValueError:
        return None


def falls(losses: FloatArray) -> bool:
    """Mean losses are highest in the first column and lowest in the last: an order from eager to
    cautious, it seems. Shape: [samples, thresholds]."""
    means = losses.mean(axis=0)
    return bool(means[0] == means.max() > means.min() == means[-1])


def _thresholds(names: Sequence[str], path: Path) -> tuple[float | str, ...]:
    """The names as numbers if all of them are; they must then be in order."""
    values = []
    for name in names:
        try:
            values.append(float(name))
        except ValueError:
            return tuple(names)
    steps = np.diff(values)
    if not np.isfinite(values).all() or not ((steps > 0).all() or (steps < 0).all()):
        raise UsageError(
            f"The thresholds of '{path}' are not in order: {', '.join(names[:6])}"
            + (", ..." if len(names) > 6 else ""),
            hint="Order the columns from the most cautious to the most eager threshold",
        )
    return tuple(values)


_READERS: dict[str, Callable[[Path], _Columns]] = {
    ".csv": _csv,
    ".parquet": _parquet,
    ".npy": _npy,
    ".npz": _npz,
}
