"""``eexit tasks``: what ``--task`` takes, without fetching anything."""

from __future__ import annotations

import csv
import io
import json

from eexit_cli.data import TASKS
from eexit_cli.data.bundled import ASSETS


def test_every_task_is_listed_with_what_is_known_of_it(eexit, monkeypatch) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    done = eexit("tasks")
    assert done.code == 0
    assert "--data-file FILE" in done.err
    rows = {row["task"]: row for row in json.loads(eexit("tasks", "--json").out)["tasks"]}
    assert list(rows) == list(TASKS)
    assert eexit("tasks", "--quiet").out.split() == list(TASKS)
    for name, row in rows.items():
        assert name in done.out
        assert (row["source"] == "bundled") == (ASSETS / name).is_dir()
        assert row["source"] == "bundled" or "/" in row["source"]
    lines = (ASSETS / "tweets" / "test.jsonl").read_text(encoding="utf-8").splitlines()
    assert rows["tweets"]["splits"] == {"test": len(lines)}
    assert rows["mnli"]["splits"] == dict.fromkeys(TASKS.load("mnli").splits)
    assert rows["mnli"]["classes"] == list(TASKS.load("mnli").info.label_names)
    assert rows["stsb"]["classes"] is None
    table = {
        row["task"]: row
        for row in csv.DictReader(io.StringIO(eexit("tasks", "--format", "csv").out))
    }
    assert table["mrpc"] == {
        "task": "mrpc",
        "kind": "2 classes of pairs",
        "metrics": "accuracy, f1",
        "source": "nyu-mll/glue",
        "splits": "train, validation, test",
    }
    assert table["stsb"]["kind"] == "regression of pairs"
    assert table["tweets"]["splits"] == f"test {len(lines):,}"
