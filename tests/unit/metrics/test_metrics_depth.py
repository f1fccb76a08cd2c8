"""Exit depth against the papers' definitions, derived again here."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from eexit_cli.metrics.depth import depth_metrics, efficacy, gain_removed, histogram

layers_and_depth = st.integers(1, 24).flatmap(
    lambda depth: st.tuples(
        st.lists(st.integers(1, depth), min_size=1, max_size=50), st.just(depth)
    )
)


def test_the_three_speed_figures_by_hand():
    metrics = depth_metrics([1, 2, 3, 6], 6)
    assert metrics["mean_exit_layer"] == 3.0
    assert metrics["speedup_layers"] == 2.0
    assert metrics["saved_layers"] == 0.5
    assert metrics["cost_layers"] == 0.5


@given(layers_and_depth)
def test_speed_figures_agree_with_each_other(case):
    layers, depth = case
    metrics = depth_metrics(layers, depth)
    assert metrics["cost_layers"] + metrics["saved_layers"] == pytest.approx(1)
    assert metrics["speedup_layers"] * metrics["cost_layers"] == pytest.approx(1)
    assert metrics["speedup_layers"] >= 1 - 1e-12


@given(layers_and_depth)
def test_efficacy_is_the_trapezoid_area(case):
    layers, depth = case
    fractions = [sum(layer <= i for layer in layers) / len(layers) for i in range(depth + 1)]
    area = np.trapezoid(fractions, np.arange(depth + 1) / depth)
    assert efficacy(layers, depth) == pytest.approx(area)
    # Closed form: each sample that leaves at e adds (L - e + 1/2) / L.
    closed = np.mean([(depth - layer + 0.5) / depth for layer in layers])
    assert efficacy(layers, depth) == pytest.approx(closed)


def test_gain_removed():
    assert gain_removed(3.0, 6.0, 6) == 1.0
    assert gain_removed(3.0, 4.5, 6) == 0.5
    assert gain_removed(3.0, 2.0, 6) < 0
    assert gain_removed(6.0, 6.0, 6) is None


@given(layers_and_depth)
def test_histogram_counts_every_sample(case):
    layers, depth = case
    counts = histogram(layers, depth)
    assert len(counts) == depth
    assert counts == [layers.count(layer) for layer in range(1, depth + 1)]
