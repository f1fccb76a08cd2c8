"""What a calibration of a decoder's exit can turn: a measure's threshold."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

from eexit_cli.config.calibrate import CalibrateConfig
from eexit_cli.config.common import ExitConfig
from eexit_cli.config.decoder import DecoderConfig, DecoderExitConfig
from eexit_cli.core.answers import Knob
from eexit_cli.core.criterion import confidence_scale
from eexit_cli.core.errors import UsageError
from eexit_cli.families.calibration import distinct, knob, measures_of
from eexit_cli.families.decoders.exits import FULL, resolve_settings, settings_from

if TYPE_CHECKING:
    from eexit_cli.families.decoders.loaded import LoadedDecoder


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Asked(ExitConfig, DecoderExitConfig):
    """Exit options as ``families.decoders.exits`` reads them."""


def knobs(loaded: LoadedDecoder, config: CalibrateConfig) -> list[Knob]:
    """See :meth:`eexit_cli.core.family.Model.knobs`."""
    if config.criterion not in (None, "threshold"):
        raise UsageError(
            f"--criterion {config.criterion} is for classifiers; model '{loaded.name}' is a "
            "decoder",
            hint="Drop --criterion: a decoder is calibrated on a threshold",
        )
    if config.adaptive_threshold:
        raise UsageError(
            "An adaptive threshold moves with the data: no value of it can be calibrated",
            hint="Drop --adaptive-threshold; --shallow-layer calibrates FREE's fixed threshold",
        )
    options = {item.name: getattr(config, item.name) for item in dataclasses.fields(DecoderConfig)}
    options |= {"adaptive_threshold": False, "top_k_propagation": config.top_k_propagation}
    found = []
    for measure in measures_of(config) or (None,):
        # The threshold is a stand-in for those of the grid.
        asked = _Asked(confidence=measure, threshold=1.0, **options)
        fixed = resolve_settings(asked, loaded.exit_defaults, model=loaded.name)
        settings_from(fixed, loaded)
        for part in ("threshold", "adaptive_threshold"):
            fixed.pop(part, None)
        found.append(_of_measure(config, fixed))
    distinct([str(each.measure) for each in found])
    return found


def _of_measure(config: CalibrateConfig, fixed: dict[str, Any]) -> Knob:
    """A threshold on a measure, and what stays as it is beside it: first layer, top-k, decay."""
    name = str(fixed["confidence"])
    scale = confidence_scale(name)

    def settings(value: float) -> dict[str, Any]:
        # A decaying threshold of 1 falls below 1, so the full model is a setting of its own.
        if value == scale.full:
            return {**fixed, "criterion": FULL}
        return {**fixed, "threshold": value}

    return knob(config, scale, settings, criterion="threshold", measure=name)
