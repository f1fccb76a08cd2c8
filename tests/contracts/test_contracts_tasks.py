"""What every task of the catalog must offer; a new entry is tested without an edit."""

from __future__ import annotations

from dataclasses import replace

import pytest

from eexit_cli.core.errors import UsageError
from eexit_cli.core.progress import SilentProgress
from eexit_cli.core.types import TaskInfo
from eexit_cli.data import TASKS, task_info
from eexit_cli.data.labels import align
from eexit_cli.data.samples import Samples
from eexit_cli.metrics.generation import GENERATION_METRICS, compute_generation
from eexit_cli.metrics.task import compute


@pytest.fixture(params=sorted(TASKS))
def name(request) -> str:
    return request.param


def test_it_is_called_as_it_is_registered(name):
    info = task_info(name)
    assert isinstance(info, TaskInfo)
    assert info.name == name == name.lower()


def test_classes_are_distinct(name):
    info = task_info(name)
    folded = {label.casefold() for label in info.label_names}
    assert len(folded) == len(info.label_names)
    assert (len(folded) >= 2) is (info.kind == "classification")
    assert info.num_labels == max(1, len(folded))


def test_its_metrics_can_be_computed_and_reward_the_truth(name):
    info = task_info(name)
    if info.kind == "generation":
        return  # texts: the next test
    labels = [float(index % max(2, info.num_labels)) for index in range(12)]
    found = compute(info, labels, labels)
    assert tuple(found) == info.metrics
    assert all(value == pytest.approx(1.0) for value in found.values())


def test_its_text_metrics_reward_the_truth_and_nothing_else(name):
    info = task_info(name)
    if info.kind != "generation":
        return
    truth = [f"word{index} in a row of some words" for index in range(6)]
    perfect = compute_generation(info, truth, truth)
    wrong = compute_generation(info, ["what is this"] * 6, truth)
    assert tuple(perfect) == tuple(wrong) == info.metrics
    for metric in info.metrics:
        lower = GENERATION_METRICS.load(metric).lower_is_better
        assert perfect[metric] == pytest.approx(0.0 if lower else 1.0)
        assert wrong[metric] > 0.5 if lower else wrong[metric] < 0.5


def test_generation_tasks_name_their_prefix(name):
    info = task_info(name)
    assert isinstance(info.extra.get("source_prefix"), str) is (info.kind == "generation")


def test_splits_are_consistent(name):
    task = TASKS.load(name)
    assert len(set(task.splits)) == len(task.splits) > 0
    assert set(task.renamed.values()) <= set(task.splits)
    assert {task.renamed.get(split, split) for split in task.hidden} <= set(task.splits)
    visible = set(task.splits) - set(task.hidden)
    assert visible
    if task.hidden:
        assert task.renamed.get("validation", "validation") in visible
    for split in task.info.extra.get("evaluation_splits", ()):
        assert split in visible


def test_a_model_with_its_classes_in_another_order_is_served(name):
    info = task_info(name)
    if info.kind != "classification":
        return
    labels = list(range(info.num_labels))
    samples = Samples([str(n) for n in labels], ["x"] * len(labels), None, labels)
    turned = tuple(reversed(info.label_names))
    aligned, found = align(info, samples, turned, SilentProgress())
    assert aligned == replace(info, label_names=turned)
    assert found.labels == labels[::-1]


def test_a_model_with_another_number_of_classes_is_refused(name):
    info = task_info(name)
    samples = Samples(["1"], ["x"], None, [0])
    names = [f"class {n}" for n in range(info.num_labels + 1)]
    with pytest.raises(UsageError, match=f"Task '{name}' needs"):
        align(info, samples, names, SilentProgress())
