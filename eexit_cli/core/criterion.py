"""What an exit criterion is, beside its step: options, settings, grid, scale, words.

A criterion is one file in ``exits/`` and one line in its catalog. Whatever else the house needs of
it stands in its class, where this module has the defaults. The file imports torch only inside
functions: the command line reads the options of every criterion for ``--help``.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any, ClassVar

from eexit_cli.core.digits import exact

if TYPE_CHECKING:
    from torch import Tensor

    from eexit_cli.core.protocols import Measure, RowState


@dataclass(frozen=True)
class Scale:
    """The settings of one exit criterion that a calibration goes through.

    Attributes:
        knob: what is turned, in words: "entropy threshold", "patience".
        full: the setting that is the full model.
        eager: the bound in the other direction.
        values: the default grid, from ``full`` on.
        whole: only whole numbers mean something.
        open_ended: values beyond ``eager`` are harmless: everything leaves at the first exit.
        alias: another way to write ``full``.
    """

    knob: str
    full: float
    eager: float
    values: tuple[float, ...]
    whole: bool = False
    open_ended: bool = False
    alias: float | None = None

    @property
    def descends(self) -> bool:
        return self.full > self.eager

    @property
    def bounds(self) -> tuple[float, float]:
        """Smallest and largest value."""
        low, high = sorted((self.full, self.eager))
        if not self.open_ended:
            return low, high
        return (-math.inf, high) if self.descends else (low, math.inf)


def confidence_scale(name: str) -> Scale:
    """A threshold on a measure that rises with certainty.

    The grid of DL2-CALM, 1 to 0.05, with three steps more behind its first: a decoder that is often
    nearly certain saves half of its layers between 1 and 0.95.
    """
    values = (1.0, 0.999, 0.99, 0.98, *(step / 20 for step in range(19, 0, -1)))
    return Scale(f"{name} threshold", 1.0, 0.0, values)


@dataclass(frozen=True)
class Shape:
    """What a criterion is made for.

    Attributes:
        num_layers: L.
        num_classes: K; 1 for regression.
        measure: the one that the setting ``confidence`` names, for a ``measured`` criterion.
    """

    num_layers: int
    num_classes: int
    measure: Measure | None = None


class Criterion(ABC):
    """Base of the exit criteria; see :class:`eexit_cli.core.protocols.ExitCriterion`.

    Only ``name``, ``option``, ``options``, :meth:`step` and :meth:`describe` must be given.

    Attributes:
        name: the one of its catalog entry.
        option: the field of ``options`` that asks for it; several criteria exclude each other.
        options: a dataclass whose fields are made with :func:`eexit_cli.core.option.opt`, with
            None as their default. Every option has a name of its own in the house, and that of a
            plug-in begins with the criterion's name.
        also_described: settings that :meth:`describe` tells beside the options.
        measured: it compares a confidence measure: ``confidence`` is one of its settings.
        needs_classes: it means nothing with one output (regression).
        reads_input: it looks at its input, so that an attack can slow it down.
    """

    name: ClassVar[str]
    option: ClassVar[str]
    options: ClassVar[type]
    also_described: ClassVar[tuple[str, ...]] = ()
    measured: ClassVar[bool] = False
    needs_classes: ClassVar[bool] = True
    reads_input: ClassVar[bool] = True

    @abstractmethod
    def step(self, layer: int, logits: Tensor, state: RowState) -> Tensor:
        """Which rows leave after this layer? Shape: [rows, classes] -> [rows], bool."""

    @abstractmethod
    def describe(self) -> dict[str, Any]:
        """``criterion``, its name, and its settings; :meth:`build` makes the same of them."""

    @classmethod
    def build(cls, settings: Mapping[str, Any], shape: Shape) -> Criterion:
        """The criterion of a description or of options; by default these are its arguments.

        Args:
            settings: as :meth:`describe` writes them, or values of its options.
            shape: of the model.

        Raises:
            UsageError: a value outside its range.
        """
        names = cls.option_names()
        return cls(**{name: settings[name] for name in names if settings.get(name) is not None})

    @classmethod
    def scale(cls, shape: Shape) -> Scale | None:
        """What a calibration may turn, cautious to eager; None where it has no such number."""
        return None

    @classmethod
    def at(cls, value: float, *, measure: str | None = None) -> dict[str, Any]:
        """The settings at a value of :meth:`scale`, as :meth:`describe` writes them."""
        return {"criterion": cls.name, cls.option: value}

    @classmethod
    def grid(cls, shape: Shape) -> list[dict[str, Any]]:
        """Settings of a sweep, cautious to eager; by default those of the scale's values."""
        scale = cls.scale(shape)
        name = None if shape.measure is None else shape.measure.name
        return [] if scale is None else [cls.at(value, measure=name) for value in scale.values]

    @classmethod
    def words(cls, settings: Mapping[str, Any]) -> str:
        """Its settings as people say them."""
        return f"{cls.name.replace('-', ' ')} {exact(settings[cls.option])}"

    def closeness(self, logits: Tensor, exit_layers: Tensor) -> Tensor:
        """How near each input was to going on past the exit where it left: 0 is sure, 1 went on.

        By default the mean of 1 - (top-2 margin) over the executed exits.

        Args:
            logits: Shape: [batch, exits, classes].
            exit_layers: Shape: [batch], int64; exits behind them were not executed.

        Returns:
            Shape: [batch].
        """
        import torch

        margin = margins(logits)
        layers = torch.arange(1, logits.shape[1] + 1)[None, :]
        executed = (layers <= exit_layers[:, None]).to(logits.dtype)
        return ((1 - margin) * executed).sum(dim=-1) / exit_layers.to(logits.dtype)

    @classmethod
    def option_names(cls) -> tuple[str, ...]:
        """The fields of its options, in their order."""
        return tuple(field.name for field in fields(cls.options))

    @classmethod
    def can_be_calibrated(cls) -> bool:
        """Has it a scale?"""
        return cls.scale.__func__ is not Criterion.scale.__func__  # type: ignore[attr-defined]


def margins(logits: Tensor) -> Tensor:
    """Difference of the two largest probabilities. Shape: [..., classes] -> [...]."""
    top = logits.softmax(dim=-1).topk(2, dim=-1).values
    return top[..., 0] - top[..., 1]
