"""From options and a model's stored default to one exit criterion.

Which options, values and grids there are, the criteria say: see ``core.criterion``.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, get_args, get_type_hints

from eexit_cli.confidence import DECODER_MEASURES, MEASURES
from eexit_cli.config.exit_options import asking_options, exit_value
from eexit_cli.core.criterion import Criterion, Shape
from eexit_cli.core.errors import UsageError
from eexit_cli.core.option import flag
from eexit_cli.core.protocols import ExitCriterion, Measure
from eexit_cli.exits import CRITERIA
from eexit_cli.exits.threshold import threshold_grid as threshold_grid

DEFAULT_MEASURE = "entropy"


def build_criterion(
    options: Any, defaults: Mapping[str, Any], *, num_layers: int, num_classes: int
) -> ExitCriterion | None:
    """The exit criterion that the options ask for, or else the model's own.

    Args:
        options: with the attributes of ``config.common.ExitConfig``; those of at most one criterion
            are given.
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
    asking = asking_options()
    given = [name for name in asking if exit_value(options, asking[name]) is not None]
    if len(given) > 1:
        flags = " and ".join(flag(asking[name]) for name in given)
        raise UsageError(
            f"{flags} exclude each other", hint="Each is an exit criterion: give one of them"
        )
    settings: dict[str, Any] = dict(defaults)
    if given:
        asked: type[Criterion] = CRITERIA.load(given[0])
        settings = {"criterion": asked.name, asked.option: exit_value(options, asked.option)}
        if asked.measured:
            stored = defaults.get("confidence", DEFAULT_MEASURE)
            settings["confidence"] = options.confidence or stored
        elif options.confidence is not None:
            raise UsageError(
                f"--confidence goes with --threshold, not with {flag(asked.option)}",
                hint="Drop --confidence, or give --threshold",
            )
    elif options.confidence is not None:
        measure = MEASURES.canonical(options.confidence)
        if defaults.get("confidence") != measure:
            raise UsageError(
                f"The model stores no threshold for '{measure}'", hint="Add --threshold VALUE"
            )
    _add_refinements(settings, options)
    if not settings:
        return None
    return criterion_from(settings, num_layers=num_layers, num_classes=num_classes)


def _add_refinements(settings: dict[str, Any], options: Any) -> None:
    """Options that go with another one, such as --regression-tolerance with --patience."""
    for _, criterion in CRITERIA.working():
        for name in criterion.option_names():
            if name in (criterion.option, "confidence") or exit_value(options, name) is None:
                continue
            if settings.get("criterion") != criterion.name:
                asking = flag(criterion.option)
                whole = int in get_args(get_type_hints(criterion.options)[criterion.option])
                raise UsageError(
                    f"{flag(name)} goes with {asking}", hint=f"Add {asking} {'N' if whole else 'X'}"
                )
            settings[name] = exit_value(options, name)


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
                f"Confidence '{name}' is for decoders (CALM, LayerSkip), not for classifiers",
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
    cls: type[Criterion] = CRITERIA.load(str(settings["criterion"]))
    name = settings.get("confidence") or DEFAULT_MEASURE
    measure = MEASURES.load(name) if cls.measured else None
    return cls.build(settings, Shape(num_layers, num_classes, measure))


def describe(criterion: ExitCriterion | None) -> dict[str, Any]:
    """Settings for the run's document; the full model has a name of its own."""
    return {"criterion": "full"} if criterion is None else criterion.describe()


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
    for _, criterion in CRITERIA.working():
        if criterion.needs_classes and num_classes == 1:
            continue
        if criterion.measured:
            for measure in _measures(measures):
                settings += criterion.grid(Shape(num_layers, num_classes, measure))
        elif measures is None:
            settings += criterion.grid(Shape(num_layers, num_classes))
    return settings


def _measures(names: list[str] | None) -> list[Measure]:
    if names is not None:
        return [MEASURES.load(name) for name in names]
    return [measure for _, measure in MEASURES.working()]


def settings_along(
    described: Mapping[str, Any], num_layers: int, num_classes: int
) -> list[dict[str, Any]]:
    """The settings of a criterion, from cautious to eager.

    Args:
        described: the criterion, and the measure of a threshold.
        num_layers: L.
        num_classes: K.

    Returns:
        None for a criterion that looks at nothing, or that needs classes where there are none.
    """
    criterion: type[Criterion] = CRITERIA.load(str(described["criterion"]))
    if not criterion.reads_input or (criterion.needs_classes and num_classes == 1):
        return []
    measure = MEASURES.load(described["confidence"]) if criterion.measured else None
    return criterion.grid(Shape(num_layers, num_classes, measure))
