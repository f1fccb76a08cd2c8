"""What data a training has before it: told in lines, and refused where nothing good can follow."""

from __future__ import annotations

import textwrap
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from eexit_cli.core.errors import UsageError
from eexit_cli.data.label_values import number_of
from eexit_cli.families.batches import targets_of, texts_of

if TYPE_CHECKING:
    from eexit_cli.config.train import TrainConfig
    from eexit_cli.core.protocols import Progress
    from eexit_cli.core.types import Examples

Key = tuple[str, str]

_SHOWN_CLASSES = 12
_SHOWN_TEXTS = 3
_TEXT_WIDTH = 60


@dataclass(frozen=True)
class _Rows:
    """The samples of both parts.

    Attributes:
        ids: one per sample.
        keys: text and second text of each.
        labels: class ids, values, or accepted answers.
        training: how many are trained on; they come first.
    """

    ids: list[str]
    keys: list[Key]
    labels: list[Any]
    training: int

    @classmethod
    def of(cls, training: Examples, validation: Examples) -> _Rows:
        ids: list[str] = []
        keys: list[Key] = []
        labels: list[Any] = []
        for part in (training, validation):
            texts, pairs = texts_of(part)
            ids += part.dataset["id"]
            keys += zip(texts, pairs or [""] * len(texts), strict=True)
            labels += targets_of(part) or [None] * len(texts)
        return cls(ids, keys, labels, len(training))


def tell_data(
    config: TrainConfig, training: Examples, validation: Examples, progress: Progress
) -> None:
    """Say what is trained on: the split, the kind of task and why, classes, texts that recur.

    Args:
        config: names the data.
        training, validation: the two parts.
        progress: told.

    Raises:
        UsageError: a class of the user's own file that has one text alone.
    """
    rows = _Rows.of(training, validation)
    info = training.info
    if info.kind == "classification":
        _refuse_lone(config, rows, info.label_names)
    for line in _lines(config, training, validation, rows):
        progress.message(line)


def _lines(
    config: TrainConfig, training: Examples, validation: Examples, rows: _Rows
) -> Iterator[str]:
    info = training.info
    name = config.data_file.name if config.data_file is not None else info.name
    how = (
        f" (a tenth of the texts, drawn by seed {config.seed})"
        if config.data_file is not None
        else f" (the {validation.split} split)"
    )
    rows_of = "pieces" if info.raw_text else "rows"
    yield f"Data: {name}, {len(training)} {rows_of} to train on, {len(validation)} to validate{how}"
    kind = "raw text" if info.raw_text else info.kind
    yield f"Kind: {kind}, {_why(config, training, rows)}"
    if info.kind == "classification":
        yield from _of_classes(rows, info.label_names)
    elif info.kind == "regression":
        numbers = sorted(map(float, rows.labels))
        middle = numbers[len(numbers) // 2]
        yield f"Values: {numbers[0]:g} to {numbers[-1]:g}, median {middle:g}"
    yield from _recurring(rows, "target" if info.kind == "generation" else "label")


def _why(config: TrainConfig, training: Examples, rows: _Rows) -> str:
    info = training.info
    if config.task is not None:
        return f"as task '{info.name}' is"
    if info.raw_text:
        return "every token of which is predicted"
    if info.kind == "generation":
        return "as this model writes text"
    column = config.column("label_column")
    if config.label_kind is not None:
        return f"as --label-kind {config.label_kind} says of column '{column}'"
    if config.label_names is not None:
        return "as --label-names names classes"
    if info.kind == "regression":
        return f"as column '{column}' holds numbers with fractions (--label-kind class for classes)"
    if all(number_of(name) is not None for name in info.label_names):
        return (
            f"as column '{column}' holds {len(info.label_names)} different whole numbers "
            "(--label-kind number for values)"
        )
    return f"as column '{column}' holds {len(info.label_names)} different names"


def _of_classes(rows: _Rows, names: Sequence[str]) -> Iterator[str]:
    counts = Counter(dict.fromkeys(range(len(names)), 0))
    counts.update(rows.labels)
    trained = Counter(rows.labels[: rows.training])
    total = len(rows.labels)
    shown = [
        f"{names[index]}: {counts[index]} ({100 * counts[index] / total:.0f} %)"
        for index in range(min(len(names), _SHOWN_CLASSES))
    ]
    more = f", and {len(names) - len(shown)} more" if len(names) > len(shown) else ""
    yield f"Classes: {', '.join(shown)}{more}"
    unseen = [names[index] for index in range(len(names)) if not trained[index]]
    if unseen:
        yield (
            f"No row to train on has the class {', '.join(unseen[:_SHOWN_CLASSES])}: it cannot be "
            "learned"
        )
    smallest = min((index for index in counts if counts[index]), key=lambda index: counts[index])
    texts = dict.fromkeys(
        key for key, label in zip(rows.keys, rows.labels, strict=True) if label == smallest
    )
    yield f"Texts of the smallest class, {names[smallest]}: " + "; ".join(
        map(_short, list(texts)[:_SHOWN_TEXTS])
    )


def _recurring(rows: _Rows, what: str) -> Iterator[str]:
    """Texts that stand in the data several times, and those with different labels."""
    places: dict[Key, list[int]] = defaultdict(list)
    for place, key in enumerate(rows.keys):
        places[key].append(place)
    repeated = {key: found for key, found in places.items() if len(found) > 1}
    if not repeated:
        return
    texts = "1 text stands" if len(repeated) == 1 else f"{len(repeated)} texts stand"
    yield f"{texts} there more than once ({sum(map(len, repeated.values()))} rows)"
    torn = {
        key: found
        for key, found in repeated.items()
        if any(rows.labels[place] != rows.labels[found[0]] for place in found)
    }
    if torn:
        key, found = next(iter(torn.items()))
        where = ", ".join(rows.ids[place] for place in found[:_SHOWN_TEXTS])
        yield (
            f"{len(torn)} of them with different {what}s, of which at most one can be learned: "
            f"{_short(key)} ({where})"
        )


def _short(key: Key) -> str:
    text = " | ".join(part for part in key if part)
    return f'"{textwrap.shorten(text, _TEXT_WIDTH, placeholder=" ...")}"'


def _refuse_lone(config: TrainConfig, rows: _Rows, names: Sequence[str]) -> None:
    """A class with one text falls either to training or to validation.

    Raises:
        UsageError: a whole file of the user's has such a class.
    """
    if config.data_file is None or config.limit or config.validation_limit:
        return
    texts: dict[int, dict[Key, str]] = defaultdict(dict)
    for row, key, label in zip(rows.ids, rows.keys, rows.labels, strict=True):
        texts[label].setdefault(key, row)
    lone = [
        (names[label], next(iter(keys.values()))) for label, keys in texts.items() if len(keys) == 1
    ]
    if lone:
        listed = ", ".join(f"'{name}' ({row})" for name, row in sorted(lone)[:5])
        more = ", ..." if len(lone) > 5 else ""
        one = len(lone) == 1
        raise UsageError(
            f"{Path(config.data_file).name}: {'class' if one else f'{len(lone)} classes:'} "
            f"{listed}{more} {'has' if one else 'have'} one text, which cannot be both learned "
            "and judged",
            hint="Add texts of it, or drop the row",
        )
