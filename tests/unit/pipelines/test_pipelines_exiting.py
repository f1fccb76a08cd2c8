"""From options to one criterion."""

import math

import pytest

from eexit_cli.confidence import MEASURES
from eexit_cli.config import EvaluateConfig
from eexit_cli.core.errors import UsageError
from eexit_cli.exits.patience import PatienceExit
from eexit_cli.exits.static import StaticExit
from eexit_cli.exits.threshold import ThresholdExit
from eexit_cli.exits.voting import VotingExit
from eexit_cli.families.encoder.exits import (
    build_criterion,
    criterion_from,
    sweep_settings,
    threshold_grid,
)

ENTROPY = {"criterion": "threshold", "confidence": "entropy", "threshold": 0.19}


def build(defaults=None, *, num_layers=6, num_classes=2, **options):
    config = EvaluateConfig(**options)
    return build_criterion(config, defaults or {}, num_layers=num_layers, num_classes=num_classes)


def test_nothing_given_is_the_models_own_default():
    criterion = build(ENTROPY)
    assert isinstance(criterion, ThresholdExit)
    assert criterion.describe() == ENTROPY
    assert build({}) is None


def test_each_option_chooses_its_criterion():
    assert isinstance(build(ENTROPY, patience=3), PatienceExit)
    assert isinstance(build(ENTROPY, voting=1.2), VotingExit)
    assert isinstance(build(ENTROPY, static_layer=2), StaticExit)
    threshold = build({"criterion": "patience", "patience": 2}, threshold=0.4)
    assert threshold.describe() == ENTROPY | {"threshold": 0.4}


def test_a_threshold_is_read_on_the_models_own_measure():
    margin = {"criterion": "threshold", "confidence": "margin", "threshold": 0.5}
    assert build(margin, threshold=0.9).measure.name == "margin"
    assert build(margin, threshold=0.9, confidence="max_prob").measure.name == "max-prob"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"threshold": 0.1, "patience": 2}, "--threshold and --patience exclude each other"),
        ({"patience": 2, "confidence": "margin"}, "--confidence goes with --threshold"),
        ({"confidence": "margin"}, "stores no threshold for 'margin'"),
        ({"confidence": "nonsense", "threshold": 0.1}, "Unknown confidence measure 'nonsense'"),
        ({"threshold": -0.1}, "outside the range"),
        ({"threshold": math.nan}, "outside the range"),
        ({"threshold": 5}, "outside the range of entropy with 2 classes, [0, 0.6931]"),
        ({"threshold": 0.71}, "outside the range of entropy"),
        ({"threshold": 1.5, "confidence": "margin"}, "outside the range"),
        ({"patience": -1}, "outside its range"),
        ({"patience": 7}, "outside 0..6"),
        ({"static_layer": 0}, "outside 1..6"),
        ({"static_layer": 7}, "outside 1..6"),
        ({"voting": 0.0}, "outside its range"),
        ({"regression_tolerance": 0.1}, "goes with --patience"),
    ],
)
def test_options_that_cannot_be_are_one_clear_line(options, message):
    with pytest.raises(UsageError) as caught:
        build(ENTROPY, **options)
    assert message in caught.value.message
    assert "\n" not in caught.value.message
    assert caught.value.hint


def test_an_entropy_threshold_a_little_above_the_bound_lets_everything_leave() -> None:
    """Scripts go to 0.7 in even steps: that is ln 2 and a little."""
    assert build(ENTROPY, threshold=0.7).threshold == 0.7


@pytest.mark.parametrize("options", [{"threshold": 0.1}, {"voting": 1.0}])
def test_regression_needs_patience_or_a_static_layer(options):
    with pytest.raises(UsageError, match="regression"):
        build({}, num_classes=1, **options)
    assert build({}, num_classes=1, patience=2, regression_tolerance=0.2).tau == 0.2


@pytest.mark.parametrize("name", list(MEASURES))
@pytest.mark.parametrize("classes", [2, 5])
def test_grids_go_from_the_full_model_to_the_most_eager(name, classes):
    measure = MEASURES.load(name)
    grid = threshold_grid(measure, classes)
    assert len(grid) == 41
    assert grid[0] == (1.0 if measure.rises else 0.0)
    assert grid[-1] == pytest.approx(measure.bounds(classes)[0 if measure.rises else 1])
    assert grid == sorted(grid, reverse=measure.rises)


def test_every_swept_setting_builds_and_repeats_its_own_description():
    settings = sweep_settings(num_layers=6, num_classes=3)
    assert len(settings) == 3 * 41 + 5 + 6 + 6
    for setting in settings:
        description = criterion_from(setting, num_layers=6, num_classes=3).describe()
        assert setting.items() <= description.items()
    regression = sweep_settings(num_layers=6, num_classes=1)
    assert {setting["criterion"] for setting in regression} == {"patience", "static"}
