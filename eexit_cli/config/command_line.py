"""From a run's configuration back to the command that made it."""

from __future__ import annotations

import dataclasses
import shlex
from collections.abc import Mapping
from typing import Any

from eexit_cli.config.attack import AttackConfig
from eexit_cli.config.calibrate import CalibrateConfig
from eexit_cli.config.evaluate import EvaluateConfig
from eexit_cli.config.field import option_of
from eexit_cli.config.train import TrainConfig
from eexit_cli.core.option import flag

_CONFIGURATIONS: Mapping[str, type] = {
    "attack": AttackConfig,
    "calibrate": CalibrateConfig,
    "evaluate": EvaluateConfig,
    "train": TrainConfig,
}


def command_line(command: str, asked: Mapping[str, Any]) -> str:
    """What to type to run it again: the options that do not stand at their defaults.

    Args:
        command: attack, calibrate, evaluate or train; of another one the name alone is known.
        asked: the run's ``config``; what its pipeline noted beside the options is left out.
    """
    words = ["eexit", command]
    kind = _CONFIGURATIONS.get(command)
    for field in () if kind is None else dataclasses.fields(kind):
        value = asked.get(field.name)
        value = tuple(value) if isinstance(value, list) else value
        default = field.default
        told = option_of(field)
        # A path is text in a document, and to resume is no part of what was run.
        # Which model it was is said in any case, but losses of one's own have none.
        said = field.name == "model" and not asked.get("losses")
        stands = not said and (value == default or str(value) == str(default))
        if value is None or stands or field.name == "resume":
            continue
        name = told.flag or flag(field.name)
        if isinstance(value, bool):
            words.append(name if value else f"--no-{name.removeprefix('--')}")
        elif told.parse == "top-k" and not told.several and value == 0:
            words += [name, "none"]
        elif not isinstance(value, tuple):
            words += [name, str(value)]
        elif told.several or told.parse or told.names:
            listed = ("none" if told.parse == "top-k" and each == 0 else each for each in value)
            words += [name, ",".join(map(str, listed))]
        else:
            words += [word for each in value for word in (name, str(each))]
    return shlex.join(words)
