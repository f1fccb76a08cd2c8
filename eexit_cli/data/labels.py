"""Class ids: reading them from a file's cells, and bringing them into a model's order."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from decimal import Decimal
from typing import Any

from eexit_cli.core.errors import UsageError
from eexit_cli.core.protocols import Progress
from eexit_cli.core.types import TaskInfo
from eexit_cli.data.label_values import (
    Cell,
    canonical,
    fault_of,
    fold,
    is_whole,
    key,
    may_be_label,
    number_of,
    rows_of,
    shown,
)
from eexit_cli.data.reading import Fault, told
from eexit_cli.data.samples import Samples
from eexit_cli.data.suggestions import suggest

_GENERIC = re.compile(r"(?:label[_ -]?)?(\d+)", re.IGNORECASE | re.ASCII)
_DECIMAL_COMMA = re.compile(r"[+-]?\d+(,\d+)?", re.ASCII)
_DIGITS = re.compile(r"\d+", re.ASCII)


def are_generic(names: Sequence[str]) -> bool:
    """True for names that say no more than their id: LABEL_0 or 0, LABEL_1 or 1, and so on.

    Other numbers are values of the data, which an id must not be taken for.
    """
    found = [_GENERIC.fullmatch(name) for name in names]
    return all(match and int(match[1]) == index for index, match in enumerate(found))


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
            progress.message(named(info.label_names, "taking them, in this order, as"))
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


def named(names: Sequence[str], how: str) -> str:
    """The line about a model whose classes have no names."""
    return (
        f"The model's classes have no names; {how} {', '.join(names)} "
        "(--label-names gives another order)"
    )


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
    folded = [fold(name) for name in ours]
    order: list[int] = []
    for name in map(fold, theirs):
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


class Classes:
    """The classes that a label may mean: by any spelling of a name or, where that is safe, by id.

    Ids are safe where no class is named after another number: with the names "1" and "2", or
    "1 star" and "2 stars", a label 1 is the first class and never the id 1.

    Args:
        names: index = class id.
        also: other names of the same classes -> id.
        ids: False where numbers are names of something else.
    """

    def __init__(
        self, names: Sequence[str], also: Mapping[str, int] | None = None, *, ids: bool = True
    ) -> None:
        self.names = tuple(names)
        self.takes_ids = ids and all(
            int(digits) == index
            for index, name in enumerate(names)
            for digits in _DIGITS.findall(name)
        )
        self._exact: dict[str, int] = {}
        self._folded: dict[str, int | None] = {}
        called = [*((name, index) for index, name in enumerate(names)), *(also or {}).items()]
        for name, index in called:
            self._exact.setdefault(name, index)
            known = self._folded.setdefault(key(name), index)
            if known != index:
                self._folded[key(name)] = None  # two classes: only the exact spelling tells

    def named(self, value: Any) -> int | None:
        """The class that a value names; None where it names none."""
        if not may_be_label(value):
            return None
        text = value.strip() if isinstance(value, str) else canonical(value)
        return self._exact.get(text, self._folded.get(key(value)))

    def by_id(self, value: Any) -> int | None:
        """The class whose id a value is; of two classes true is 1 and false 0."""
        if not self.takes_ids:
            return None
        number = number_of(value)
        if number is None and len(self.names) == 2:
            truth = fold(str(value))
            number = {"false": Decimal(0), "true": Decimal(1)}.get(truth)
        if number is None or not 0 <= number < len(self.names) or not is_whole(number):
            return None
        return int(number)

    def parse(self, cells: Sequence[Cell]) -> list[int]:
        """The ids of labels.

        Raises:
            UsageError: a label is missing, a list or the like, or neither a name nor an id.
        """
        found = [
            self.by_id(cell.value) if (named := self.named(cell.value)) is None else named
            for cell in cells
        ]
        unknown = [cell for cell, index in zip(cells, found, strict=True) if index is None]
        if unknown:
            raise UsageError(
                f"{rows_of(unknown)}: label {shown(unknown[0].value)} is outside the classes",
                hint=self._hint(unknown[0].value),
            )
        return [index for index in found if index is not None]

    def _hint(self, value: Any) -> str:
        if are_generic(self.names) and number_of(value) is None:
            return (
                "The model's classes have no names: give them in the order of its outputs with "
                "--label-names A,B,..."
            )
        ids = f" (or 0 to {len(self.names) - 1})" if self.takes_ids else ""
        return f"{suggest(str(value).strip(), self.names, title='Classes')}{ids}"


def parse_values(cells: Sequence[Cell]) -> list[float]:
    """Labels of a regression.

    Raises:
        UsageError: a cell is no finite number.
    """
    numbers = [number_of(cell.value) for cell in cells]
    values = [None if number is None else float(number) for number in numbers]
    bad = [c for c, v in zip(cells, values, strict=True) if v is None or v in _ENDLESS]
    if bad:
        raise UsageError(
            f"{rows_of(bad)}: label {shown(bad[0].value)} is not a number",
            hint="A regression model needs a finite number in every row",
        )
    return [value for value in values if value is not None]


_ENDLESS = (float("inf"), float("-inf"))


def parse_classes(cells: Sequence[Cell], names: Sequence[str]) -> list[int]:
    """Labels as ids of known classes: see :class:`Classes`.

    Raises:
        UsageError: a cell is neither a name nor an id.
    """
    return Classes(names).parse(cells)


def one_label(source: str, name: str) -> UsageError:
    return UsageError(
        f"{source} has one label only ('{name}')",
        hint="Training needs at least two classes; check --label-column",
    )


_MANY_CLASSES = 30
"""More than these, on fewer than three rows each, are no classes that anybody could learn."""


def infer(
    cells: Sequence[Cell], source: str, kind: str | None = None
) -> tuple[tuple[str, ...], list[int] | list[float]]:
    """Class names and labels of a file that no model or task describes.

    Numbers with a fractional part make a regression (no names); whole numbers are classes in
    their order; anything else are class names in alphabetical order, whatever their case. However
    a label is spelled, its name is :func:`~eexit_cli.data.label_values.canonical`'s.

    Args:
        cells: the labels.
        source: the file's name.
        kind: class or number, where the user says so.

    Raises:
        UsageError: a missing label, fewer than two classes, or numbers or names so many that they
            can hardly be classes.
    """
    faults = [Fault(cell.number, *found) for cell in cells if (found := fault_of(cell.value))]
    if faults:
        first = cells[0]
        raise UsageError(told(faults, first.file, first.unit, len(cells)), hint=faults[0].hint)
    numbers = [number_of(cell.value) for cell in cells]
    known = [number for number in numbers if number is not None]
    fractions = len(known) == len(cells) and not all(map(is_whole, known))
    if kind == "number" or (kind is None and fractions):
        return (), parse_values(cells)
    spelling: dict[str, str] = {}
    for cell in cells:
        spelling.setdefault(key(cell.value), canonical(cell.value))
    order = sorted(spelling)
    if len(known) == len(cells):
        order.sort(key=Decimal)
    if len(order) < 2:
        raise one_label(source, spelling[order[0]])
    if kind is None and len(order) > _MANY_CLASSES and 3 * len(order) > len(cells):
        numbers_too = len(known) == len(cells)
        commas = not numbers_too and all(_DECIMAL_COMMA.fullmatch(spelling[name]) for name in order)
        raise UsageError(
            f"{source} has {len(order)} different labels in {len(cells)} rows "
            f"({', '.join(spelling[name] for name in order[:3])}, ...): too many for classes",
            hint="Write decimals with a point"
            if commas
            else "Add --label-kind number if they are values to predict"
            if numbers_too
            else "Name the column of the classes with --label-column; or add --label-kind class",
        )
    ids = {name: index for index, name in enumerate(order)}
    return tuple(spelling[name] for name in order), [ids[key(cell.value)] for cell in cells]
