"""The options of the exit criteria as fields of a configuration: each criterion says its own."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from functools import partial, reduce
from inspect import get_annotations
from operator import or_
from typing import Any, TypeVar, get_args, get_type_hints

from eexit_cli.config.field import option_of
from eexit_cli.core.criterion import Criterion
from eexit_cli.core.option import ENCODER, EXITS, Option
from eexit_cli.exits import CRITERIA

Config = TypeVar("Config", bound=type)


def exit_options(*, several: bool = False) -> Callable[[Config], Config]:
    """A decorator, below ``@dataclass``, that puts the criteria's options before a class's fields.

    Those of other packages are put before the fields of its subclasses, where it shows which names
    are taken. A criterion that cannot be used has one option there, named as it is, which says so;
    to give it is an error.

    Args:
        several: where an option has a ``grid``, it takes several values.
    """

    def decorate(cls: Config) -> Config:
        _put(cls, [each for each in _options(several) if each[0] in CRITERIA.own])
        cls.__init_subclass__ = classmethod(partial(_put_plugins, several=several))  # type: ignore[assignment]
        return cls

    return decorate


def exit_value(config: Any, name: str) -> Any:
    """The value of an exit's option; None where it is not given or a command does not have it."""
    field = {item.name: item for item in dataclasses.fields(config)}.get(name)
    return None if field is None or option_of(field).panel != EXITS else getattr(config, name)


def asking_options() -> dict[str, str]:
    """Each criterion with the option that asks for it, also for those that cannot be used."""
    found = {name: criterion.option for name, criterion in CRITERIA.working()}
    return {name: found.get(name, _identifier(name)) for name in CRITERIA}


def _put_plugins(cls: type, *, several: bool) -> None:
    taken = {name for base in cls.__mro__ for name in get_annotations(base)}
    for name, criterion in list(CRITERIA.working()):
        if name not in CRITERIA.own:
            _refuse_strange(name, criterion, taken)
    made = [each for each in _options(several) if each[0] not in CRITERIA.own]
    problems, usable = CRITERIA.problems(), dict(CRITERIA.working())
    for name in CRITERIA:
        if name not in usable and _identifier(name) not in taken:
            said = Option(f"{problems[name]}.", EXITS, families=(ENCODER,))
            made.append((name, _identifier(name), str | None, said))
    _put(cls, made)


def _refuse_strange(name: str, criterion: type[Criterion], taken: set[str]) -> None:
    prefix = _identifier(name)
    for option in criterion.option_names():
        if not f"{option}_".startswith(f"{prefix}_"):
            CRITERIA.refuse(name, f"its option '{option}' does not begin with '{prefix}'")
        elif option in taken:
            CRITERIA.refuse(name, f"its option '{option}' is one of eexit's own")


def _put(cls: type, options: list[tuple[str, str, Any, Option]]) -> None:
    for _, name, _, told in options:
        setattr(cls, name, dataclasses.field(default=None, metadata={"option": told}))
    cls.__annotations__ = {name: kind for _, name, kind, _ in options} | get_annotations(cls)


def _options(several: bool) -> Iterator[tuple[str, str, Any, Option]]:
    """Criterion, option, type and what the option says, of all criteria that can be used."""
    criteria: list[type[Criterion]] = [criterion for _, criterion in CRITERIA.working()]
    for criterion in criteria:
        hints = get_type_hints(criterion.options)
        for field in dataclasses.fields(criterion.options):
            rivals = (
                other.option
                for other in criteria
                if other is not criterion
                # What is eexit's cannot know what will turn out to be unusable.
                and (other.name in CRITERIA.own or criterion.name not in CRITERIA.own)
                and not (field.name == "confidence" and other.measured)
            )
            told = dataclasses.replace(option_of(field), excludes=tuple(rivals))
            kind = hints[field.name]
            if several and told.grid is not None:
                told = dataclasses.replace(told, several=True, help=told.help + told.grid)
                kind = _one_or_several(kind)
            yield criterion.name, field.name, kind, told


def _one_or_several(kind: Any) -> Any:
    single = [each for each in get_args(kind) if each is not type(None)]
    return kind | tuple[reduce(or_, single), ...]  # type: ignore[misc]


def _identifier(name: str) -> str:
    return name.replace("-", "_")
