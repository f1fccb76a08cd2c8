"""Criteria against loops written from the papers, one sample at a time."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from eexit_cli.confidence import MEASURES
from eexit_cli.core.criterion import Shape
from eexit_cli.core.errors import UsageError
from eexit_cli.core.stepping import replay
from eexit_cli.exits.patience import PatienceExit
from eexit_cli.exits.static import StaticExit
from eexit_cli.exits.threshold import ThresholdExit
from eexit_cli.exits.voting import VotingExit

ENTROPY, MAX_PROB, MARGIN = (MEASURES.load(name) for name in ("entropy", "max-prob", "margin"))


CLASSES = st.integers(2, 4)
FEW_VALUES = st.integers(-3, 3).map(float)


def traces(classes=CLASSES, values=FEW_VALUES):
    """Traces with many ties and agreements. Shape: [samples, layers, classes]."""
    shape = st.tuples(st.integers(1, 6), st.integers(1, 7), classes)
    return shape.flatmap(lambda size: hnp.arrays(np.float64, size, elements=values))


def layers_and_predictions(trace, criterion):
    decision = replay(torch.from_numpy(trace), criterion)
    return decision.exit_layers.tolist(), decision.predictions.tolist()


# --- PABEE --------------------------------------------------------------------------------------


def pabee(sample, patience, tau=None):
    """Algorithm of the paper: leave when ``patience`` layers in a row agree with the one before."""
    counter = 0
    previous = None
    for layer in range(1, len(sample) + 1):
        logits = sample[layer - 1]
        if tau is None:
            now = int(np.argmax(logits))
            agrees = previous is not None and now == previous
        else:
            now = float(logits[0])
            agrees = previous is not None and abs(now - previous) < tau
        counter = counter + 1 if agrees else 0
        previous = now
        if patience > 0 and counter == patience:
            break
    return layer, now


@given(trace=traces(), patience=st.integers(0, 8))
def test_patience_is_the_papers_loop_for_every_sample(trace, patience):
    expected = [pabee(sample, patience) for sample in trace]
    layers, predictions = layers_and_predictions(trace, PatienceExit(patience))
    assert list(zip(layers, predictions, strict=True)) == expected


@given(
    trace=traces(classes=st.just(1), values=st.floats(-2, 2)),
    patience=st.integers(1, 5),
    tau=st.floats(0.05, 3.0),
)
def test_regression_patience_is_the_papers_loop(trace, patience, tau):
    expected = [pabee(sample, patience, tau) for sample in trace]
    layers, values = layers_and_predictions(trace, PatienceExit(patience, tau=tau))
    assert list(zip(layers, values, strict=True)) == expected


@given(trace=traces(), patience=st.integers(1, 6))
def test_every_sample_has_a_counter_of_its_own(trace, patience):
    """The public code's one counter per batch lets any sample's disagreement reset all."""
    together = layers_and_predictions(trace, PatienceExit(patience))
    alone = [layers_and_predictions(sample[None], PatienceExit(patience)) for sample in trace]
    assert together[0] == [layers[0] for layers, _ in alone]
    assert together[1] == [predictions[0] for _, predictions in alone]


def test_one_samples_disagreement_does_not_hold_another_back():
    steady, wavering = [0, 0, 0, 0, 0], [0, 1, 0, 1, 0]
    trace = np.eye(2)[[steady, wavering]]
    assert layers_and_predictions(trace, PatienceExit(2))[0] == [3, 5]


@given(trace=traces(), patience=st.integers(1, 6))
def test_the_earliest_exit_is_the_layer_after_the_patience(trace, patience):
    layers, _ = layers_and_predictions(trace, PatienceExit(patience))
    assert all(layer >= min(patience + 1, trace.shape[1]) for layer in layers)


@given(trace=traces(), beyond=st.integers(-1, 3))
def test_patience_zero_and_from_one_below_the_depth_are_the_full_model(trace, beyond):
    depth = trace.shape[1]
    for patience in (0, max(depth + beyond, 1) if depth > 1 else 1):
        layers, predictions = layers_and_predictions(trace, PatienceExit(patience))
        assert layers == [depth] * len(trace)
        assert predictions == trace[:, -1].argmax(-1).tolist()


# --- threshold ----------------------------------------------------------------------------------


def first_beyond(sample, measure, threshold):
    """DeeBERT's loop: the first layer strictly beyond the threshold, or the last."""
    for layer in range(1, len(sample) + 1):
        logits = sample[layer - 1]
        value = float(measure(torch.from_numpy(logits)))
        if value > threshold if measure.rises else value < threshold:
            break
    return layer, int(np.argmax(logits))


@pytest.mark.parametrize("measure", [ENTROPY, MAX_PROB, MARGIN], ids=lambda measure: measure.name)
@given(trace=traces(), share=st.floats(0, 1))
def test_threshold_is_the_first_layer_beyond_it(measure, trace, share):
    low, high = measure.bounds(trace.shape[-1])
    threshold = low + share * (high - low)
    expected = [first_beyond(sample, measure, threshold) for sample in trace]
    layers, predictions = layers_and_predictions(trace, ThresholdExit(measure, threshold))
    assert list(zip(layers, predictions, strict=True)) == expected


@given(trace=traces(values=st.floats(-800, 800)))
def test_the_strictest_thresholds_are_exactly_the_full_model(trace):
    for criterion in (
        ThresholdExit(ENTROPY, 0.0),
        ThresholdExit(MAX_PROB, 1.0),
        ThresholdExit(MARGIN, 1.0),
        None,
    ):
        layers, predictions = layers_and_predictions(trace, criterion)
        assert layers == [trace.shape[1]] * len(trace)
        assert predictions == trace[:, -1].argmax(-1).tolist()


@pytest.mark.parametrize("measure", [ENTROPY, MAX_PROB, MARGIN], ids=lambda measure: measure.name)
@given(trace=traces(), shares=st.tuples(st.floats(0, 1), st.floats(0, 1)))
def test_a_stricter_threshold_never_leaves_earlier(measure, trace, shares):
    low, high = measure.bounds(trace.shape[-1])
    loose, strict = sorted(shares) if measure.rises else sorted(shares, reverse=True)
    early, _ = layers_and_predictions(trace, ThresholdExit(measure, low + loose * (high - low)))
    late, _ = layers_and_predictions(trace, ThresholdExit(measure, low + strict * (high - low)))
    assert all(first <= second for first, second in zip(early, late, strict=True))


# --- voting and static --------------------------------------------------------------------------


def vote(sample, threshold, lam):
    """Votes so far, scaled by layer**lam; the most voted class answers, probability breaks ties."""
    classes = sample.shape[-1]
    votes, mass = np.zeros(classes), np.zeros(classes)
    for layer, logits in enumerate(sample, start=1):
        votes[np.argmax(logits)] += 1
        powers = np.exp(logits - logits.max())
        mass += powers / powers.sum()
        if votes.max() / layer**lam >= threshold - 1e-9:
            break
    return layer, max(range(classes), key=lambda k: (votes[k], mass[k]))


@given(
    trace=traces(values=st.floats(-3, 3)),
    threshold=st.floats(0.3, 3.0),
    lam=st.sampled_from([0.0, 0.3, 0.5, 1.0]),
)
def test_voting_is_the_loop(trace, threshold, lam):
    expected = [vote(sample, threshold, lam) for sample in trace]
    layers, predictions = layers_and_predictions(trace, VotingExit(threshold, lam=lam))
    assert list(zip(layers, predictions, strict=True)) == expected


@given(layers=st.integers(1, 9), lam=st.sampled_from([0.0, 0.5]))
def test_a_unanimous_vote_leaves_at_the_layer_that_the_formula_gives(layers, lam):
    trace = np.tile(np.array([2.0, -1.0]), (1, 9, 1))
    threshold = layers ** (1 - lam)
    assert layers_and_predictions(trace, VotingExit(threshold, lam=lam))[0] == [layers]


def test_voting_ties_go_to_the_larger_probability_not_to_the_first_class():
    for order in ([0, 1], [1, 0]):
        weak, strong = np.zeros(2), np.zeros(2)
        weak[order[0]], strong[order[1]] = 0.1, 5.0
        trace = np.stack([weak, strong])[None]
        layers, predictions = layers_and_predictions(trace, VotingExit(3.0))
        assert (layers, predictions) == ([2], [order[1]])


@given(trace=traces(), layer=st.integers(1, 7))
def test_static_leaves_where_it_says(trace, layer):
    depth = trace.shape[1]
    layers, predictions = layers_and_predictions(trace, StaticExit(layer))
    exit_layer = min(layer, depth)
    assert layers == [exit_layer] * len(trace)
    assert predictions == trace[:, exit_layer - 1].argmax(-1).tolist()


# --- settings that mean nothing -----------------------------------------------------------------


@pytest.mark.parametrize(
    "build",
    [
        lambda: PatienceExit(-1),
        lambda: PatienceExit(1, tau=0.0),
        lambda: PatienceExit(1, tau=math.nan),
        lambda: ThresholdExit(ENTROPY, -0.1),
        lambda: ThresholdExit(ENTROPY, math.inf),
        lambda: ThresholdExit(MARGIN, 1.1),
        lambda: ThresholdExit(MAX_PROB, math.nan),
        lambda: ThresholdExit(ENTROPY, 0.1, num_classes=1),
        lambda: VotingExit(0.0),
        lambda: VotingExit(math.inf),
        lambda: VotingExit(1.0, lam=1.5),
        lambda: StaticExit(0),
        lambda: StaticExit(7, num_layers=6),
        lambda: replay(torch.zeros(1, 2, 1), VotingExit(1.0)),
    ],
)
def test_settings_outside_their_range_are_usage_errors_with_a_hint(build):
    with pytest.raises(UsageError) as caught:
        build()
    assert caught.value.hint
    assert "\n" not in caught.value.message


def test_descriptions_hold_every_setting():
    assert PatienceExit(3, tau=0.2).describe() == {
        "criterion": "patience",
        "patience": 3,
        "regression_tolerance": 0.2,
    }
    assert ThresholdExit(MARGIN, 0.4).describe() == {
        "criterion": "threshold",
        "confidence": "margin",
        "threshold": 0.4,
    }
    assert VotingExit(1.5, lam=0.25).describe() == {
        "criterion": "voting",
        "threshold": 1.5,
        "voting_exponent": 0.25,
    }
    assert StaticExit(4).describe() == {"criterion": "static", "static_layer": 4}


def test_a_vote_is_read_back_with_its_exponent() -> None:
    rule = VotingExit(1.5, lam=0.25)
    again = VotingExit.build(rule.describe(), Shape(6, 3))
    assert (again.threshold, again.lam) == (1.5, 0.25)
    assert VotingExit.build({"voting": 2.0}, Shape(6, 3)).lam == 0.5
