"""What a calibration of a classifier's exit can turn: a measure's threshold, or the patience."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from eexit_cli.calibration.thresholds import confidence_scale, entropy_scale, patience_scale
from eexit_cli.confidence import MEASURES
from eexit_cli.config.calibrate import CalibrateConfig
from eexit_cli.core.catalog import unknown_name
from eexit_cli.core.errors import UsageError
from eexit_cli.core.family import Knob
from eexit_cli.families.calibration import distinct, knob, measures_of
from eexit_cli.families.encoder.exits import DEFAULT_MEASURE

if TYPE_CHECKING:
    from eexit_cli.families.encoder.loaded import LoadedModel

CALIBRATED = ("threshold", "patience")
"""Criteria with one number to calibrate."""

_CRITERION_OF_FAMILY = {"deebert": "threshold", "pabee": "patience"}


def knobs(model: LoadedModel, config: CalibrateConfig) -> list[Knob]:
    """See :meth:`eexit_cli.core.family.Model.knobs`."""
    if model.num_classes == 1:
        raise UsageError(
            f"Model '{model.name}' is a regression model: its losses have no bound",
            hint="Calibrate a classifier, or bring losses in [0, 1] of your own: --losses FILE",
        )
    defaults = model.exit_defaults
    layout = str(model.model.config.family)
    own = str(defaults.get("criterion") or _CRITERION_OF_FAMILY[layout])
    asked = measures_of(config)
    criterion = config.criterion or ("threshold" if asked else own)
    if criterion not in CALIBRATED:
        if config.criterion is not None:
            raise unknown_name("criterion to calibrate", criterion, CALIBRATED)
        raise UsageError(
            f"The model's own exit criterion, '{criterion}', has no threshold to calibrate",
            hint="Give --criterion threshold or --criterion patience",
        )
    if criterion == "patience":
        if asked:
            raise UsageError(
                "--confidence says nothing with --criterion patience", hint="Drop one of them"
            )
        scale = patience_scale(model.num_layers)
        return [knob(config, scale, _patience, criterion=criterion)]
    names = asked or (str(defaults.get("confidence") or DEFAULT_MEASURE),)
    return [
        _of_measure(model, config, name)
        for name in distinct([MEASURES.canonical(name) for name in names])
    ]


def _patience(value: float) -> dict[str, Any]:
    return {"criterion": "patience", "patience": int(value)}


def _of_measure(model: LoadedModel, config: CalibrateConfig, name: str) -> Knob:
    rises = MEASURES.load(name).rises
    scale = confidence_scale(name) if rises else entropy_scale(model.num_classes)

    def settings(value: float) -> dict[str, Any]:
        return {"criterion": "threshold", "confidence": name, "threshold": value}

    return knob(config, scale, settings, criterion="threshold", measure=name)
