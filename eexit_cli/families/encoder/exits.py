"""From options and a model's stored default to one exit criterion."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Protocol

from eexit_cli.confidence import DECODER_MEASURES, MEASURES
from eexit_cli.core.digits import even_grid
from eexit_cli.core.errors import UsageError
from eexit_cli.core.protocols import ExitCriterion, Measure
from eexit_cli.exits import CRITERIA


class ExitOptions(Protocol):
    """The attributes of :class:`eexit_cli.config.common.ExitConfig`."""

    @property
    def confidence(self) -> str | None: ...
    @property
    def threshold(self) -> float | str | None: ...
    @property
    def patience(self) -> int | None: ...
    @property
    def regression_tolerance(self) -> float | None: ...
    @property
    def voting(self) -> float | None: ...
    @property
    def static_layer(self) -> int | None: ...


DEFAULT_MEASURE = "entropy"
_CRITERION_OF = {
    "threshold": "threshold",
    "patience": "patience",
    "voting": "voting",
    "static_layer": "static",
}


def build_criterion(
    options: ExitOptions, defaults: Mapping[str, Any], *, num_layers: int, num_classes: int
) -> ExitCriterion | None:
    """The exit criterion that the options ask for, or else the model's own.

    Args:
        options: at most one of threshold, patience, voting and static_layer.
        defaults: the model's ``exit_defaults``, for instance ``{"criterion": "threshold",
            "confidence": "entropy", "threshold": 0.19}``; empty where it has none.
        num_layers: L.
        num_classes: K; 1 for regression.

    Returns:
        None is the full model: no option given and no default stored.

    Raises:
        UsageError: options that exclude each other, a value outside its range, a measure without
            a threshold, an unknown name.
    """
    if options.confidence is not None:
        classifier_measure(options.confidence)
    given = [name for name in _CRITERION_OF if getattr(options, name) is not None]
    if len(given) > 1:
        flags = " and ".join(f"--{name.replace('_', '-')}" for name in given)
        raise UsageError(
            f"{flags} exclude each other", hint="Each is an exit criterion: give one of them"
        )
    if given and given[0] != "threshold" and options.confidence is not None:
        raise UsageError(
            f"--confidence goes with --threshold, not with --{given[0].replace('_', '-')}",
            hint="Drop --confidence, or give --threshold",
        )
    settings: dict[str, Any] = dict(defaults)
    if given:
        settings = {"criterion": _CRITERION_OF[given[0]], given[0]: getattr(options, given[0])}
        if given[0] == "threshold":
            stored = defaults.get("confidence", DEFAULT_MEASURE)
            settings["confidence"] = options.confidence or stored
    elif options.confidence is not None:
        asked = MEASURES.canonical(options.confidence)
        if defaults.get("confidence") != asked:
            raise UsageError(
                f"The model stores no threshold for '{asked}'", hint="Add --threshold VALUE"
            )
    if options.regression_tolerance is not None:
        if settings.get("criterion") != "patience":
            raise UsageError("--regression-tolerance goes with --patience", hint="Add --patience N")
        settings["regression_tolerance"] = options.regression_tolerance
    if not settings:
        return None
    return criterion_from(settings, num_layers=num_layers, num_classes=num_classes)


def classifier_measure(name: str) -> str:
    """The registered name of a measure on a classifier's exits.

    Raises:
        UsageError: the name is unknown, or that of a measure on decoder tokens.
    """
    if name in DECODER_MEASURES and name not in MEASURES:
        try:
            return MEASURES.canonical(name)  # softmax response goes by that name there too
        except UsageError:
            raise UsageError(
                f"Confidence '{name}' is for decoders (CALM), not for classifiers",
                hint=f"Available: {', '.join(MEASURES)}",
            ) from None
    return MEASURES.canonical(name)


def criterion_from(
    settings: Mapping[str, Any], *, num_layers: int, num_classes: int
) -> ExitCriterion:
    """A criterion from its description (``exit_defaults``, a sweep's row, a run's document).

    Raises:
        UsageError: an unknown criterion or measure, or a value outside its range.
    """
    name = CRITERIA.canonical(str(settings["criterion"]))
    return _BUILDERS[name](CRITERIA.load(name), settings, num_layers, num_classes)


def _threshold(
    cls: Any, settings: Mapping[str, Any], num_layers: int, num_classes: int
) -> ExitCriterion:
    measure = MEASURES.load(settings.get("confidence") or DEFAULT_MEASURE)
    return cls(measure, float(settings["threshold"]), num_classes=num_classes)


def _patience(
    cls: Any, settings: Mapping[str, Any], num_layers: int, num_classes: int
) -> ExitCriterion:
    tolerance = settings.get("regression_tolerance")
    extra = {} if tolerance is None else {"tau": float(tolerance)}
    patience = int(settings["patience"])
    if patience > num_layers:
        raise UsageError(
            f"Patience {patience} is outside 0..{num_layers}",
            hint=f"The model has {num_layers} layers; 0 and {num_layers} mean the full model",
        )
    return cls(patience, **extra)


def _voting(
    cls: Any, settings: Mapping[str, Any], num_layers: int, num_classes: int
) -> ExitCriterion:
    threshold = settings.get("voting", settings.get("threshold"))
    if num_classes == 1:
        raise UsageError(
            "Voting needs classes; this model has one output (regression)",
            hint="Use --patience N or --static-layer N",
        )
    return cls(float(threshold))  # type: ignore[arg-type]


def _static(
    cls: Any, settings: Mapping[str, Any], num_layers: int, num_classes: int
) -> ExitCriterion:
    return cls(int(settings["static_layer"]), num_layers=num_layers)


_BUILDERS = {
    "threshold": _threshold,
    "patience": _patience,
    "voting": _voting,
    "static": _static,
}


def describe(criterion: ExitCriterion | None) -> dict[str, Any]:
    """Settings for the run's document; the full model has a name of its own."""
    return {"criterion": "full"} if criterion is None else criterion.describe()


SWEEP_STEPS = 40


def threshold_grid(measure: Measure, num_classes: int, steps: int = SWEEP_STEPS) -> list[float]:
    """Thresholds from the most cautious (the full model) to the most eager, ``steps`` + 1 of them.

    A confidence descends from 1 to its lower bound, entropy ascends from 0 to ln K; with few
    digits, to be retyped.
    """
    low, high = measure.bounds(num_classes)
    cautious, eager = (1.0, low) if measure.rises else (0.0, high)
    return even_grid(cautious, eager, steps)


def sweep_settings(
    *, num_layers: int, num_classes: int, measures: list[str] | None = None
) -> list[dict[str, Any]]:
    """Every setting that one pass can answer, each criterion from cautious to eager.

    Args:
        num_layers: L.
        num_classes: K; with one output thresholds and voting are left out.
        measures: only thresholds on these measures; None adds patience, voting and static
            layers to all of them.
    """
    settings: list[dict[str, Any]] = []
    if num_classes > 1:
        for name in measures if measures is not None else list(MEASURES):
            measure = MEASURES.load(name)
            settings += [
                {"criterion": "threshold", "confidence": measure.name, "threshold": value}
                for value in threshold_grid(measure, num_classes)
            ]
    if measures is not None:
        return settings
    settings += [
        {"criterion": "patience", "patience": value} for value in range(num_layers - 1, 0, -1)
    ]
    if num_classes > 1:
        # With the published exponent 1/2, unanimity after i layers reaches sqrt(i).
        settings += [
            {"criterion": "voting", "threshold": math.sqrt(layer)}
            for layer in range(num_layers, 0, -1)
        ]
    settings += [
        {"criterion": "static", "static_layer": layer} for layer in range(num_layers, 0, -1)
    ]
    return settings
