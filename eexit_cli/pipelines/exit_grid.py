"""Several values of an exit option: the settings that they make together, one row each."""

from __future__ import annotations

import dataclasses
import itertools
from typing import Any

from eexit_cli.config.evaluate import EvaluateConfig
from eexit_cli.config.field import flag, option_of, values_of
from eexit_cli.core.errors import UsageError

_SWEPT = ("confidence", "top_k_propagation")
"""Options that say what a sweep runs through; it chooses the values of the others itself."""

_SEVERAL = [item.name for item in dataclasses.fields(EvaluateConfig) if option_of(item).several]
GRID = (*_SWEPT, *(name for name in _SEVERAL if name not in _SWEPT))
"""Options that take several values; those of the first change slowest."""


def choices(config: EvaluateConfig) -> list[Any]:
    """Every combination of the values given, each a copy of ``config`` with one value per option.

    With ``sweep`` there is one, the chosen setting: lists then say what to sweep, and without a
    threshold the chosen setting is the model's own.

    Raises:
        UsageError: several thresholds and the like together with a sweep.
    """
    lists = {name: values_of(config, name) for name in GRID}
    if config.sweep:
        for name in GRID:
            if len(lists[name]) > 1 and name not in _SWEPT:
                option = flag(name)
                raise UsageError(
                    f"Several values of {option} and --sweep exclude each other",
                    hint=f"A sweep runs every setting; give one value of {option}, or drop --sweep",
                )
        for name in _SWEPT:
            if len(lists[name]) > 1 or config.threshold is None:
                lists[name] = []
    combined = itertools.product(*(found or [None] for found in lists.values()))
    made = [
        dataclasses.replace(config, **dict(zip(GRID, values, strict=True))) for values in combined
    ]
    return list(dict.fromkeys(made))


def is_grid(config: EvaluateConfig) -> bool:
    """Does any option have several values?"""
    return any(len(values_of(config, name)) > 1 for name in GRID)
