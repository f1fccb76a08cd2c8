"""What the fields of configurations do as options; see ``core.option``.

``ui.options`` makes options of them, and ``refuse_unread`` says what a family of models has no use
for.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Collection
from typing import Any

from eexit_cli.core.errors import UsageError
from eexit_cli.core.option import CAUSAL as CAUSAL
from eexit_cli.core.option import DECODERS as DECODERS
from eexit_cli.core.option import ENCODER as ENCODER
from eexit_cli.core.option import EXITS, FAMILIES, Option, flag
from eexit_cli.core.option import SEQ2SEQ as SEQ2SEQ
from eexit_cli.core.option import opt as opt

MODEL = "Model"
DATA = "Data"
DECODER = "Decoder (CALM, LayerSkip)"
TRAINING = "Training"
ATTACK = "Attack"
EVALUATION = "Evaluation"
CALIBRATION = "Calibration"
LOSSES = "Losses of your own"
UNDER_ATTACK = "Under attack"
FIGURE = "Figure"
RUN = "Run"
OUTPUT = "Output"
PANELS = (
    MODEL,
    DATA,
    EXITS,
    DECODER,
    TRAINING,
    ATTACK,
    EVALUATION,
    CALIBRATION,
    LOSSES,
    UNDER_ATTACK,
    FIGURE,
    RUN,
    OUTPUT,
)
"""The order of the help screen's groups."""


def like(config: type, name: str, **changes: Any) -> Any:
    """A field as ``config`` has it, with another default or other words in one command."""
    field = next(item for item in dataclasses.fields(config) if item.name == name)
    default = changes.pop("default", field.default)
    told = dataclasses.replace(option_of(field), **changes)
    return dataclasses.field(default=default, metadata={"option": told})


def option_of(field: dataclasses.Field[Any]) -> Option:
    """What a field's option says.

    Raises:
        TypeError: it has none: it could not be set from the command line.
    """
    told = field.metadata.get("option")
    if told is None:
        raise TypeError(f"the field '{field.name}' was made without opt()")
    assert isinstance(told, Option)
    return told


def refuse_unread(config: Any, family: str, *, model: str, explicit: Collection[str] = ()) -> None:
    """An option that a family of models does not read is an error, not ignored.

    Args:
        config: any configuration.
        family: of :data:`FAMILIES`.
        model: its name, for the error.
        explicit: options that were given, even where they say what is the default.

    Raises:
        UsageError: one was given.
    """
    for field in dataclasses.fields(config):
        told = option_of(field)
        given = getattr(config, field.name) != field.default or field.name in explicit
        if given and not told.read_by(family):
            raise _refusal(config, field.name, told, family, model)


def _refusal(config: Any, name: str, told: Option, family: str, model: str) -> UsageError:
    option = told.flag or flag(name)
    readers = [FAMILIES[reader] for reader in told.families]
    # A family of another package has no words here.
    own_words = FAMILIES[family][1] if family in FAMILIES else f"of the family {family}"
    if told.panel == EXITS:
        own = [
            flag(field.name)
            for field in dataclasses.fields(config)
            if (of := option_of(field)).panel == EXITS and of.read_by(family)
        ]
        way_on = f"{own_words} leaves by {', '.join(own)}"
    else:
        way_on = f"or name another model, such as {readers[0][2]}: eexit models list"
    return UsageError(
        f"{option} is for {' and '.join(reader[0] for reader in readers)}; "
        f"model '{model}' is {own_words}",
        hint=f"Drop {option}; {way_on}",
    )


def values_of(config: Any, name: str) -> list[Any]:
    """The values of an option: none, one or several."""
    value = getattr(config, name)
    if value is None:
        return []
    return list(value) if isinstance(value, (tuple, list)) else [value]
