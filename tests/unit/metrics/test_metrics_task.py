"""Task metrics against textbook formulas."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from eexit_cli.core.types import TaskInfo
from eexit_cli.metrics.task import METRICS, compute

binary = st.lists(st.tuples(st.integers(0, 1), st.integers(0, 1)), min_size=1, max_size=60)


def info(*metrics: str) -> TaskInfo:
    return TaskInfo("t", "classification", ("no", "yes"), metrics=metrics)


@given(binary)
def test_binary_metrics_from_the_confusion_matrix(pairs):
    predictions = np.array([pair[0] for pair in pairs])
    labels = np.array([pair[1] for pair in pairs])
    tp = int(np.sum((predictions == 1) & (labels == 1)))
    tn = int(np.sum((predictions == 0) & (labels == 0)))
    fp = int(np.sum((predictions == 1) & (labels == 0)))
    fn = int(np.sum((predictions == 0) & (labels == 1)))
    found = compute(info("accuracy", "f1", "matthews_correlation"), predictions, labels)
    assert found["accuracy"] == pytest.approx((tp + tn) / len(pairs))
    assert found["f1"] == pytest.approx(2 * tp / (2 * tp + fp + fn) if tp else 0.0)
    root = ((tp + fp) * (tp + fn) * (tn + fp) * (tn + fn)) ** 0.5
    assert found["matthews_correlation"] == pytest.approx((tp * tn - fp * fn) / root if root else 0)


def test_correlations():
    rng = np.random.default_rng(0)
    labels = rng.normal(size=40)
    predictions = labels + rng.normal(size=40)
    found = compute(info("pearson", "spearman"), predictions, labels)
    assert found["pearson"] == pytest.approx(np.corrcoef(predictions, labels)[0, 1])
    ranks = np.argsort(np.argsort(predictions)), np.argsort(np.argsort(labels))
    assert found["spearman"] == pytest.approx(np.corrcoef(*ranks)[0, 1])


def test_correlation_of_a_constant_is_zero_without_a_warning():
    assert compute(info("pearson", "spearman"), [1.0, 1.0], [0.0, 2.0]) == {
        "pearson": 0.0,
        "spearman": 0.0,
    }


@pytest.mark.parametrize("name", list(METRICS))
def test_a_perfect_answer_scores_one(name):
    labels = [0.0, 1.0, 1.0, 0.0, 1.0]
    assert compute(info(name), labels, labels)[name] == pytest.approx(1.0)
