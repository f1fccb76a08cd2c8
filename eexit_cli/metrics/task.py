"""Task quality, in the metrics that the field reports for each task (GLUE's for GLUE)."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from eexit_cli.core.catalog import Catalog
from eexit_cli.core.types import TaskInfo

Array = NDArray[np.float64]
MetricFunction = Callable[[Array, Array], float]

METRICS = Catalog(
    "metric",
    {
        "accuracy": "eexit_cli.metrics.task:accuracy",
        "f1": "eexit_cli.metrics.task:f1",
        "matthews_correlation": "eexit_cli.metrics.task:matthews_correlation",
        "pearson": "eexit_cli.metrics.task:pearson",
        "spearman": "eexit_cli.metrics.task:spearman",
    },
)


def accuracy(predictions: Array, labels: Array) -> float:
    """Share of equal entries."""
    return float(np.mean(predictions == labels))


def f1(predictions: Array, labels: Array) -> float:
    """F1 of class 1 (MRPC, QQP); 0 where nothing is predicted and nothing is there."""
    from sklearn.metrics import f1_score

    return float(f1_score(labels, predictions, zero_division=0))


def matthews_correlation(predictions: Array, labels: Array) -> float:
    """Matthews correlation coefficient (CoLA), in [-1, 1]; 0 where either side is constant."""
    from sklearn.metrics import matthews_corrcoef

    if np.ptp(predictions) == 0 or np.ptp(labels) == 0:
        return 0.0
    return float(matthews_corrcoef(labels, predictions))


def pearson(predictions: Array, labels: Array) -> float:
    """Pearson correlation (STS-B); 0 where either side is constant."""
    return _correlation("pearsonr", predictions, labels)


def spearman(predictions: Array, labels: Array) -> float:
    """Spearman rank correlation (STS-B); 0 where either side is constant."""
    return _correlation("spearmanr", predictions, labels)


def _correlation(name: str, predictions: Array, labels: Array) -> float:
    from scipy import stats

    if len(labels) < 2 or np.ptp(predictions) == 0 or np.ptp(labels) == 0:
        return 0.0
    return float(getattr(stats, name)(predictions, labels).statistic)


def compute(info: TaskInfo, predictions: ArrayLike, labels: ArrayLike) -> dict[str, float]:
    """Every metric that the task reports, by name; the first one leads.

    Args:
        info: the task; its ``metrics`` say which.
        predictions: class ids or values. Shape: [samples].
        labels: the same for the references. Shape: [samples].
    """
    predicted = np.asarray(predictions, dtype=np.float64)
    expected = np.asarray(labels, dtype=np.float64)
    functions: Sequence[tuple[str, MetricFunction]] = [
        (name, METRICS.load(name)) for name in info.metrics
    ]
    return {name: function(predicted, expected) for name, function in functions}
