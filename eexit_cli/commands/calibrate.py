"""``eexit calibrate``"""

from __future__ import annotations

from eexit_cli.config import CalibrateConfig
from eexit_cli.core.digits import exact
from eexit_cli.ui.output import Output
from eexit_cli.ui.signature import from_config

EXAMPLES = """
Examples:
  eexit calibrate --delta 0.1
  eexit calibrate --delta 0.05 --confidence softmax,saturation,mlp --curves --limit 500
  eexit calibrate --model deebert --delta 0.05 --epsilon 0.1 --consistency risk --curves
  eexit calibrate --losses losses.parquet --delta 0.1
  eexit calibrate --model deebert --delta 0.05 --under-attack same-token
  eexit evaluate --model deebert --threshold calibrated
"""


@from_config(CalibrateConfig)
def calibrate(config: CalibrateConfig, output: Output, explicit: frozenset[str]) -> None:
    """Choose the exit threshold that saves most, with a guarantee on what it may cost."""
    from eexit_cli.ui.screens.calibrate import show_calibration

    with output.progress() as progress:
        begun = f"Calibrating {config.losses or config.model} at delta {exact(config.delta)}"
        progress.message(f"Resuming {config.resume}" if config.resume else begun)
        from eexit_cli.pipelines.calibrate.run import run_calibration

        result = run_calibration(config, progress=progress, explicit=explicit)
    show_calibration(output, result)
