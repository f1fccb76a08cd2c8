"""Class ids: reading them from a file's cells, and bringing them into a model's order."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from eexit_cli.core.errors import UsageError
from eexit_cli.core.protocols import Progress
from eexit_cli.core.types import TaskInfo
from eexit_cli.data.samples import Samples
from eexit_cli.data.suggestions import suggest

_GENERIC = re.compile(r"(label[_ -]?)?\d+", re.IGNORECASE)


def are_generic(names: Sequence[str]) -> bool:
    """True for names that say no more than their number: LABEL_0, 1."""
    return all(_GENERIC.fullmatch(name) for name in names)


def align(
    info: TaskInfo, samples: Samples, label_names: Sequence[str] | None, progress: Progress
) -> tuple[TaskInfo, Samples]:
    """Bring a task's class ids into the order of a model's classes.

    Checkpoints number the same classes differently (MNLI's entailment is 0 on the hub, 1 in the
    first checkpoints), so ids are matched by name: equal but for case and separators, or one the
    beginning of the other ("neg", "negative"). Names that only number (LABEL_0) keep the task's
    order; names that match nothing do too, and the user is told.

    Raises:
        UsageError: the model has another number of outputs than the task needs, or the task asks
            for text.
    """
    if label_names is None:
        return info, samples
    refuse_generation(info)
    outputs = max(1, len(label_names))
    if outputs != info.num_labels:
        raise UsageError(
            f"Task '{info.name}' needs {_outputs(info.num_labels, info.label_names)}, "
            f"the model has {_outputs(outputs, label_names)}",
            hint="Choose a task that the model was trained for with --task, or another --model",
        )
    if info.kind != "classification":
        return info, samples
    if are_generic(label_names):
        # Published checkpoints agree about the order of two classes, but not of MNLI's three.
        if len(label_names) > 2:
            progress.message(
                "The model's classes have no names; taking them, in this order, as "
                f"{', '.join(info.label_names)}"
            )
        return info, samples
    order = match_classes(info.label_names, label_names)
    if order is None:
        progress.message(
            f"The model's classes ({', '.join(label_names)}) are not named as those of "
            f"'{info.name}' ({', '.join(info.label_names)}); taking them in this order"
        )
        return info, samples
    aligned = replace(info, label_names=tuple(label_names))
    if samples.labels is None:
        return aligned, samples
    return aligned, samples.with_labels([order[int(label)] for label in samples.labels])


def refuse_generation(info: TaskInfo) -> None:
    """A model with classes or one number as its output cannot write text.

    Raises:
        UsageError: the task is one of generation.
    """
    if info.kind == "generation":
        raise UsageError(
            f"Task '{info.name}' needs a model that writes text, this one classifies",
            hint="Choose a T5 model with --model, such as calm, or another --task",
        )


def _outputs(number: int, names: Sequence[str]) -> str:
    if number == 1:
        return "one number (regression)"
    return f"{number} classes ({', '.join(names)})"


def match_classes(theirs: Sequence[str], ours: Sequence[str]) -> list[int] | None:
    """For each of the task's classes the model's id, or None where the names do not pair up."""
    folded = [_fold(name) for name in ours]
    order: list[int] = []
    for name in map(_fold, theirs):
        found = [index for index, other in enumerate(folded) if other == name] or [
            index
            for index, other in enumerate(folded)
            if min(len(other), len(name)) >= 3
            and (other.startswith(name) or name.startswith(other))
        ]
        if len(found) != 1:
            return None
        order.append(found[0])
    return order if len(set(order)) == len(order) else None


def _fold(name: str) -> str:
    return re.sub(r"[\s_-]+", " ", name).strip().casefold()


@dataclass(frozen=True)
class Cell:
    """One label as it stands in a file.

    Attributes:
        value: text or number.
        where: file and row in the words of an error message.
    """

    value: Any
    where: str


def parse_values(cells: Sequence[Cell]) -> list[float]:
    """Labels of a regression.

    Raises:
        UsageError: a cell is no finite number.
    """
    values = []
    for cell in cells:
        number = _number(cell.value)
        if number is None:
            raise UsageError(
                f"{cell.where}: label '{cell.value}' is not a number",
                hint="A regression model needs a finite number in every row",
            )
        values.append(number)
    return values


def parse_classes(cells: Sequence[Cell], names: Sequence[str]) -> list[int]:
    """Labels as ids of known classes: a class's name, or its id.

    A name wins over an id; upper and lower case matter only where two names differ by them alone.

    Raises:
        UsageError: a cell is neither a name nor an id.
    """
    exact = {name: index for index, name in enumerate(names)}
    folded: dict[str, int | None] = {}
    for index, name in enumerate(names):
        folded[_fold(name)] = None if _fold(name) in folded else index
    return [_class_id(cell, names, exact, folded) for cell in cells]


def _class_id(
    cell: Cell, names: Sequence[str], exact: dict[str, int], folded: dict[str, int | None]
) -> int:
    text = "" if cell.value is None else str(cell.value).strip()
    by_name = exact.get(text, folded.get(_fold(text)))
    if by_name is not None:
        return by_name
    number = _number(cell.value)
    if number is not None and number.is_integer() and 0 <= number < len(names):
        return int(number)
    shown = f"'{text}'" if text else "(empty)"
    raise UsageError(
        f"{cell.where}: label {shown} is outside the classes",
        hint=f"{suggest(text, names, title='Classes')} (or 0 to {len(names) - 1})",
    )


def infer(cells: Sequence[Cell], source: str) -> tuple[tuple[str, ...], list[int | float]]:
    """Class names and labels of a file that no model or task describes.

    Numbers with a fractional part make a regression (no names); whole numbers are classes in
    their order; anything else are class names in alphabetical order, whatever their case.

    Raises:
        UsageError: an empty label, or fewer than two classes.
    """
    for cell in cells:
        if cell.value is None or not str(cell.value).strip():
            raise UsageError(f"{cell.where}: the label is empty", hint="Fill it in or drop the row")
    numbers = [_number(cell.value) for cell in cells]
    known = [number for number in numbers if number is not None]
    if len(known) == len(cells):
        if not all(number.is_integer() for number in known):
            return (), list(known)
        distinct = sorted({int(number) for number in known})
        names = tuple(str(number) for number in distinct)
        ids = {number: index for index, number in enumerate(distinct)}
        labels: list[int | float] = [ids[int(number)] for number in known]
    else:
        spelling: dict[str, str] = {}
        for cell in cells:
            spelling.setdefault(_fold(str(cell.value)), str(cell.value).strip())
        order = {key: index for index, key in enumerate(sorted(spelling))}
        names = tuple(spelling[key] for key in order)
        labels = [order[_fold(str(cell.value))] for cell in cells]
    if len(names) < 2:
        raise UsageError(
            f"{source} has one label only ('{names[0]}')",
            hint="Training needs at least two classes; check --label-column",
        )
    return names, labels


def _number(value: Any) -> float | None:
    """The finite number that a cell holds, or None."""
    try:
        number = float(value)
    except (TypeError, ValueError, OverflowError):
        return None
    return number if math.isfinite(number) else None
