"""What a training says of its data before it begins, and what it refuses."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import datasets
import pytest

from eexit_cli.config.train import TrainConfig
from eexit_cli.core.errors import UsageError
from eexit_cli.core.progress import SilentProgress
from eexit_cli.core.types import Examples, TaskInfo
from eexit_cli.families.training_data import tell_data
from eexit_cli.families.training_log import still_falling

NAMES = ("bad", "good", "rare")


class Told(SilentProgress):
    def __init__(self) -> None:
        self.lines: list[str] = []

    def message(self, text: str) -> None:
        self.lines.append(text)


def examples(split: str, rows: list[tuple[str, Any]], info: TaskInfo) -> Examples:
    columns = {
        "id": [f"{split}-{number}" for number in range(len(rows))],
        "text": [text for text, _ in rows],
        "label": [label for _, label in rows],
    }
    return Examples(info, split, datasets.Dataset.from_dict(columns), len(rows))


def told(rows: list[tuple[str, Any]], info: TaskInfo, **options: Any) -> list[str]:
    config = TrainConfig(data_file=Path("mine.csv"), **options)
    progress = Told()
    parts = examples("train", rows[2:], info), examples("validation", rows[:2], info)
    tell_data(config, *parts, progress)
    return progress.lines


def line(lines: list[str], start: str) -> str:
    (found,) = [each for each in lines if each.startswith(start)]
    return found


ROWS = [
    *(("fine", 1), ("dull", 0), ("dull", 0), ("dull", 1), ("so so", 2)),
    *(("so what", 2), ("well", 1), ("a " * 100, 1), ("no", 0), ("nice", 1)),
]
CLASSES = TaskInfo("mine", "classification", NAMES)


def test_split_kind_classes_and_texts() -> None:
    lines = told(ROWS, CLASSES)
    assert line(lines, "Data") == (
        "Data: mine.csv, 8 rows to train on, 2 to validate (a tenth of the texts, drawn by seed 42)"
    )
    assert line(lines, "Kind").endswith("as column 'label' holds 3 different names")
    assert line(lines, "Classes") == "Classes: bad: 3 (30 %), good: 5 (50 %), rare: 2 (20 %)"
    assert line(lines, "Texts").endswith('smallest class, rare: "so so"; "so what"')


def test_duplicates_and_contradictions() -> None:
    lines = told(ROWS, CLASSES)
    assert line(lines, "1 text ") == "1 text stands there more than once (3 rows)"
    torn = line(lines, "1 of them")
    assert '"dull" (train-0, train-1, validation-1)' in torn
    lines = told([row for row in ROWS if row != ("dull", 1)], CLASSES)
    assert not any(each.startswith("1 of them") for each in lines)


def test_a_class_that_training_lacks_is_said() -> None:
    lines = told([("x", 2), ("y", 2), ("z", 0), ("w", 0), ("v", 1), ("u", 1)], CLASSES)
    assert line(lines, "No row") == "No row to train on has the class rare: it cannot be learned"


def test_a_class_of_one_text_is_refused() -> None:
    rows = [*ROWS[:5], ("so so", 2), *ROWS[6:]]
    with pytest.raises(UsageError) as caught:
        told(rows, CLASSES)
    assert caught.value.message == (
        "mine.csv: class 'rare' (train-2) has one text, which cannot be both learned and judged"
    )
    # A limit draws a part; the whole may well have more of it.
    assert told(rows, CLASSES, limit=10)


@pytest.mark.parametrize(
    ("names", "options", "why"),
    [
        (("0", "1", "2"), {}, "holds 3 different whole numbers (--label-kind number for values)"),
        (NAMES, {"label_names": NAMES}, "as --label-names names classes"),
        (NAMES, {"label_kind": "class"}, "as --label-kind class says of column 'label'"),
        (NAMES, {"task": "sst2"}, "as task 'mine' is"),
    ],
)
def test_why_it_is_this_kind(names, options, why) -> None:
    lines = told(ROWS, TaskInfo("mine", "classification", names), **options)
    assert line(lines, "Kind").endswith(why)


def test_values() -> None:
    rows = [(text, float(label) / 2) for text, label in ROWS]
    lines = told(rows, TaskInfo("mine", "regression"))
    assert "holds numbers with fractions" in line(lines, "Kind")
    assert line(lines, "Values") == "Values: 0 to 1, median 0.5"


@pytest.mark.parametrize(
    ("losses", "falling"),
    [
        ([1.0, 0.9], True),
        ([1.0, 0.99], False),
        ([0.5, 0.9], False),
        ([1.0], False),
        ([1.0, None], False),
    ],
)
def test_a_loss_that_still_falls_is_said(losses, falling) -> None:
    records = [{"stage": "first", "loss": 9.0}, *({"stage": "last", "loss": x} for x in losses)]
    said = still_falling(records, 3)
    assert (said is not None) == falling
    if said is not None:
        assert "1.000 to 0.900" in said
        assert "--epochs 6" in said
