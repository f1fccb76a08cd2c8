"""A run's two documents, ``config.json`` and ``all_results.json``: their form, and reading them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from eexit_cli.core.errors import EexitError
from eexit_cli.store.records import plain

SCHEMA_VERSION = 1


def flat_numbers(metrics: Mapping[str, Any]) -> dict[str, float | int | bool | None]:
    """Metrics as a document holds them.

    Raises:
        TypeError: one is not a number.
    """
    flat = plain(metrics)
    for name, value in flat.items():
        if value is not None and not isinstance(value, (int, float)):
            raise TypeError(f"metric '{name}' is no number but {value!r}; tables belong in rows")
    return flat


def read_object(path: Path, *, needs: tuple[str, ...]) -> dict[str, Any]:
    """A JSON object with at least the names that it ``needs``.

    Raises:
        EexitError: the file is damaged, or written by a newer eexit.
    """
    try:
        content = json.loads(path.read_bytes())
    except ValueError as error:
        raise _damaged(path) from error
    if not isinstance(content, dict) or any(name not in content for name in needs):
        raise _damaged(path)
    version = content.get("schema_version")
    if not isinstance(version, int):
        raise _damaged(path)
    if version > SCHEMA_VERSION:
        raise EexitError(
            f"{path} was written by a newer eexit (schema {version}, known here: {SCHEMA_VERSION})",
            hint="Upgrade: pip install --upgrade eexit",
        )
    return content


def read_document(path: Path, *, needs: tuple[str, ...]) -> dict[str, Any]:
    """``all_results.json``, its figures under today's names.

    Raises:
        EexitError: the file is damaged, or written by a newer eexit.
    """
    document = read_object(path, needs=needs)
    metrics, rows = document["metrics"], document.get("rows", [])
    tables = [metrics, *rows] if isinstance(rows, list) else [rows]
    if not all(isinstance(figures, dict) for figures in tables):
        raise _damaged(path)
    for figures in tables:
        _rename(figures, metrics)
    return document


def _rename(figures: dict[str, Any], metrics: Mapping[str, Any]) -> None:
    """Figures that an older eexit wrote under names with two meanings.

    ``success_rate`` was the share at the last layer for classifiers and the share that reached its
    goal for decoders, whose figures alone count tokens; ``words_changed_mean`` counted letters
    too; ``speedup_throughput`` was of inputs for classifiers and of tokens for decoders.

    Args:
        figures: the metrics or a row, changed in place.
        metrics: of the same document.
    """
    decoder = "tokens_mean_before" in figures
    for old, new in (
        ("success_rate", "goal_success_rate" if decoder else "last_layer_rate"),
        ("words_changed_mean", "changes_mean"),
    ):
        if old in figures:
            figures[new] = figures.pop(old)
    whole, own = metrics.get("seconds_full"), figures.get("seconds")
    if "speedup_throughput" in figures and "throughput" not in metrics and whole and own:
        figures["speedup_throughput"] = whole / own


def _damaged(path: Path) -> EexitError:
    return EexitError(
        f"{path} is damaged: it is not what eexit writes",
        hint="Run the command again, or delete that run's folder",
    )
