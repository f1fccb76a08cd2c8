"""The label column of a user's own table, as ids of the classes of a model or a task."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from eexit_cli.core.errors import UsageError
from eexit_cli.core.protocols import Progress
from eexit_cli.core.types import TaskInfo
from eexit_cli.data.label_values import Cell, fault_of
from eexit_cli.data.labels import (
    Classes,
    align,
    are_generic,
    infer,
    match_classes,
    named,
    one_label,
    parse_values,
)
from eexit_cli.data.reading import Fault
from eexit_cli.data.samples import Samples
from eexit_cli.data.tables import Table

NO_LABEL = -1
"""In a ``datasets.ClassLabel`` column: this row has no label."""


@dataclass(frozen=True)
class FileLabels:
    """A label column.

    Attributes:
        file: the file's name.
        stem: the same without extension: the name of the task that the file is.
        cells: the labels; empty where no row has one. Ids of classes that the file names are
            names already.
        classes: the names that the file itself gives its classes, index = id there; empty where it
            gives none.
    """

    file: str
    stem: str
    cells: tuple[Cell, ...]
    classes: tuple[str, ...]

    @classmethod
    def of(cls, table: Table, column: str, path: Path, *, given: bool) -> FileLabels:
        """Of a table; ``given`` is False where no row has a label.

        Args:
            path: as the user named it: the file, or the folder that it is in.
        """
        classes = table.classes.get(column, ())
        names = dict(enumerate(classes))
        cells = tuple(
            Cell(
                names.get(value, value) if isinstance(value, int) else value,
                path.name,
                table.unit,
                number,
            )
            for value, number in zip(table.columns[column], table.numbers, strict=True)
        )
        return cls(path.name, path.stem, cells if given else (), classes)

    @property
    def takes_ids(self) -> bool:
        """May a number be an id? Not where the file has names for its classes."""
        return not self.classes or are_generic(self.classes)

    def parse(self, classes: Classes) -> list[int] | None:
        """The class ids; None where no row has a label."""
        return classes.parse(self.cells) if self.cells else None

    def by_id(self, classes: Classes) -> bool:
        """Is any label a number that was taken for an id?"""
        return any(classes.named(cell.value) is None for cell in self.cells)


def label_faults(table: Table, column: str, known: Sequence[str]) -> list[Fault]:
    """Rows without a label, or with something that is none.

    Args:
        table: of the file.
        column: of the labels.
        known: names of classes, where they are known: one may be called "NA".
    """
    classes = Classes(known)
    found = ((number, fault_of(value), value) for number, value in _numbered_cells(table, column))
    return [
        Fault(number, *fault)
        for number, fault, value in found
        if fault is not None and classes.named(value) is None
    ]


def _numbered_cells(table: Table, column: str) -> Iterator[tuple[int, Any]]:
    return zip(table.numbers, table.columns[column], strict=True)


def labels_of_file(
    column: FileLabels,
    samples: Samples,
    task: TaskInfo | None,
    label_names: Sequence[str] | None,
    progress: Progress,
    kind: str | None = None,
) -> tuple[TaskInfo, Samples]:
    """The task that a file is, and its samples with labels in the order of the model's classes.

    Args:
        column: the labels.
        samples: without labels.
        task: what the file holds, when the user said so: its ids are the task's then.
        label_names: the model's classes, as for :func:`eexit_cli.data.load_examples`.
        progress: told how labels that are numbers, or classes without names, were taken.
        kind: class or number, where the user says so.

    Raises:
        UsageError: a label that is missing or is none of the classes; names the rows.
    """
    if task is not None:
        return _of_task(column, samples, task, label_names, progress)
    if label_names is None:
        if len(column.classes) == 1 and kind != "number":
            raise one_label(column.file, column.classes[0])
        if column.classes and kind != "number":
            return _of_model(column, samples, column.classes, progress)
        found, labels = infer(column.cells, column.file, kind)
        return _info(column.stem, found), samples.with_labels(labels)
    if len(label_names) > 1:
        return _of_model(column, samples, tuple(label_names), progress)
    _refuse_classes(column)
    return _info(column.stem, ()), samples.with_labels(parse_values(column.cells))


def _of_model(
    column: FileLabels, samples: Samples, names: tuple[str, ...], progress: Progress
) -> tuple[TaskInfo, Samples]:
    """Labels that are a model's classes, or the file's own."""
    theirs = column.classes
    if are_generic(names) and theirs and not are_generic(theirs):
        if len(theirs) != len(names):
            raise UsageError(
                f"{column.file} has {len(theirs)} classes ({', '.join(theirs)}), "
                f"the model {len(names)} without names",
                hint="Name the model's classes, in the order of its outputs: --label-names A,B,...",
            )
        progress.message(named(theirs, f"taking them, in this order, as {column.file}'s"))
        names = theirs
    order = match_classes(theirs, names)
    classes = Classes(
        names,
        {} if order is None else dict(zip(theirs, order, strict=True)),
        ids=column.takes_ids,
    )
    labels = column.parse(classes)
    if column.by_id(classes):
        if are_generic(names):
            how = "the model's outputs; its classes have no names (--label-names gives them)"
        else:
            how = f"ids: {_numbered(names)}"
        progress.message(f"The labels of {column.file} are numbers and taken as {how}")
    return _info(column.stem, names), samples.with_labels(labels)


def _of_task(
    column: FileLabels,
    samples: Samples,
    task: TaskInfo,
    label_names: Sequence[str] | None,
    progress: Progress,
) -> tuple[TaskInfo, Samples]:
    """Labels that are a task's classes, by its names, its ids, or the model's names for them."""
    outputs = task.num_labels if label_names is None else max(1, len(label_names))
    if outputs != task.num_labels:
        raise UsageError(
            f"Task '{task.name}' has {task.num_labels} outputs, the model {outputs}",
            hint="Leave --task out, or choose the task that the model was trained for",
        )
    if task.kind == "regression":
        _refuse_classes(column)
        return task, samples.with_labels(parse_values(column.cells))
    also: dict[str, int] = {}
    if label_names is not None and not are_generic(label_names):
        order = match_classes(task.label_names, label_names) or range(outputs)
        also = {label_names[output]: index for index, output in enumerate(order)}
    classes = Classes(task.label_names, also, ids=column.takes_ids)
    labels = column.parse(classes)
    if column.by_id(classes):
        progress.message(
            f"The labels of {column.file} are numbers and taken as the ids of "
            f"'{task.name}': {_numbered(task.label_names)}"
        )
    return align(task, samples.with_labels(labels), label_names, progress)


def _refuse_classes(column: FileLabels) -> None:
    if column.classes:
        raise UsageError(
            f"{column.file} has classes ({', '.join(column.classes)}), a regression has none",
            hint="Name the column of the values with --label-column",
        )


def _numbered(names: Sequence[str]) -> str:
    return ", ".join(f"{index} {name}" for index, name in enumerate(names))


def _info(name: str, label_names: tuple[str, ...]) -> TaskInfo:
    if label_names:
        return TaskInfo(name, "classification", label_names)
    return TaskInfo(name, "regression", metrics=("pearson", "spearman"))
