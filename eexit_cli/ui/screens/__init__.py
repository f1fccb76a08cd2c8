"""What people see of each command's result; programs get the document instead."""

from __future__ import annotations

from eexit_cli.core.catalog import Catalog
from eexit_cli.core.types import RunResult
from eexit_cli.ui.output import Output

SCREENS = Catalog(
    "recorded command",
    {
        "attack": "eexit_cli.ui.screens.attack:show_attack",
        "train": "eexit_cli.ui.screens.train:show_training",
        "evaluate": "eexit_cli.ui.screens.evaluate:show_evaluation",
        "calibrate": "eexit_cli.ui.screens.calibrate:show_calibration",
    },
)
"""Which screen shows a run, by the command that made it."""


def show_result(output: Output, result: RunResult) -> None:
    """Print a run as its command printed it."""
    SCREENS.load(result.document["command"])(output, result)
