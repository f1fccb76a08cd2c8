"""What to do next with a threshold that a calibration kept."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import starmap
from typing import Any

from eexit_cli.config.calibrate import CalibrateConfig
from eexit_cli.config.runtime import WEIGHTS
from eexit_cli.core.option import typed


def uses(document: Mapping[str, Any]) -> list[str]:
    """Commands that use the threshold that was kept."""
    config, default = document["config"], CalibrateConfig()
    # Without these the calibration would be stale.
    names = ("runtime", "dtype", "weights", "max_length", "max_new_tokens", "lower_case")
    given = {name: config.get(name) for name in names}
    held = {n: value for n, value in given.items() if value not in (None, getattr(default, n))}
    # A calibration that certified nothing does not take the place of one that did.
    run = "" if document["metrics"]["certified"] else f":{document['run_id']}"
    model = f"{config['model']} --threshold calibrated{run}"
    found = [" ".join(["eexit evaluate --model", model, *starmap(typed, held.items())])]
    weights = WEIGHTS.get(str(held.get("runtime")))
    if weights is not None and held.keys() <= {"runtime", "lower_case"}:
        # A file that was exported before keeps the threshold that it has.
        held = {"weights": weights, **held, "output": "FOLDER"}
        del held["runtime"]
        found.append(" ".join(["eexit models export", model, *starmap(typed, held.items())]))
    return found
