"""What a calibration of a classifier's exit can turn: whatever its criterion has a scale for."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from eexit_cli.confidence import MEASURES
from eexit_cli.config.calibrate import CalibrateConfig
from eexit_cli.core.answers import Knob
from eexit_cli.core.catalog import unknown_name
from eexit_cli.core.criterion import Criterion, Shape
from eexit_cli.core.errors import UsageError
from eexit_cli.exits import CRITERIA
from eexit_cli.families.calibration import distinct, knob, measures_of
from eexit_cli.families.encoder.exits import DEFAULT_MEASURE

if TYPE_CHECKING:
    from eexit_cli.families.encoder.loaded import LoadedModel

_CRITERION_OF_LAYOUT = {"deebert": "threshold", "pabee": "patience"}


def knobs(model: LoadedModel, config: CalibrateConfig) -> list[Knob]:
    """See :meth:`eexit_cli.core.family.Model.knobs`."""
    if model.num_classes == 1:
        raise UsageError(
            f"Model '{model.name}' is a regression model: its losses have no bound",
            hint="Calibrate a classifier, or bring losses in [0, 1] of your own: --losses FILE",
        )
    defaults = model.exit_defaults
    layout = str(model.model.config.family)
    own = str(defaults.get("criterion") or _CRITERION_OF_LAYOUT[layout])
    asked = measures_of(config)
    name = config.criterion or ("threshold" if asked else own)
    calibrated = [each for each, criterion in CRITERIA.working() if criterion.can_be_calibrated()]
    if name not in calibrated:
        if config.criterion is not None:
            raise unknown_name("criterion to calibrate", name, calibrated)
        raise UsageError(
            f"The model's own exit criterion, '{name}', has no threshold to calibrate",
            hint=f"Give {' or '.join(f'--criterion {each}' for each in calibrated)}",
        )
    criterion: type[Criterion] = CRITERIA.load(name)
    if asked and not criterion.measured:
        raise UsageError(
            f"--confidence says nothing with --criterion {name}", hint="Drop one of them"
        )
    measures: list[str | None] = [None]
    if criterion.measured:
        names = asked or (str(defaults.get("confidence") or DEFAULT_MEASURE),)
        measures = [*distinct([MEASURES.canonical(each) for each in names])]
    return [_knob(criterion, each, config, model) for each in measures]


def _knob(
    criterion: type[Criterion], measure: str | None, config: CalibrateConfig, model: LoadedModel
) -> Knob:
    read = None if measure is None else MEASURES.load(measure)
    scale = criterion.scale(Shape(model.num_layers, model.num_classes, read))
    assert scale is not None
    settings = partial(criterion.at, measure=measure)
    return knob(config, scale, settings, criterion=criterion.name, measure=measure)
