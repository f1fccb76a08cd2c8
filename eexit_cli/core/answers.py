"""What every family's models have in common as data: ways of leaving, answers, what a calibration
turns."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

CLASSES, TEXTS = "encoder", "decoder"
"""What models answer with, under the names that runs and recipes have for the two kinds."""

KIND_WORDS = {CLASSES: "classifier", TEXTS: "decoder"}


@dataclass(frozen=True)
class Exit:
    """One way of leaving.

    Attributes:
        key: its description as one line of JSON; exits with one key are one exit.
        rule: what the family runs; its own business.
    """

    key: str
    rule: Any = field(compare=False)

    @classmethod
    def of(cls, described: Mapping[str, Any], rule: Any) -> Exit:
        return cls(json.dumps(described), rule)

    @property
    def described(self) -> dict[str, Any]:
        """Criterion and settings, as documents have them."""
        found: dict[str, Any] = json.loads(self.key)
        return found


@dataclass(frozen=True)
class Answers:
    """What a model says to n inputs under one exit.

    Attributes:
        exit: the way of leaving.
        outputs: a class id, a number or a text of each input.
        exit_layers: of each input the layer of each decision, 1..L: one of a classifier, one per
            token of a generator.
        detail: the family's own account of the pass.
    """

    exit: Exit
    outputs: Sequence[Any]
    exit_layers: Sequence[Sequence[int]]
    detail: Any = None

    def __len__(self) -> int:
        return len(self.outputs)


@dataclass(frozen=True)
class Knob:
    """What a calibration turns: one number of an exit, from cautious to eager.

    Attributes:
        name: the number in words ("softmax threshold").
        criterion: the exit criterion that it belongs to.
        measure: the confidence measure; None where the criterion has none.
        values: of the number; the first is the full model.
        settings: the exit at each value, as ``exit_defaults`` writes it.
    """

    name: str
    criterion: str
    measure: str | None
    values: tuple[float, ...]
    settings: tuple[dict[str, Any], ...]
