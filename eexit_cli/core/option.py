"""An option is a field: its default, help, panel, bounds and readers stand at one place.

Plain data, free of typer, that components may use as well: an exit criterion declares its options.
"""

from __future__ import annotations

import dataclasses
import shlex
from dataclasses import dataclass
from typing import Any

EXITS = "Exits"
"""The panel of the help screen that a criterion's options stand in."""

ENCODER, SEQ2SEQ, CAUSAL = "encoder", "seq2seq", "causal"
FAMILIES = {
    ENCODER: ("classifiers", "a classifier", "deebert"),
    SEQ2SEQ: ("encoder-decoders (CALM)", "an encoder-decoder", "calm"),
    CAUSAL: ("decoder-only models (LayerSkip)", "a decoder-only model", "layerskip"),
}
"""Families of models: several of them and one of them in words, and a bundled one."""

DECODERS = (SEQ2SEQ, CAUSAL)
"""Those whose tokens leave."""


@dataclass(frozen=True)
class Option:
    """What the command line and the pipelines know of a field.

    Attributes:
        help: one sentence.
        panel: the group of the help screen, one of ``config.field.PANELS``.
        metavar: stands for the value; None follows from the type.
        least, most: bounds of a number.
        names: the kind of names it takes, of ``ui.catalogs``: checked, completed.
        suggests: the same, but completed only.
        listed: the help says all of them.
        parse: how a value is read where the type alone does not say, of ``ui.option_types``.
        several: values with commas between them make a tuple.
        grid: several of an exit's option make one row each of ``eexit evaluate``; the words that
            the help there adds. None takes one value there too.
        completes: models or runs, for what is no catalog.
        flag: where it is not the field's name.
        argument: stands without a flag.
        show_default: the help says the default.
        needs: another field that it says nothing without.
        excludes: fields that contradict it.
        families: those that read it, the others refuse it; empty is every family.
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
    grid: str | None = None
    completes: str | None = None
    flag: str | None = None
    argument: bool = False
    show_default: bool = True
    needs: str | None = None
    excludes: tuple[str, ...] = ()
    families: tuple[str, ...] = ()

    def read_by(self, family: str) -> bool:
        """Does this family of models read it?"""
        return not self.families or family in self.families


def opt(default: Any, help: str, panel: str = "", **told: Any) -> Any:
    """A field that is also an option; ``told`` is what :class:`Option` has."""
    return dataclasses.field(default=default, metadata={"option": Option(help, panel, **told)})


def flag(name: str) -> str:
    """A field's name as it is typed."""
    return f"--{name.replace('_', '-')}"


def typed(name: str, value: Any) -> str:
    """An option with its value, as they are typed."""
    if isinstance(value, bool):
        return flag(name) if value else flag(f"no_{name}")
    return f"{flag(name)} {shlex.quote(str(value))}"
