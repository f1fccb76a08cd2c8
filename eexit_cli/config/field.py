"""An option is a field: its default, help, panel, bounds and readers stand at one place.

Plain data, free of typer: ``ui.options`` makes options of it, and ``refuse_unread`` below says what
a family of models has no use for.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

from eexit_cli.core.errors import UsageError

MODEL = "Model"
DATA = "Data"
EXITS = "Exits"
DECODER = "Decoder (CALM)"
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

ENCODER, SEQ2SEQ = "encoder", "seq2seq"
FAMILIES = {
    ENCODER: ("classifiers", "a classifier", "deebert"),
    SEQ2SEQ: ("decoders (CALM)", "a decoder", "calm"),
}
"""Families of models: several of them and one of them in words, and a bundled one."""


@dataclass(frozen=True)
class Option:
    """What the command line and the pipelines know of a field.

    Attributes:
        help: one sentence.
        panel: the group of the help screen, one of :data:`PANELS`.
        metavar: stands for the value; None follows from the type.
        least, most: bounds of a number.
        names: the kind of names it takes, of ``ui.catalogs``: checked, completed.
        suggests: the same, but completed only.
        listed: the help says all of them.
        parse: how a value is read where the type alone does not say, of ``ui.option_types``.
        several: values with commas between them make a tuple.
        completes: models or runs, for what is no catalog.
        flag: where it is not the field's name.
        argument: stands without a flag.
        show_default: the help says the default.
        needs: another field that it says nothing without.
        excludes: fields that contradict it.
        families: those that read it; the others refuse it.
    """

    help: str
    panel: str = ""
    metavar: str | None = None
    least: float | None = None
    most: float | None = None
    names: str | None = None
    suggests: str | None = None
    listed: bool = False
    parse: str | None = None
    several: bool = False
    completes: str | None = None
    flag: str | None = None
    argument: bool = False
    show_default: bool = True
    needs: str | None = None
    excludes: tuple[str, ...] = ()
    families: tuple[str, ...] = tuple(FAMILIES)


def opt(default: Any, help: str, panel: str = "", **told: Any) -> Any:
    """A field that is also an option; ``told`` is what :class:`Option` has."""
    return dataclasses.field(default=default, metadata={"option": Option(help, panel, **told)})


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


def flag(name: str) -> str:
    """A field's name as it is typed."""
    return f"--{name.replace('_', '-')}"


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
        if given and family not in told.families:
            raise _refusal(config, field.name, told, family, model)


def _refusal(config: Any, name: str, told: Option, family: str, model: str) -> UsageError:
    option = told.flag or flag(name)
    readers = [FAMILIES[reader] for reader in told.families]
    if told.panel == EXITS:
        own = [
            flag(field.name)
            for field in dataclasses.fields(config)
            if (of := option_of(field)).panel == EXITS and family in of.families
        ]
        way_on = f"{FAMILIES[family][1]} leaves by {', '.join(own)}"
    else:
        way_on = f"or name another model, such as {readers[0][2]}: eexit models list"
    return UsageError(
        f"{option} is for {' and '.join(reader[0] for reader in readers)}; "
        f"model '{model}' is {FAMILIES[family][1]}",
        hint=f"Drop {option}; {way_on}",
    )


def values_of(config: Any, name: str) -> list[Any]:
    """The values of an option: none, one or several."""
    value = getattr(config, name)
    if value is None:
        return []
    return list(value) if isinstance(value, (tuple, list)) else [value]
