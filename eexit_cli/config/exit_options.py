"""The options of the exit criteria as fields of a configuration: each criterion says its own."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from functools import reduce
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

    A criterion of another package that does not load has one option, named as it is, which says
    so; to give it is an error.

    Args:
        several: where an option has a ``grid``, it takes several values.
    """

    def decorate(cls: Config) -> Config:
        kinds = {}
        for name, kind, told in _options(several):
            kinds[name] = kind
            setattr(cls, name, dataclasses.field(default=None, metadata={"option": told}))
        cls.__annotations__ = {**kinds, **get_annotations(cls)}
        return cls

    return decorate


def _options(several: bool) -> Iterator[tuple[str, Any, Option]]:
    criteria: dict[str, type[Criterion]] = dict(_usable())
    asking = [criterion.option for criterion in criteria.values()]
    for at, criterion in enumerate(criteria.values()):
        hints = get_type_hints(criterion.options)
        for field in dataclasses.fields(criterion.options):
            # A pair of rivals is told once, by the first of them.
            rivals = asking[at + 1 :] if field.name == criterion.option else asking
            told = dataclasses.replace(
                option_of(field),
                excludes=tuple(name for name in rivals if name != criterion.option),
            )
            kind = hints[field.name]
            if several and told.grid is not None:
                told = dataclasses.replace(told, several=True, help=told.help + told.grid)
                kind = _one_or_several(kind)
            yield field.name, kind, told
    for name in CRITERIA:
        if name not in criteria:
            said = Option(f"{CRITERIA.problems()[name]}.", EXITS, families=(ENCODER,))
            yield name.replace("-", "_"), str | None, said


def _usable() -> Iterator[tuple[str, type[Criterion]]]:
    """The criteria that load and whose options can be none of another's."""
    for name, criterion in CRITERIA.working():
        prefix = name.replace("-", "_")
        strange = [each for each in criterion.option_names() if not each.startswith(prefix)]
        if strange and name not in CRITERIA.own:
            CRITERIA.refuse(name, f"its option '{strange[0]}' does not begin with '{prefix}'")
            continue
        yield name, criterion


def _one_or_several(kind: Any) -> Any:
    single = [each for each in get_args(kind) if each is not type(None)]
    return kind | tuple[reduce(or_, single), ...]  # type: ignore[misc]
